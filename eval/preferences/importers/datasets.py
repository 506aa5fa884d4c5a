"""Votes in the layouts of LMArena, evalica, Pick-a-Pic and HPDv2.

LMArena, which arena-rank reads too: chatbot_arena_conversations (33k: question_id, winner, judge, conversation_a,
tstamp), arena-human-preference-55k (id, prompt, winner_model_a, winner_model_b, winner_tie), -100k, and -140k (id,
winner, evaluation_session_id, conversation_a, timestamp); arena-rank's PairDataset needs model_a, model_b and winner.

Pick-a-Pic (v1, v2) is published as Parquet; save it as CSV or as JSON lines, without the columns of image bytes.

HPDv2, train.json: human_preference [1, 0], prompt, image_path (or file_path, as its card says) of two images; no
annotator. test.json: prompt, image_path, rank, raw_annotations [{rank, user_hash}]; a lower rank is better. Neither
names the systems: --image-systems must.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from eval.preferences.damage import parse_json, read_text
from eval.preferences.importers.build import Builder, ForeignEntry, ForeignFile, Imported, Options
from eval.preferences.record import one_problem

LMARENA_COLUMNS = ("model_a", "model_b", "winner")
LMARENA_55K_COLUMNS = ("model_a", "model_b", "winner_model_a", "winner_model_b", "winner_tie")
EVALICA_COLUMNS = ("left", "right", "winner")
PICKAPIC_COLUMNS = ("caption", "image_0_uid", "image_1_uid", "model_0", "model_1", "label_0", "label_1")
HPDV2_TRAIN_COLUMNS = ("human_preference", "prompt")
HPDV2_TEST_COLUMNS = ("prompt", "image_path", "raw_annotations")

_ARENA_WINNERS = {
    **{"model_a": "a", "model_b": "b", "tie": "tie"},
    **dict.fromkeys(("tie (bothbad)", "both_bad", "bothbad"), "both bad"),
}
_PROMPT_TURN = "first turn of conversation_a"


def lmarena(source: ForeignFile, options: Options) -> Imported:
    """model_a becomes system_a. A prompt is the column prompt, or the first user turn of conversation_a.

    In the 55k layout a tie may have been 'both bad': the file does not tell them apart. Raises PreferenceError.
    """
    columns = source.columns
    stated = "prompt" in columns or (options.prompt, options.prompt_column) != (None, None)
    if "conversation_a" in columns and not stated:
        entries = tuple(
            ForeignEntry(e.line, {**e.values, _PROMPT_TURN: _first_turn(e.values.get("conversation_a"))})
            for e in source.entries
        )
        source = ForeignFile(source.file, (*columns, _PROMPT_TURN), entries)
    says = {
        "rater": "judge",
        "prompt_id": "question_id" if "question_id" in columns else "id",
        "prompt": "prompt" if "prompt" in columns else _PROMPT_TURN,
    }
    builder = Builder(source, options, says)
    time_column = "tstamp" if "tstamp" in columns else "timestamp"
    for entry in source.entries:
        winner = builder.winner(entry, _ARENA_WINNERS) if "winner" in columns else _winner_55k(builder, entry)
        if winner == "both bad":
            builder.decide(entry, "both_bad")
            winner = "tie"
        if winner is not None:
            systems = builder.text(entry, "model_a"), builder.text(entry, "model_b")
            builder.add(entry, systems, winner, time=builder.time(entry, time_column))
    return builder.finish()


def _winner_55k(builder: Builder, entry: ForeignEntry) -> str | None:
    flags = [str(entry.values.get(name)) for name in LMARENA_55K_COLUMNS[2:]]
    if sorted(flags) != ["0", "0", "1"]:
        reason = "exactly one of winner_model_a, winner_model_b and winner_tie must be 1, and the others 0"
        builder.refuse(entry, "winner_model_a", reason, value=", ".join(flags))
        return None
    return ("a", "b", "tie")[flags.index("1")]


def _first_turn(conversation: Any) -> str | None:
    """The text of the first user turn; None where the conversation is not JSON or has no such text."""
    if isinstance(conversation, str):
        try:
            conversation = json.loads(conversation)
        except ValueError:
            return None
    for turn in conversation if isinstance(conversation, list) else []:
        if isinstance(turn, dict) and turn.get("role") == "user":
            content = turn.get("content")
            parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
            texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
            return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else None
    return None


def evalica(source: ForeignFile, options: Options) -> Imported:
    """The layout of evalica's command line (0.4); left becomes system_a.

    The file knows no prompts and no raters: options must give them. Two rows on one pair are one rater's vote given
    twice unless --row-is prompt (or rater) says otherwise. Raises PreferenceError; evalica itself drops rows with
    another winner.
    """
    builder = Builder(source, options, {})
    for entry in source.entries:
        if winner := builder.winner(entry, {"left": "a", "right": "b", "tie": "tie"}):
            systems = builder.text(entry, "left"), builder.text(entry, "right")
            builder.add(entry, systems, winner)
    return builder.finish()


_LABELS: Mapping[tuple[float | None, ...], str] = {(1.0, 0.0): "a", (0.0, 1.0): "b", (0.5, 0.5): "tie"}
_TRUTHS: Mapping[str, bool] = {"True": True, "true": True, "False": False, "false": False}


def pickapic(source: ForeignFile, options: Options) -> Imported:
    """Image 0 becomes a. prompt_id is a hash of the caption, for the file numbers no prompts.

    Many of its pairs show two images of one model: they need --same-system leave-out. Raises PreferenceError.
    """
    builder = Builder(source, options, {"rater": "user_id", "prompt": "caption", "prompt_id": "caption"})
    for entry in source.entries:
        if "has_label" in source.columns:
            labelled = _TRUTHS.get(str(entry.values.get("has_label")))
            if labelled is None:
                builder.refuse(entry, "has_label", "must be true or false")
            elif not labelled:
                builder.decide(entry, "unanswered")
            if not labelled:
                continue
        if (winner := _pickapic_winner(builder, entry)) is None:
            continue
        more = {"image_a": builder.text(entry, "image_0_uid"), "image_b": builder.text(entry, "image_1_uid")}
        if options.prompt_id_column is None:
            more["prompt_id"] = prompt_hash(builder.text(entry, "caption"))
        systems = builder.text(entry, "model_0"), builder.text(entry, "model_1")
        builder.add(entry, systems, winner, time=builder.time(entry, "created_at"), **more)
    return builder.finish()


def prompt_hash(prompt: str) -> str:
    """An id for a prompt that has none: 'p' and the first 16 digits of the sha256 of its UTF-8."""
    return f"p{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def _pickapic_winner(builder: Builder, entry: ForeignEntry) -> str | None:
    labels = entry.values.get("label_0"), entry.values.get("label_1")
    winner = _LABELS.get(tuple(map(_number, labels)))
    if winner is None:
        reason = "label_0 and label_1 must be 1 and 0, 0 and 1, or 0.5 and 0.5"
        builder.refuse(entry, "label_0", reason, value=", ".join(map(str, labels)))
        return None
    best, loser = entry.values.get("best_image_uid"), {"a": "image_1_uid", "b": "image_0_uid"}.get(winner, "")
    if best is not None and best == entry.values.get(loser):
        builder.refuse(entry, "best_image_uid", "contradicts label_0 and label_1")
        return None
    return winner


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


_USER = "user_hash of raw_annotations"


def hpdv2(source: ForeignFile, options: Options) -> Imported:
    """Pairs as they are; of a ranking, every pair of its images, by that annotator (such votes depend on each
    other). Raises PreferenceError.
    """
    systems = _image_systems(source, options)
    says = {"prompt": "prompt", "prompt_id": "prompt"}
    rankings = "raw_annotations" in source.columns
    if rankings:
        says["rater"] = _USER
        source = ForeignFile(source.file, (*source.columns, _USER), source.entries)
    builder = Builder(source, options, says)
    for entry in source.entries:
        paths = entry.values.get("image_path", entry.values.get("file_path"))
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            builder.refuse(entry, "image_path", "must be a list of texts")
            continue
        if unknown := [path for path in paths if path not in systems]:
            builder.refuse(entry, "image_path", "is not in the file of --image-systems", value=unknown[0])
            continue
        for a, b, winner, rater in (_rankings if rankings else _pair)(builder, entry, paths):
            more = {"image_a": a, "image_b": b, "prompt_id": prompt_hash(builder.text(entry, "prompt"))}
            builder.add(entry, (systems[a], systems[b]), winner, **more, **rater)
    return builder.finish()


def _image_systems(source: ForeignFile, options: Options) -> Mapping[str, str]:
    if options.image_systems is None:
        reason = "the file names images, not systems; give --image-systems FILE, a JSON object {image_path: system}"
        raise one_problem(source.file, reason)
    content = parse_json(options.image_systems, read_text(options.image_systems))
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise one_problem(options.image_systems, "must be a JSON object {image_path: system}")
    return content


# two images, the winner, and {"rater": ...} where the file names one
_Pair = tuple[str, str, str, dict[str, str]]


def _pair(builder: Builder, entry: ForeignEntry, paths: list[str]) -> Iterator[_Pair]:
    choice = entry.values.get("human_preference")
    if choice not in ([1, 0], [0, 1]) or len(paths) != 2:
        builder.refuse(entry, "human_preference", "must be [1, 0] or [0, 1], of two images")
    else:
        yield paths[0], paths[1], "a" if choice == [1, 0] else "b", {}


def _rankings(builder: Builder, entry: ForeignEntry, paths: list[str]) -> Iterator[_Pair]:
    annotations = entry.values["raw_annotations"]
    if len(paths) < 2:
        builder.refuse(entry, "image_path", "must name two images or more")
        return
    if annotations == []:
        builder.decide(entry, "unanswered")
    for annotation in annotations if isinstance(annotations, list) else [None]:
        given: dict[str, Any] = annotation if isinstance(annotation, dict) else {}
        ranks, user = given.get("rank"), given.get("user_hash")
        if not isinstance(ranks, list) or len(ranks) != len(paths) or not all(type(r) is int for r in ranks):
            builder.refuse(entry, "raw_annotations", "each must hold a rank (a whole number) for each image")
            return
        if not isinstance(user, str | int) or user == "":
            builder.refuse(entry, "raw_annotations", "each must hold a user_hash", value=str(user))
            return
        for (a, rank_a), (b, rank_b) in itertools.combinations(zip(paths, ranks, strict=True), 2):
            yield a, b, "tie" if rank_a == rank_b else "a" if rank_a < rank_b else "b", {"rater": str(user)}
