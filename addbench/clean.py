"""`make clean`: removes what the project made and can make again, and says of everything else that it stays, and why.

Run from the project's root with any Python: nothing here needs the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from add.errors import InputError
from add.lock import holder, try_lock
from addbench.owner import living

STAGES = ("logs", "benchmarks", "reference", "ratings", "systems")
"""Directories of stages below results/<scale>, beside those of the runs."""
RUN = ("spec.json", "train/identity.json", ".replication")
"""What only the workflow leaves below results/<scale>/<run>/seed<k>; the second outlives a training that failed."""
REPORT = (
    *("table.pdf", "table.csv", "table.md", "table.tex", "findings.csv", "findings.json", "ratings.csv"),
    *("systems.pdf", "systems.csv", "systems_categories.csv", "explorer.html"),
    "figures",
)
"""What a report leaves below reports and reports/<scale>."""
BUILT = (
    *(f"{split}/{'[0-9]' * 12}.png" for split in ("train", "val", "reference")),
    *(f"annotations/captions_{split}.json" for split in ("train", "val", "reference")),
    *("networks", "encoded", "scenes.json", "PartiPrompts.tsv", "dataset.json"),
)
"""What mini.dataset and mini.smoke make below a data set's root, and the cache that config/mini.yaml names there."""
ADOPTED = ("annotations/captions_train.json", "dataset.json")
"""What eval.adopted makes there, maybe among a user's own photographs."""

_OTHER = "not among what the workflow makes again"


def clean(root: Path) -> list[str]:
    """Remove what is known to be made below `root`; one line for each thing that stays.

    Raises InputError while a Snakemake works there.
    """
    if worker := living(root / "Snakefile"):
        raise InputError(f"Snakemake works here ({worker}): wait until it ends, or end it")
    scales = {file.stem for file in (root / "config").glob("*.yaml")}
    _remove_known(root / "reports", REPORT)
    kept = [line for folder in (root / "reports").glob("*/") for line in _clean_report(folder, scales)]
    shutil.rmtree(root / ".snakemake", ignore_errors=True)
    shutil.rmtree(root / "data" / "pretrain", ignore_errors=True)
    for left in (root / "data").glob(".*.partial"):  # by a build that was killed
        _remove(left)
    kept += [line for folder in _inside(root / "data") for line in _clean_data(folder)]
    kept += [line for folder in _inside(root / "results") for line in _clean_results(folder)]
    for folder in (root / "data", root / "results"):
        _drop_if_empty(folder)
    return kept


def _clean_report(folder: Path, scales: Collection[str]) -> Iterator[str]:
    """A report lies in a folder of its scale's name, or in <scale>-<folder of ablations>."""
    if folder.name in scales or any(folder.name.startswith(f"{scale}-") for scale in scales):
        _remove_known(folder, REPORT)
    elif any((folder / name).exists() for name in REPORT):
        yield f"{folder}: a copy of a report, or of no scale in config/"


def _clean_data(folder: Path) -> Iterator[str]:
    made = _made(folder)
    if made is None:
        yield f"{folder}: no data set that the project made (it has no dataset.json of a build)"
    elif reason := _busy(folder):
        yield f"{folder}: {reason}"
    else:
        _remove_known(folder, made)
        if others := ", ".join(path.name for path in _inside(folder)):
            yield f"{folder}: the project's own files are gone; it did not make {others}"


def _made(folder: Path) -> tuple[str, ...] | None:
    """The patterns of what a build made in `folder`; None where its dataset.json is not from one, or is missing."""
    try:
        facts: Any = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict):
        return None
    if set(facts) == {"images"}:
        return BUILT
    return ADOPTED if {"scale", "photographs", "training"} <= set(facts) else None


def _clean_results(scale: Path) -> Iterator[str]:
    if not scale.is_dir():
        yield f"{scale}: {_OTHER}"
    for folder in _inside(scale):
        if folder.name in STAGES:
            yield from _remove_or_say(folder)
        for seed in folder.glob("seed*/"):
            if any((seed / name).exists() for name in RUN):
                yield from _remove_or_say(seed)
        _drop_if_empty(folder)
        if folder.exists() and folder.name not in STAGES and not list(folder.glob("seed*/")):
            yield f"{folder}: {_precious(folder) or _OTHER}"
    _drop_if_empty(scale)


def _remove_or_say(folder: Path) -> Iterator[str]:
    reason = _precious(folder) or _busy(folder)
    if reason is None:
        _remove(folder)
        folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    else:
        yield f"{folder}: {reason}"


def _precious(folder: Path) -> str | None:
    """Why nothing can make again what is in `folder`: a study that people may be answering, or votes."""
    for file in (folder,) if folder.is_file() else folder.rglob("*"):
        if file.name.endswith(".key.json"):
            return f"{file.name} is a study's key, without which its votes cannot be read"
        if file.suffix == ".made":
            return "says that the study beside it was made"
        if file.name.startswith("votes.sqlite3"):
            return f"{file.name} holds a study's votes"
        if file.suffix == ".csv" and file.name != "automatic.csv":
            with file.open(encoding="utf-8", errors="replace") as stream:
                if "rater_kind" in stream.readline():
                    return f"{file.name} may hold people's votes"
    return None


def _busy(folder: Path) -> str | None:
    """Which process writes there, if one does."""
    file = folder.with_name(f".{folder.name}.lock")
    descriptor = try_lock(file) if file.exists() else -1
    if descriptor is None:
        process, host = holder(file) or ("?", "?")
        return f"process {process} on {host} writes there; end it first (kill {process})"
    if descriptor >= 0:
        os.close(descriptor)
    return None


def _remove_known(folder: Path, patterns: tuple[str, ...]) -> None:
    """Remove what the patterns match, and the directories that are empty then."""
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            _remove(path)
            if path.parent != folder:
                _drop_if_empty(path.parent)
    if folder.name != "reports":
        _drop_if_empty(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _drop_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def main() -> int:
    """Clean the project in the current directory, and print what stays; 1 while a Snakemake works there."""
    argparse.ArgumentParser(prog="python -m addbench.clean", description=__doc__).parse_args()
    try:
        kept = clean(Path())
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    for line in kept:
        print(f"kept {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
