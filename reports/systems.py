"""The comparison of systems (the paper's Table 2): who is in it, what was measured of each, and what others measured.

Every system was sampled and scored under the one protocol of this scale. What the paper or others published stands
beside it, and is never ranked with it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from add.errors import InputError
from eval.findings.systems import fit_system
from eval.images import read_index
from eval.result import MeasuredImages, Result, SystemResult
from eval.timing import SecondsSpread, SystemTiming, TimingResult, read_timing
from reports import layout
from reports.cells import Estimate, Report, Slice, estimate, in_order
from reports.samples import write_tiles
from reports.study import ReportStudy, ReportSystem

PRINTED = ("fid", "clip_score", "alignment", "precision", "recall")
"""The metrics of the printed table; systems.csv has all."""
DIVERSITY = "vendi_score"
GRID_PROMPTS = 7
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
    batched_seconds: for sampling one image in batches, the mean of its runs; None where it was made elsewhere. timing:
    of all systems in one run, where the scale has them timed.
    """

    system: ReportSystem
    images: Mapping[str, int]
    estimates: Mapping[str, Mapping[str, Estimate]]
    calls: int | None = None
    batched_seconds: float | None = None
    timing: SystemTiming | None = None

    @property
    def seconds(self) -> SecondsSpread | None:
        """Of one image: of a call at batch 1 where it was timed, else in batches as it was sampled, with no spread."""
        if self.timing is not None:
            return self.timing.image
        at = self.batched_seconds
        return None if at is None else SecondsSpread(median=at, lower=at, upper=at)

    def of(self, prompts: str, metric: str) -> Estimate | None:
        """One figure, where it was measured."""
        return self.estimates.get(prompts, {}).get(metric)

    def within_prompt(self) -> Estimate | None:
        """The diversity within one prompt, which has a prompt set of its own."""
        return next((e[DIVERSITY] for e in self.estimates.values() if DIVERSITY in e), None)


def collect_systems(report: Report) -> tuple[SystemRow, ...]:
    """The figures of every system of the study, in its order. Raises InputError where a result is missing or broken.

    Of a run at a number of steps that the table has on as many images, these are the table's figures. All that was
    trained here has total intervals; those of other systems are of the images alone.
    """
    times = read_times(report.study)
    by_label = {} if times is None else {each.asked.label: each for each in times.systems}
    rows = [_row(report, system) for system in report.study.systems]
    if times is None:
        return tuple(rows)
    # What was timed otherwise is not beside what was timed in one run.
    return tuple(replace(row, timing=by_label.get(row.system.label), batched_seconds=None) for row in rows)


def read_times(study: ReportStudy) -> TimingResult | None:
    """The systems' times; None where they are not timed. Raises InputError as `read_timing`."""
    return None if study.timing is None else read_timing(Path(study.timing))


def machine_of(times: TimingResult) -> str:
    """What the times were measured on."""
    hardware = times.hardware
    device = hardware.get("accelerator") or hardware.get("processor") or "an unknown processor"
    threads = hardware.get("threads")
    return f"{device}, {threads} thread{'s' * (threads != 1)}" if threads else str(device)


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
                name: estimate(
                    name,
                    system.label,
                    [s.metrics[name] for s in sets],
                    fit_system(system.label, name, report.systems, prompts, report.comparable_spreads),
                )
                for name in metrics
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
    within = any(row.within_prompt() is not None for row in rows)
    return {
        "set": prompts,
        "heads": [_head(metric) for metric in (*metrics, *[DIVERSITY] * within)],
        "rows": [
            {
                "label": row.system.name,
                "steps": str(row.system.steps),
                "calls": "" if row.calls is None else str(row.calls),
                "seconds": "" if row.seconds is None else f"{row.seconds.median:.3g}",
                "images": f"{row.images[prompts]:,}" if prompts in row.images else "",
                "cells": [
                    *(asdict(_cell(row.of(prompts, metric), metric)) for metric in metrics),
                    *[asdict(_cell(row.within_prompt(), DIVERSITY))] * within,
                ],
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
        "times": _times(report, rows),
        "grid": _grid(rows, prompts, root),
    }


def _times(report: Report, rows: Sequence[SystemRow]) -> dict[str, Any] | None:
    """The table of times and memory; None where nothing was timed."""
    times = read_times(report.study)
    if times is None:
        return None
    lines = []
    for row in rows:
        if (found := row.timing) is not None:
            image, inside, best = found.image, found.denoiser, found.best
            lines.append(
                {
                    "label": row.system.label,
                    "calls": str(found.network_calls),
                    "image": asdict(_spread(image)),
                    "denoiser": asdict(layout.ABSENT if inside is None else _spread(inside)),
                    "throughput": f"{best.images_per_second:.3g}",
                    "batch": str(best.batch),
                    "memory": "" if found.peak_bytes is None else f"{found.peak_bytes / 2**20:,.0f}",
                }
            )
    how = times.timing
    notes = [
        f"All in one run on {machine_of(times)}, in turns: medians of {how.repeats} calls after {how.warm_up} that do "
        "not count, brackets are their quartiles. An image: one call at batch 1, from prompt to 8-bit pixels; of it in "
        "the network: all calls of the denoising network.",
        f"Images/s: at the batch that gives the most, of {', '.join(map(str, how.batches))}; larger ones are left out "
        f"where memory does not suffice or a call should take more than {how.longest:g} s.",
        f"Memory: {times.peak_memory}.",
    ]
    return {"rows": lines, "notes": notes}


def _spread(seconds: SecondsSpread) -> layout.Shown:
    return layout.Shown(f"{seconds.median:.3g}", f"[{seconds.lower:.3g}, {seconds.upper:.3g}]")


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


def render_systems_csv(rows: Sequence[SystemRow], times: TimingResult | None = None) -> str:
    """systems.csv: one line a figure. `source`: its protocol, the machine that it was timed on, or who published it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line for row in rows for line in _lines(row, times))
    return out.getvalue()


def _lines(row: SystemRow, times: TimingResult | None) -> Iterator[dict[str, Any]]:
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
    for metric, value in (("network_calls", row.calls), ("seconds_per_image", row.batched_seconds)):
        if value is not None:
            yield {**who, "metric": metric, "value": f"{value:.8g}", "source": "measured"}
    if times is not None and row.timing is not None:
        for line in _timed_lines(row.timing):
            yield {**who, **line, "source": f"measured on {machine_of(times)}"}
    for figures in (row.system.published, row.system.elsewhere):
        for metric in ("fid", "clip_score", "seconds"):
            if figures and figures.get(metric) is not None:
                yield {**who, "metric": metric, "value": f"{figures[metric]:g}", "source": figures["source"]}


def _timed_lines(timing: SystemTiming) -> Iterator[dict[str, Any]]:
    for metric, spread in (
        ("seconds_at_batch_1", timing.image),
        ("denoiser_seconds_at_batch_1", timing.denoiser),
    ):
        if spread is not None:
            low, high = f"{spread.lower:.8g}", f"{spread.upper:.8g}"
            covers = "quartiles of calls"
            yield {
                "metric": metric,
                "value": f"{spread.median:.8g}",
                "low": low,
                "high": high,
                "covers": covers,
            }
    best = timing.best
    yield {"metric": "images_per_second", "value": f"{best.images_per_second:.8g}"}
    yield {"metric": "best_batch", "value": best.batch}
    if timing.peak_bytes is not None:
        yield {"metric": "peak_bytes", "value": timing.peak_bytes}
