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

UNFINISHED = (".*.lock", ".*.partial")
"""What a process leaves that was killed, and a lock that nobody holds."""
STAGES = {
    "logs": ("*.log", "*.log.refused"),
    "benchmarks": ("*.tsv",),
    "reference": ("features.safetensors", "reference.json", *UNFINISHED),
    "ratings": ("automatic.csv", "ratings.json", "systems.json", *UNFINISHED),
    "systems": ("timing.json", *UNFINISHED),
}
"""Directories of stages below results/<scale>, beside those of the runs, and what the stages leave there."""
RUN = ("spec.json", "train/identity.json", ".replication")
"""What only the workflow leaves below results/<scale>/<run>/seed<k>; the second outlives a training that failed."""
MADE = (
    *("student", "result.json", "result-*step.json", "scores/*-*step.csv", "scores/*-*step.safetensors"),
    *(f"train/{name}" for name in ("train.json", "log.jsonl", "pictures", "tensorboard", "checkpoints")),
    *(f"samples/*-*step/{name}" for name in ("[0-9]*.png", "index.csv", "samples.json")),
    *(f"**/{name}" for name in UNFINISHED),
    *RUN,
)
"""What a run's stages leave there, and those of a system below results/<scale>/systems/<system>."""
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
PICTURES = ("[a-z]*-[0-9]*-[0-9]*.npy", ".*.partial")
"""What mini.pretrain keeps in data/pretrain."""
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
    _remove_known(root / "data" / "pretrain", PICTURES)
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
            yield f"{folder}: the project's own files are gone; it did not make all of {others}"


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
        runs = [seed for seed in folder.glob("seed*/") if any((seed / name).exists() for name in RUN)]
        if folder.name == "systems":
            runs += [system for system in _inside(folder) if system.is_dir()]
        for run in runs:
            yield from _remove_or_say(run, MADE)
        if folder.name in STAGES:
            yield from _remove_or_say(folder, STAGES[folder.name])
        _drop_if_empty(folder)
        if folder.exists() and folder.name not in STAGES and not list(folder.glob("seed*/")):
            yield f"{folder}: {_precious(folder) or _OTHER}"
    _drop_if_empty(scale)


def _remove_or_say(folder: Path, made: tuple[str, ...]) -> Iterator[str]:
    if reason := _precious(folder) or _busy(folder):
        yield f"{folder}: {reason}"
        return
    _remove_known(folder, made)
    folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    # What stays of a system has a line of its own.
    others = [path.name for path in _inside(folder) if folder.name != "systems" or not path.is_dir()]
    if others:
        yield f"{folder}: the project's own files are gone; it did not make all of {', '.join(others)}"


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
            if path.exists() or path.is_symlink():  # and not gone with what was around it
                _remove(path)
            for parent in path.relative_to(folder).parents:
                if parent.name:
                    _drop_if_empty(folder / parent)
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
