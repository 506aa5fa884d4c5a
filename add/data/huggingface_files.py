"""Which files is a Hugging Face dataset directory made of? Two layouts: save_to_disk's, and the Hub's parquet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from add.data.samples import DataError

_NUMBERED = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<total>\d+)\.parquet")
"""train-00000-of-00004.parquet"""


def dataset_files(root: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The data files of one split, in order, and all problems: a listed or numbered file that is not there."""
    if not root.is_dir():
        return [], [f"{root}: no such folder; it should hold a Hugging Face dataset"]
    try:
        if (root / "dataset_dict.json").exists():
            splits = _json(root / "dataset_dict.json").get("splits", [])
            return _saved(root / str(split)) if split in splits else ([], [_wrong_split(root, split, splits)])
        if (root / "state.json").exists():
            return (
                _saved(root) if split is None else ([], [f"{root}: is one split; leave data.train.split out"])
            )
    except DataError as error:
        return [], list(error.problems)
    return _parquet(root, split)


def _saved(root: Path) -> tuple[list[Path], list[str]]:
    """The Arrow files that a directory of save_to_disk lists."""
    state = _json(root / "state.json")
    entries = state.get("_data_files")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "filename" in e for e in entries):
        return [], [f"{root / 'state.json'}: lists no _data_files; is this what save_to_disk wrote?"]
    if state.get("_indices_data_files"):
        return [], [f"{root}: holds an indices mapping; load and save it again with a newer `datasets`"]
    files = [root / entry["filename"] for entry in entries]
    missing = [f"{file}: no such file, though state.json lists it" for file in files if not file.exists()]
    return [file for file in files if file.exists()], missing


def _parquet(root: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The parquet files of a split. A file's split is what its name begins with, as on the Hub."""
    files = [f for f in root.rglob("*.parquet") if not f.relative_to(root).as_posix().startswith(".")]
    by_split: dict[str, list[Path]] = {}
    for file in sorted(files):
        by_split.setdefault(re.split(r"[-.]", file.name)[0], []).append(file)
    if not files:
        return [], [f"{root}: holds neither state.json (save_to_disk) nor a parquet file"]
    if split is None and len(by_split) == 1:
        (split,) = by_split
    if split not in by_split:
        return [], [_wrong_split(root, split, by_split)]
    return by_split[split], _missing_parts(by_split[split])


def _missing_parts(files: list[Path]) -> list[str]:
    """The files that a numbered set lacks."""
    there = set(files)
    expected: dict[Path, None] = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file.name):
            names = (
                f"{match['split']}-{str(k).zfill(len(match['number']))}-of-{match['total']}.parquet"
                for k in range(int(match["total"]))
            )
            expected |= dict.fromkeys(file.with_name(name) for name in names)
    return [f"{file}: no such file, though its neighbours count it" for file in expected if file not in there]


def _wrong_split(root: Path, split: str | None, splits: Any) -> str:
    asked = "data.train.split is not set" if split is None else f"there is no split {split!r}"
    return f"{root}: {asked}; it has {', '.join(sorted(map(str, splits)))}"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError([f"{file}: not JSON in UTF-8: {error}"]) from None
    if not isinstance(content, dict):
        raise DataError([f"{file}: holds no JSON object"])
    return content
