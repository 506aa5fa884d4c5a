"""The scores of every system by category and challenge of PartiPrompts, from the scores of single images."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError
from eval.image_scores import read_scores, scores_file
from eval.metrics.distances import deviation_of_mean
from eval.prompts import Prompt, read_parti
from reports import layout
from reports.cells import Report
from reports.systems import SystemRow

FIELDS = ("category", "challenge")
METRICS = ("clip_score", "alignment")
COLUMNS = (
    "system",
    "steps",
    "prompts",
    "field",
    "group",
    "count",
    "runs",
    "metric",
    "value",
    "stderr",
    "source",
)
_WIDE = 7  # groups with their errors that fit beside each other on a page

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class CategoryScore:
    """A system's mean score over the `count` prompts of one group of a prompt set.

    field: "category" or "challenge". group: its value. runs: training seeds, over which each prompt's score is a mean
    first. stderr: over prompts; None for a CLIP score of one prompt. protocol: of the whole set's score.
    """

    row: SystemRow
    prompts: str
    field: str
    group: str
    count: int
    runs: int
    metric: str
    value: float
    stderr: float | None
    protocol: str


def collect_categories(report: Report, rows: Sequence[SystemRow]) -> tuple[CategoryScore, ...]:
    """The scores of each system that has those of single images, by set, field, group and metric.

    Raises InputError where a file of scores is broken, or is not of the set's prompts.
    """
    found: list[CategoryScore] = []
    for prompts, file in report.study.parti.items():
        scored = [(row, _files(row, prompts)) for row in rows if prompts in row.estimates]
        # Older results lack them.
        scored = [(row, files) for row, files in scored if all(each.is_file() for each in files)]
        if scored:
            known = {prompt.prompt_id: prompt for prompt in read_parti(Path(file))}
            for row, files in scored:
                found += _of_system(row, prompts, files, known)
    return tuple(found)


def _files(row: SystemRow, prompts: str) -> list[Path]:
    """The scores of single images of each of a system's results."""
    return [scores_file(Path(result).parent, prompts, row.system.steps) for result in row.system.results]


def _of_system(
    row: SystemRow, prompts: str, files: Sequence[Path], known: Mapping[str, Prompt]
) -> Iterator[CategoryScore]:
    ids, scores = _scores(files)
    if unknown := [each for each in ids if each not in known]:
        raise InputError(
            files[0], f"scores {unknown[0]}, which PartiPrompts' file does not have; score again"
        )
    for field in FIELDS:
        values = np.array([getattr(known[each], field) for each in ids])
        for group in sorted(set(values.tolist())):
            inside = values == group
            for metric, every in scores.items():
                of_group = every[inside]
                yield CategoryScore(
                    row,
                    prompts,
                    field,
                    group,
                    len(of_group),
                    len(files),
                    metric,
                    float(of_group.mean()),
                    standard_error(of_group, metric),
                    row.estimates[prompts][metric].protocol,
                )


def _scores(files: Sequence[Path]) -> tuple[tuple[str, ...], dict[str, Scores]]:
    """Prompt ids and each prompt's score by metric, the mean over the files: one a training seed."""
    read = [read_scores(file) for file in files]
    for file, each in zip(files, read, strict=True):
        if each.prompt_ids != read[0].prompt_ids:
            raise InputError(file, f"scores other prompts than {files[0]}; score again")
    found: dict[str, Scores] = {}
    for metric in METRICS:
        columns = [getattr(each.scores, metric) for each in read]
        if all(len(column) for column in columns):
            found[metric] = np.mean(np.array(columns, dtype=np.float64), axis=0)
    return read[0].prompt_ids, found


def standard_error(values: Scores, metric: str) -> float | None:
    """The standard error of a mean over prompts, of their scores (n,); None for the CLIP score of one prompt.

    Of a share it is that with two successes and two failures more (Agresti and Coull, Am. Stat. 52, 1998): where all of
    few images are right, it is not nought.
    """
    n = len(values)
    if metric == "alignment":
        share = (float(values.sum()) + 2) / (n + 4)
        return math.sqrt(share * (1 - share) / (n + 4))
    return deviation_of_mean(values) if n > 1 else None


def categories_data(scores: Sequence[CategoryScore]) -> list[dict[str, Any]]:
    """The document's tables: one for each set and metric, of as many groups as fit beside each other."""
    tables: dict[tuple[str, str], dict[tuple[str, str], dict[str, CategoryScore]]] = {}
    for score in scores:
        of_group = tables.setdefault((score.prompts, score.metric), {}).setdefault(
            (score.field, score.group), {}
        )
        of_group[score.row.system.label] = score
    return [
        _table(prompts, metric, groups[start : start + size])
        for (prompts, metric), by_group in tables.items()
        for groups in [list(by_group.values())]
        for size in [math.ceil(len(groups) / math.ceil(len(groups) / _WIDE))]
        for start in range(0, len(groups), size)
    ]


def _table(prompts: str, metric: str, groups: Sequence[Mapping[str, CategoryScore]]) -> dict[str, Any]:
    """groups: the scores of each by the system's label."""
    style = layout.style_of(metric)
    first = [next(iter(group.values())) for group in groups]
    labels = dict.fromkeys(label for group in groups for label in group)
    return {
        "title": f"{style.title}, prompt set “{prompts}”",
        "heads": [{"field": each.field, "group": each.group, "count": each.count} for each in first],
        "rows": [
            {"label": label, "cells": [_cell(group.get(label), style.decimals) for group in groups]}
            for label in labels
        ],
    }


def _cell(score: CategoryScore | None, decimals: int) -> dict[str, str]:
    if score is None:
        return {"value": layout.ABSENT.value, "spread": ""}
    error = "" if score.stderr is None else f"\N{PLUS-MINUS SIGN}{layout.fixed(score.stderr, decimals)}"
    return {"value": layout.fixed(score.value, decimals), "spread": error}


def render_categories_csv(scores: Sequence[CategoryScore]) -> str:
    """systems_categories.csv: one line a figure. `source`: the protocol of the whole set's score."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for s in scores:
        writer.writerow(
            {
                "system": s.row.system.name,
                "steps": s.row.system.steps,
                "prompts": s.prompts,
                "field": s.field,
                "group": s.group,
                "count": s.count,
                "runs": s.runs,
                "metric": s.metric,
                "value": f"{s.value:.8g}",
                "stderr": "" if s.stderr is None else f"{s.stderr:.8g}",
                "source": s.protocol,
            }
        )
    return out.getvalue()
