"""Training logs: train/log.jsonl of every run and seed, as arrays for the training figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reports.cells import Report
from reports.results import require, seed_directory
from reports.study import ReportError

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """One training log: step (n,), and each logged quantity (n,), NaN where a line does not have it."""

    step: Series
    values: dict[str, Series]


def read_curves(report: Report, results: Path) -> dict[tuple[str, int], Curves]:
    """The training log of every run and seed. Raises ReportError naming what is missing or malformed."""
    paths = {
        (run, seed): seed_directory(results, run, seed) / "train" / "log.jsonl"
        for run in report.study.runs
        for seed in report.study.seeds
    }
    require(paths.values())
    return {key: read_log(path) for key, path in paths.items()}


def read_log(path: Path) -> Curves:
    """One log.jsonl. Raises ReportError with file and line where a line is no object with a numeric step."""
    lines: list[dict[str, float]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}:{number}: not JSON: {error.msg}") from error
        if not isinstance(line, dict) or not isinstance(line.get("step"), int | float):
            raise ReportError(f"{path}:{number}: not an object with a numeric 'step'")
        lines.append({key: value for key, value in line.items() if isinstance(value, int | float)})
    if not lines:
        raise ReportError(f"{path}: an empty training log")
    names = dict.fromkeys(key for line in lines for key in line if key != "step")
    return Curves(
        step=np.array([line["step"] for line in lines], dtype=np.float64),
        values={
            name: np.array([line.get(name, np.nan) for line in lines], dtype=np.float64) for name in names
        },
    )


def smooth(values: Series) -> Series:
    """A centred running mean over a tenth of the log, shorter at its ends; NaN is left out of each mean."""
    half = max(1, len(values) // 20)
    padded = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in padded])
