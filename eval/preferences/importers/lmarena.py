"""Votes in LMArena's layout, which arena-rank reads too: model_a, model_b, winner.

Layouts meant: chatbot_arena_conversations (33k: question_id, winner, judge, conversation_a, tstamp),
arena-human-preference-55k (id, prompt, winner_model_a, winner_model_b, winner_tie), -100k, and -140k (id, winner,
evaluation_session_id, conversation_a, timestamp); arena-rank's PairDataset needs model_a, model_b and winner only.
"""

from __future__ import annotations

import json
from typing import Any

from eval.preferences.importers.build import Builder, Imported, choice
from eval.preferences.importers.entries import ForeignEntry, ForeignFile, Options
from eval.preferences.record import nearest

COLUMNS = ("model_a", "model_b", "winner")
COLUMNS_55K = ("model_a", "model_b", "winner_model_a", "winner_model_b", "winner_tie")

_WINNERS = {"model_a": "a", "model_b": "b", "tie": "tie"}
_BOTH_BAD = ("tie (bothbad)", "both_bad", "bothbad")
_PROMPT_TURN = "first turn of conversation_a"


def convert(source: ForeignFile, options: Options) -> Imported:
    """model_a becomes system_a. A prompt is the column prompt, or the first user turn of conversation_a.

    In the 55k layout a tie may have been 'both bad': the file does not tell them apart. Raises PreferenceError.
    """
    columns = set(source.columns)
    if (
        "prompt" not in columns
        and "conversation_a" in columns
        and options.prompt is options.prompt_column is None
    ):
        source, columns = _with_prompts(source), columns | {_PROMPT_TURN}
    says = {
        "rater": "judge",
        "prompt_id": "question_id" if "question_id" in columns else "id",
        "prompt": "prompt" if "prompt" in columns else _PROMPT_TURN,
    }
    builder = Builder(source, options, says)
    time_column = next((name for name in ("tstamp", "timestamp") if name in columns), None)
    for entry in source.entries:
        winner = _winner_55k(builder, entry) if "winner" not in columns else _winner(builder, entry)
        if winner is not None:
            systems = builder.text(entry, "model_a"), builder.text(entry, "model_b")
            builder.add(entry, systems, winner, time=builder.time(entry, time_column))
    return builder.finish()


def _winner(builder: Builder, entry: ForeignEntry) -> str | None:
    value = entry.values.get("winner")
    if value is None or value == "":
        builder.decide(entry, "unanswered")
        return None
    if value in _BOTH_BAD:
        builder.decide(entry, "both_bad")
        return "tie"
    winner = choice(_WINNERS, value)
    if winner is None:
        builder.refuse(entry, "winner", f"is no winner; {nearest(str(value), (*_WINNERS, *_BOTH_BAD))}")
        return None
    return winner


def _winner_55k(builder: Builder, entry: ForeignEntry) -> str | None:
    flags = [str(entry.values.get(name)) for name in COLUMNS_55K[2:]]
    if sorted(flags) != ["0", "0", "1"]:
        reason = "exactly one of winner_model_a, winner_model_b and winner_tie must be 1, and the others 0"
        builder.refuse(entry, "winner_model_a", reason, value=", ".join(flags))
        return None
    return ("a", "b", "tie")[flags.index("1")]


def _with_prompts(source: ForeignFile) -> ForeignFile:
    entries = tuple(
        ForeignEntry(e.line, {**e.values, _PROMPT_TURN: _first_turn(e.values.get("conversation_a"))})
        for e in source.entries
    )
    return ForeignFile(source.file, (*source.columns, _PROMPT_TURN), entries)


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
            texts = [
                part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"
            ]
            return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else None
    return None
