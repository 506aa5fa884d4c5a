"""Which files that a scale reads are not there? By their names, in a moment; `addbench check` opens them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from add.spec import Scale, SpecError
from add.spec_data import ImageSet, Shards, TrainData
from add.spec_scale import CocoPrompts
from add.spec_yaml import Loc, raise_all

REMEDY = "put it there, or correct the path (`addbench check` looks for networks and inside files, too)"

SHOWN = 3
"""So many of the missing shards are named; there may be thousands."""


def check_inputs_exist(scale: Scale) -> None:
    """Refuse to begin where training data, prompts or photographs are missing: sampling would find out days later.

    Nothing where a module of the project makes the data. Raises SpecError with all that is missing.
    """
    if scale.data.build is not None:
        return
    file, line = scale.origin.file, scale.origin.line
    raise_all(SpecError(file, line(loc), f"{message}; {REMEDY}") for loc, message in _missing(scale))


def absent_shards(train: TrainData) -> tuple[tuple[Path, ...], str]:
    """The shards that a range names and that are not there, and one line that says so (empty: none is absent)."""
    from add.data.shards import shard_paths

    if not isinstance(train, Shards):
        return (), ""
    named, _ = shard_paths(train.shards)
    there = {
        entry for folder in {path.parent for path in named} if folder.is_dir() for entry in folder.iterdir()
    }
    absent = tuple(path for path in named if path not in there)
    shown = ", ".join(path.name for path in absent[:SHOWN]) + (", ..." if len(absent) > SHOWN else "")
    what = f"{train.shards}: {len(absent)} of its {len(named)} shards are missing: {shown}"
    return absent, what if absent else ""


def _missing(scale: Scale) -> Iterator[tuple[Loc, str]]:
    train, evaluation = scale.data.train, scale.evaluation
    loc: Loc = ("data", "train")
    if isinstance(train, Shards):
        from add.data.shards import shard_paths

        yield from ((loc, wrong) for wrong in shard_paths(train.shards)[1])
        if line := absent_shards(train)[1]:
            yield loc, line
    else:
        sources = (train.annotations, train.images) if isinstance(train, ImageSet) else (train.path,)
        yield from _absent(loc, *sources)
    for name, prompts in scale.sampling.prompts.items():
        file = prompts.annotations if isinstance(prompts, CocoPrompts) else prompts.file
        yield from _absent(("sampling", "prompts", name), file)
    yield from _absent(("evaluation", "reference"), evaluation.reference.images)
    if evaluation.oracle is not None:
        yield from _absent(("evaluation", "oracle", "scenes"), evaluation.oracle.scenes)


def _absent(loc: Loc, *paths: str) -> Iterator[tuple[Loc, str]]:
    yield from ((loc, f"{path}: no such file or directory") for path in paths if not Path(path).exists())
