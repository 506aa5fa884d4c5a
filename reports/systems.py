"""The comparison of systems (the paper's Table 2): who is in it, what was measured of each, and what others measured.

Every system was sampled and scored under the one protocol of this scale. What the paper or others published stands
beside it, and is never ranked with it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from add.errors import InputError
from eval.images import read_index
from eval.result import MeasuredImages, Result, SystemResult
from reports import layout
from reports.cells import Estimate, Report, Slice, estimate, in_order
from reports.samples import write_tiles
from reports.study import ReportSystem

PRINTED = ("fid", "clip_score", "alignment", "precision", "recall")
"""The metrics of the printed table; systems.csv has all."""
GRID_PROMPTS = 6
GRID_SYSTEMS = 8
COLUMNS = (
    "system",
    "steps",
    "prompts",
    "images",
    "runs",
    "metric",
    "value",
    "low",
    "high",
    "covers",
    "source",
)


@dataclass(frozen=True)
class SystemRow:
    """One system of the table and its figures by prompt set; a system of published figures alone has none.

    images: by prompt set. calls: of the denoising network for one image, with guidance for both prompts at once.
    seconds: for sampling one image in batches, the mean of its runs; None where it was made elsewhere.
    """

    system: ReportSystem
    images: Mapping[str, int]
    estimates: Mapping[str, Mapping[str, Estimate]]
    calls: int | None = None
    seconds: float | None = None

    def of(self, prompts: str, metric: str) -> Estimate | None:
        """One figure, where it was measured."""
        return self.estimates.get(prompts, {}).get(metric)


def collect_systems(report: Report) -> tuple[SystemRow, ...]:
    """The figures of every system of the study, in its order. Raises InputError where a result is missing or broken.

    Of a run at a number of steps that the table has, these are the table's figures with its total intervals; of the
    others, the intervals are of the images alone.
    """
    return tuple(_row(report, system) for system in report.study.systems)


def _row(report: Report, system: ReportSystem) -> SystemRow:
    if system.label not in report.systems:
        return SystemRow(system, {}, {})
    results = report.systems[system.label].results
    found: dict[str, list[MeasuredImages]] = {}
    for result in results:
        for measured in result.systems:
            if measured.steps == system.steps:
                found.setdefault(measured.prompts, []).append(measured.comparable)
    if not found:
        raise InputError(
            system.results[0], f"holds no figures by {system.steps} step(s); run `snakemake` again"
        )
    estimates: dict[str, dict[str, Estimate]] = {}
    for prompts, sets in found.items():
        table = report.measurements.get((system.run or "", Slice(system.steps, prompts)))
        if table is not None and table.images != sets[0].images:
            table = None  # of more images than other numbers of steps have
        metrics = sets[0].metrics
        estimates[prompts] = (
            table.metrics
            if table is not None
            else {
                name: estimate(name, system.label, [s.metrics[name] for s in sets], None) for name in metrics
            }
        )
    how = [_how(result, system, prompts) for result in results for prompts in found]
    calls = {each["calls"] for each in how if each["calls"] is not None}
    times = [each["seconds"] for each in how if each["seconds"]]
    return SystemRow(
        system,
        {prompts: sets[0].images for prompts, sets in found.items()},
        estimates,
        calls.pop() if len(calls) == 1 else None,
        fmean(times) if times else None,
    )


def _how(result: Result | SystemResult, system: ReportSystem, prompts: str) -> dict[str, Any]:
    """How one sample set was drawn: network calls, and seconds an image."""
    source, name = result.provenance, f"{prompts}-{system.steps}step"
    images = next(s.images for s in result.systems if (s.prompts, s.steps) == (prompts, system.steps))
    seconds = source.sample_seconds.get(name) if isinstance(source.sample_seconds, dict) else None
    sampler = source.sampling.get(name, {}).get("sampler", {})
    return {"calls": sampler.get("network_calls"), "seconds": seconds / images if seconds else None}


def systems_data(report: Report, rows: Sequence[SystemRow], root: Path) -> dict[str, Any] | None:
    """The document's pages on systems as JSON values, with the tiles of their grid in `root`; None without systems."""
    if not rows:
        return None
    prompts = report.first.prompts
    there = {name for row in rows for name in row.estimates.get(prompts, {})}
    metrics = [name for name in PRINTED if name in there]
    return {
        "set": prompts,
        "heads": [_head(metric) for metric in metrics],
        "rows": [
            {
                "label": row.system.name,
                "steps": str(row.system.steps),
                "calls": "" if row.calls is None else str(row.calls),
                "seconds": "" if row.seconds is None else f"{row.seconds:.3g}",
                "images": f"{row.images[prompts]:,}" if prompts in row.images else "",
                "cells": [asdict(_cell(row.of(prompts, metric), metric)) for metric in metrics],
                "published": _stated(row.system.published),
                "elsewhere": _stated(row.system.elsewhere),
            }
            for row in rows
        ],
        "sources": list(
            dict.fromkeys(
                figures["source"]
                for row in rows
                for figures in (row.system.published, row.system.elsewhere)
                if figures
            )
        ),
        "grid": _grid(rows, prompts, root),
    }


def _head(metric: str) -> str:
    return layout.Column(metric, None).title


def _cell(found: Estimate | None, metric: str) -> layout.Shown:
    return layout.measured_cells([found], metric)[0]


def _stated(figures: Mapping[str, Any] | None) -> str:
    """Figures of others on one line."""
    if not figures:
        return ""
    parts = [
        f"FID {figures['fid']:g}" if figures.get("fid") is not None else "",
        f"CLIP {figures['clip_score']:g}" if figures.get("clip_score") is not None else "",
        f"{figures['seconds']:g} s" if figures.get("seconds") is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _grid(rows: Sequence[SystemRow], prompts: str, root: Path) -> dict[str, Any] | None:
    """The same prompts and seeds by every system with images of the set: the first prompts, and nothing is picked."""
    shown = [row for row in rows if row.system.samples.get(prompts)]
    shown = shown[:GRID_SYSTEMS]
    if not shown:
        return None
    lines: list[dict[str, Any]] = []
    texts: tuple[str, ...] = ()
    for number, row in enumerate(shown):
        folder = Path(row.system.samples[prompts])
        index = read_index(folder / "index.csv")[:GRID_PROMPTS]
        texts = tuple(each.prompt for each in index)
        tiles = write_tiles([folder / each.file for each in index], root, f"system-{number:02d}")
        lines.append({"label": row.system.label, "tiles": tiles})
    return {"prompts": [layout.shortened(text, 70) for text in texts], "rows": lines}


def render_systems_csv(rows: Sequence[SystemRow]) -> str:
    """systems.csv: one line a figure. `source`: the protocol that it was measured under here, or who published it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line for row in rows for line in _lines(row))
    return out.getvalue()


def _lines(row: SystemRow) -> Iterator[dict[str, Any]]:
    who = {"system": row.system.name, "steps": row.system.steps}
    for prompts, found in row.estimates.items():
        for metric in in_order(set(found)):
            e = found[metric]
            yield {
                **who,
                "prompts": prompts,
                "images": row.images[prompts],
                "runs": e.runs,
                "metric": metric,
                "value": f"{e.value:.8g}",
                "low": "" if e.low is None else f"{e.low:.8g}",
                "high": "" if e.high is None else f"{e.high:.8g}",
                "covers": e.covers,
                "source": e.protocol,
            }
    for metric, value in (("network_calls", row.calls), ("seconds_per_image", row.seconds)):
        if value is not None:
            yield {**who, "metric": metric, "value": f"{value:.8g}", "source": "measured"}
    for figures in (row.system.published, row.system.elsewhere):
        for metric in ("fid", "clip_score", "seconds"):
            if figures and figures.get(metric) is not None:
                yield {**who, "metric": metric, "value": f"{figures[metric]:g}", "source": figures["source"]}
