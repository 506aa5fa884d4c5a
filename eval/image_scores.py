"""The scores of single images, beside result.json: scores/<prompts>-<steps>step.csv, one line an image.

    prompt_id,seed,fid_influence,clip_score,all_right,layout,shape_0,...
    coco-000000000009,0,-3.1,0.31,true,row,circle,...

`seed` is the training seed, empty where this project trained nothing. The lines are in the order of the sample set, and
two runs of one scale have the same prompts with the same sampling seeds: later comparisons can pair images. A metric
that does not apply to a set has no column. Each of `clip_score` and `all_right` has the printed value as its mean, and
`fid_influence` FID's standard error as the standard error of its mean. The last columns are the oracle's answers, by
group.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from add.data.reading import csv_rows
from add.errors import InputError
from add.files import whole_file, write_whole
from eval.metrics.measure import ImageScores

LEADING = ("prompt_id", "seed")
METRICS = ("fid_influence", "clip_score", "all_right")


@dataclass(frozen=True)
class ScoredImages:
    """One file: prompt ids (n,), the training seed (None: not trained here), and the scores; a metric that is
    not there is empty."""

    prompt_ids: tuple[str, ...]
    seed: int | None
    scores: ImageScores


def scores_file(run: Path, prompts: str, steps: int) -> Path:
    """Where a run's scores of one sample set lie."""
    return run / "scores" / f"{prompts}-{steps}step.csv"


def write_scores(path: Path, prompt_ids: Sequence[str], seed: int | None, scores: ImageScores) -> None:
    """Write one file, whole."""
    groups = sorted({group for answer in scores.answers for group in answer})
    trained = "" if seed is None else str(seed)
    columns: dict[str, Sequence[str]] = {"prompt_id": prompt_ids, "seed": [trained] * len(prompt_ids)}
    found = (
        [f"{value:.8g}" for value in scores.fid],
        [f"{value:.8g}" for value in scores.clip_score],
        [str(value).lower() for value in scores.alignment],
    )
    columns |= {name: values for name, values in zip(METRICS, found, strict=True) if values}
    columns |= {group: [answer[group] for answer in scores.answers] for group in groups}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, out.getvalue())


def write_features(path: Path, features: NDArray[np.float32]) -> None:
    """Write features (n, d) of a set's images, in its order, as `features` of a safetensors file."""
    from safetensors.numpy import save_file

    with whole_file(path) as partial:
        save_file({"features": np.ascontiguousarray(features)}, partial)


def read_scores(path: Path) -> ScoredImages:
    """Read one file. Raises InputError with file, line and column of the first value that is not one."""
    lines = csv_rows(path)
    fields = tuple(next(lines, (1, []))[1])
    if fields[: len(LEADING)] != LEADING:
        raise InputError(
            f"{path}:1: begins with the columns {', '.join(LEADING)}, not {', '.join(fields[:2])}"
        )
    rows = [dict(zip(fields, row, strict=True)) for _, row in lines]
    groups = [name for name in fields if name not in (*LEADING, *METRICS)]
    seeds = {
        None if row["seed"] == "" else int(_number(path, row, line, "seed"))
        for line, row in enumerate(rows, start=2)
    }
    if len(seeds) != 1:
        raise InputError(f"{path}: holds {len(seeds)} training seeds; a file is of one run")
    return ScoredImages(
        tuple(row["prompt_id"] for row in rows),
        seeds.pop(),
        ImageScores(
            fid=_column(path, rows, "fid_influence"),
            clip_score=_column(path, rows, "clip_score"),
            alignment=[_truth(path, row, line) for line, row in enumerate(rows, start=2)]
            if "all_right" in fields
            else (),
            answers=[{group: row[group] for group in groups} for row in rows] if groups else (),
        ),
    )


def _column(path: Path, rows: Sequence[Mapping[str, str]], name: str) -> Sequence[float]:
    if not rows or name not in rows[0]:
        return ()
    return [_number(path, row, line, name) for line, row in enumerate(rows, start=2)]


def _number(path: Path, row: Mapping[str, str], line: int, name: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}:{line}: {name}: should be a number, not '{row[name]}'")
    return value


def _truth(path: Path, row: Mapping[str, str], line: int) -> bool:
    if row["all_right"] not in ("true", "false"):
        raise InputError(f"{path}:{line}: all_right: should be true or false, not '{row['all_right']}'")
    return row["all_right"] == "true"
