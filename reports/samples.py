"""Which samples the report shows: the first prompts of the set, the same for every run; nothing is picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from PIL import Image

from add.errors import InputError
from eval.images import read_index
from eval.result import require, seed_directory
from reports.cells import Report, Slice

_TILE = 128  # pixels


@dataclass(frozen=True)
class ShownSamples:
    """The same prompts and image seeds for every run; `tiles[run]` are files in the order of `prompts`."""

    where: Slice
    training_seed: int
    prompts: tuple[str, ...]
    tiles: dict[str, tuple[Path, ...]]


def first_and_last(report: Report, results: Path, most: int) -> tuple[ShownSamples, ...]:
    """The first prompts at the fewest and at the most steps: `most` of them, or as many as were scored.

    Raises InputError as `read_samples` does.
    """
    wanted = dict.fromkeys((report.first, report.last))
    count = min(
        most, *(scored.images for (_, where), scored in report.measurements.items() if where in wanted)
    )
    return tuple(read_samples(report, results, where, count) for where in wanted)


def read_samples(report: Report, results: Path, where: Slice, count: int) -> ShownSamples:
    """The first `count` prompts of a slice for every run, at the first training seed.

    Raises:
        InputError: a sample set is missing, or differs from the others in a prompt or an image seed.
    """
    runs, seed = report.study.runs, report.study.seeds[0]
    name = f"samples/{where.prompts}-{where.steps}step/index.csv"
    indices = {run: seed_directory(results, run, seed) / name for run in runs}
    require(indices.values())
    chosen = {run: read_index(index)[:count] for run, index in indices.items()}
    reference = chosen[runs[0]]
    what_decides = attrgetter("prompt_id", "prompt", "image_seed")  # an image, apart from the system
    for run, samples in chosen.items():
        if len(samples) < count:
            reason = f"holds {len(samples)} samples, but the report shows {count}; sample again"
            raise InputError(indices[run], reason)
        for mine, theirs in zip(samples, reference, strict=True):
            if what_decides(mine) != what_decides(theirs):
                reason = f"{mine.file} has another prompt or seed than in {runs[0]}; "
                raise InputError(indices[run], reason + "sample both runs again under one protocol")
    tiles = {
        run: tuple(indices[run].parent / each.file for each in samples) for run, samples in chosen.items()
    }
    require(path for paths in tiles.values() for path in paths)
    return ShownSamples(where, seed, tuple(sample.prompt for sample in reference), tiles)


def write_tiles(paths: Sequence[Path], root: Path, stem: str) -> list[str]:
    """Writes samples as the document shows them into `root`; returns their file names."""
    names = [f"{stem}-{j}.png" for j in range(len(paths))]
    for name, path in zip(names, paths, strict=True):
        tile(path, _TILE).save(root / name, format="PNG")
    return names


def tile(path: Path, edge: int) -> Image.Image:
    """A sample as an RGB image whose longer side is about `edge` pixels.

    Small images are enlarged by a whole factor without smoothing, so that a reader sees the pixels that the
    metrics saw. Large images are reduced.
    """
    with Image.open(path) as file:
        image = file.convert("RGB")
    longest = max(image.size)
    if longest <= edge:
        factor = max(1, edge // longest)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = edge / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
