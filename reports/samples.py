"""Which samples the report shows: the first prompts of the set, the same for every run; nothing is picked."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from add.errors import InputError
from eval.result import require, seed_directory
from reports.cells import Report, Slice

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS = ("file", "prompt_id", "prompt", "seed", "image_seed")


@dataclass(frozen=True)
class ShownSample:
    """One line of a sample set's index.csv, with the file's path."""

    path: Path
    prompt_id: str
    prompt: str
    image_seed: str


@dataclass(frozen=True)
class ShownSamples:
    """The same prompts and image seeds for every run; `tiles[run]` are files in the order of `prompts`."""

    where: Slice
    training_seed: int
    prompts: tuple[str, ...]
    tiles: dict[str, tuple[Path, ...]]


def sample_directory(results: Path, run: str, seed: int, where: Slice) -> Path:
    """Where the samples of one run, seed and slice lie."""
    return seed_directory(results, run, seed) / "samples" / f"{where.prompts}-{where.steps}step"


def read_samples(report: Report, results: Path, where: Slice, count: int) -> ShownSamples:
    """The first `count` prompts of a slice for every run, at the first training seed.

    Raises:
        InputError: a sample set is missing, or differs from the others in a prompt or an image seed.
    """
    study = report.study
    seed = study.seeds[0]
    folders = {run: sample_directory(results, run, seed, where) for run in study.runs}
    require(folder / "index.csv" for folder in folders.values())
    chosen = {run: _read_index(folder, count) for run, folder in folders.items()}
    first = chosen[study.runs[0]]
    for run, samples in chosen.items():
        for mine, theirs in zip(samples, first, strict=True):
            if (mine.prompt_id, mine.prompt, mine.image_seed) != (
                theirs.prompt_id,
                theirs.prompt,
                theirs.image_seed,
            ):
                raise InputError(
                    f"{folders[run] / 'index.csv'}: {mine.path.name} has another prompt or seed than "
                    f"in {study.runs[0]}; sample both runs again under one protocol"
                )
    tiles = {run: tuple(sample.path for sample in samples) for run, samples in chosen.items()}
    require(path for paths in tiles.values() for path in paths)
    return ShownSamples(where, seed, tuple(sample.prompt for sample in first), tiles)


def _read_index(folder: Path, count: int) -> list[ShownSample]:
    path = folder / "index.csv"
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or any(name not in reader.fieldnames for name in _COLUMNS):
            raise InputError(f"{path}:1: needs the columns {', '.join(_COLUMNS)}, has {reader.fieldnames}")
        lines = list(reader)
    if len(lines) < count:
        raise InputError(f"{path}: holds {len(lines)} samples, the sample page shows {count}")
    return [
        ShownSample(folder / line["file"], line["prompt_id"], line["prompt"], line["image_seed"])
        for line in lines[:count]
    ]


def tile(path: Path, edge: int) -> Image:
    """A sample as a square RGB image of about `edge` pixels.

    Small images are enlarged by a whole factor without smoothing, so that a reader sees the pixels that the
    metrics saw; large ones are reduced.
    """
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    if max(image.size) <= edge:
        factor = max(1, edge // max(image.size))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = edge / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
