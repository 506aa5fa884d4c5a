"""Votes of HPDv2: train.json (pairs) and test.json (rankings of several images by several annotators).

train: human_preference [1, 0], prompt, image_path (or file_path, as its card says) of two images; no annotator.
test: prompt, image_path, rank, raw_annotations [{rank, user_hash}]; a lower rank is better. Neither names the
systems: --image-systems must.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from eval.preferences.importers.build import Builder, Imported
from eval.preferences.importers.entries import ForeignEntry, ForeignFile, Options
from eval.preferences.importers.pickapic import prompt_hash
from eval.preferences.key import read_json
from eval.preferences.record import UNKNOWN, one_problem

TRAIN_COLUMNS = ("human_preference", "prompt")
TEST_COLUMNS = ("prompt", "image_path", "raw_annotations")

_WINNERS = {"a": [1, 0], "b": [0, 1]}
_USER = "user_hash of raw_annotations"


def convert(source: ForeignFile, options: Options) -> Imported:
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
        unknown = [path for path in paths if path not in systems]
        if unknown:
            builder.refuse(entry, "image_path", "is not in the file of --image-systems", value=unknown[0])
            continue
        if rankings:
            _rankings(builder, entry, paths, systems)
        else:
            _pair(builder, entry, paths, systems)
    return builder.finish()


def _image_systems(source: ForeignFile, options: Options) -> Mapping[str, str]:
    if options.image_systems is None:
        reason = "the file names images, not systems; give --image-systems FILE, a JSON object {image_path: system}"
        raise one_problem(source.file, reason)
    content = read_json(options.image_systems)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise one_problem(options.image_systems, "must be a JSON object {image_path: system}")
    return content


def _pair(builder: Builder, entry: ForeignEntry, paths: list[str], systems: Mapping[str, str]) -> None:
    choice = entry.values.get("human_preference")
    winner = next((side for side, labels in _WINNERS.items() if choice == labels), None)
    if winner is None or len(paths) != 2:
        builder.refuse(entry, "human_preference", "must be [1, 0] or [0, 1], of two images")
        return
    _add(builder, entry, (paths[0], paths[1]), systems, winner, {})


def _rankings(builder: Builder, entry: ForeignEntry, paths: list[str], systems: Mapping[str, str]) -> None:
    annotations = entry.values["raw_annotations"]
    for annotation in annotations if isinstance(annotations, list) else [None]:
        given: dict[str, Any] = annotation if isinstance(annotation, dict) else {}
        ranks, user = given.get("rank"), given.get("user_hash")
        if not isinstance(ranks, list) or len(ranks) != len(paths) or not all(type(r) is int for r in ranks):
            builder.refuse(entry, "raw_annotations", "each must hold a rank (a whole number) for each image")
            return
        if not isinstance(user, str | int) or user == "":
            builder.refuse(entry, "raw_annotations", "each must hold a user_hash", value=str(user))
            return
        for (first, rank_a), (second, rank_b) in itertools.combinations(zip(paths, ranks, strict=True), 2):
            winner = "tie" if rank_a == rank_b else "a" if rank_a < rank_b else "b"
            _add(builder, entry, (first, second), systems, winner, {"rater": str(user)})


def _add(
    builder: Builder,
    entry: ForeignEntry,
    paths: tuple[str, str],
    systems: Mapping[str, str],
    winner: str,
    more: dict[str, str],
) -> None:
    pair = systems[paths[0]], systems[paths[1]]
    more = {
        **more,
        "image_a": paths[0],
        "image_b": paths[1],
        "prompt_id": prompt_hash(builder.text(entry, "prompt")),
    }
    builder.add(entry, pair, winner, time=UNKNOWN, **more)
