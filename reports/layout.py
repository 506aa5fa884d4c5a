"""What all outputs share: numbers and labels as text, Table 1's columns and sub-tables, the reading notes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from add.config.run import MetricName
from eval.findings.verdicts import LEVEL, holm
from eval.metrics.catalogue import METRICS
from reports.cells import Estimate, Report, Slice, in_order
from reports.study import ReportRow


@dataclass(frozen=True)
class Style:
    """How a metric is titled and printed; `lower` is None where no direction is better."""

    title: str
    lower: bool | None
    decimals: int


STYLES: dict[MetricName, tuple[str, int]] = {
    "fid": ("FID", 1),
    "kid": ("KID", 4),
    "cmmd": ("CMMD", 3),
    "clip_score": ("CLIP score", 3),
    "alignment": ("All right", 3),
    "precision": ("Precision", 3),
    "recall": ("Recall", 3),
    "density": ("Density", 3),
    "coverage": ("Coverage", 3),
    "vendi_score": ("Vendi score", 2),
}
"""Title and decimals; which way is better, evaluation says."""


def style_of(metric: str) -> Style:
    """The style of a metric; an unknown metric is printed under its own name."""
    for name, (title, decimals) in STYLES.items():
        if name == metric:
            return Style(title, METRICS[name].smaller_is_better, decimals)
    return Style(metric, None, 4)


def fixed(value: float, decimals: int) -> str:
    """Fixed decimals without a negative zero."""
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def in_full(value: float, decimals: int) -> str:
    """All decimals that a value was given with, but at least `decimals`."""
    return max(fixed(value, decimals), f"{value}", key=len)


def bracketed(low: float, high: float, decimals: int) -> str:
    """An interval as text: "[9.0, 12.0]"."""
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def shortened(text: str, most: int) -> str:
    """A text cut at a word, marked by an ellipsis: one long prompt must not push a page over."""
    return textwrap.shorten(text, most, placeholder=" \N{HORIZONTAL ELLIPSIS}")


def spread(estimate: Estimate, decimals: int) -> str:
    """The interval, or nothing where there is none."""
    if estimate.low is not None and estimate.high is not None:
        return bracketed(estimate.low, estimate.high, decimals)
    return ""


def steps_text(steps: int) -> str:
    """ "one step", "4 steps": for headings."""
    words = {1: "one", 2: "two", 3: "three", 4: "four", 8: "eight"}
    return f"{words.get(steps, str(steps))} step{'' if steps == 1 else 's'}"


_INDEX = re.compile(r"(?<![A-Za-z0-9_])([A-Za-z])_([A-Za-z]+(?:,[A-Za-z]+)*)(?![A-Za-z0-9_])")
_GREEK = re.compile(r"(?<![A-Za-z0-9_])(lambda|gamma)(?![A-Za-z0-9_])")
_LETTERS = {"lambda": "λ", "gamma": "\N{GREEK SMALL LETTER GAMMA}"}


@dataclass(frozen=True)
class Piece:
    """A stretch of a label: `index` is set as a subscript, `symbol` in italics."""

    text: str
    index: bool = False
    symbol: bool = False


def plain_label(label: str) -> str:
    """A label on one line as plain text with Greek letters: for figures."""
    return _GREEK.sub(lambda found: _LETTERS[found.group()], " ".join(label.split()))


def split_label(label: str) -> tuple[Piece, ...]:
    """A label in pieces. Joined, with `_` before each index, they are `plain_label(label)`."""
    # The pattern has two groups, so `split` gives: text, symbol, index, text, symbol, index, text ...
    texts = _INDEX.split(plain_label(label))
    return tuple(
        Piece(text, index=place % 3 == 2, symbol=place % 3 == 1) for place, text in enumerate(texts) if text
    )


@dataclass(frozen=True)
class Column:
    """One metric from one source: measured in the slice `where`, or published (`where` is None)."""

    metric: str
    where: Slice | None

    @property
    def title(self) -> str:
        """The metric's title with an arrow in the better direction."""
        style = style_of(self.metric)
        arrow = {True: "\N{DOWNWARDS ARROW}", False: "\N{UPWARDS ARROW}", None: ""}[style.lower]
        return f"{style.title} {arrow}"


@dataclass(frozen=True)
class Shown:
    """One cell as text: the value, its spread ("" if there is none), and whether it is its column's best."""

    value: str
    spread: str = ""
    best: bool = False


ABSENT = Shown("\N{EN DASH}")


DEFAULT = "\N{DAGGER}"
"""Marks the shared default."""
DEAD = "\N{DOUBLE DAGGER}"
"""Marks a row whose discriminator does not work."""


@dataclass(frozen=True)
class SubTable:
    """One question: its rows, the marks behind their labels, and the cells of each row, one for each column."""

    part: str
    question: str
    rows: tuple[ReportRow, ...]
    marks: tuple[str, ...]
    cells: tuple[tuple[Shown, ...], ...]


@dataclass(frozen=True)
class TableOne:
    """The paper's Table 1 with measured values beside it."""

    columns: tuple[Column, ...]
    parts: tuple[SubTable, ...]


def table_one(report: Report, *, compact: bool = False) -> TableOne:
    """Table 1: first one step, published beside measured; then the most steps.

    `compact` shows only FID and the alignment (CLIP score if there is no oracle) at the most steps.
    """
    first, last = report.first, report.last
    metrics = ("fid", "clip_score", "alignment")
    found = [metric for metric in metrics if metric in report.metrics(first)]
    sources = [(metric, where) for metric in found for where in (first, None)]
    columns = [Column(metric, where) for metric, where in sources if (metric, where) != ("alignment", None)]
    if last != first:
        there = [metric for metric in metrics if metric in report.metrics(last)]
        if compact and "alignment" in there:
            there = ["fid", "alignment"]
        columns += [Column(metric, last) for metric in there]
    parts, best = [], supported_best(report)
    for part, rows in report.study.parts.items():
        cells = zip(*(_column_cells(report, column, rows, best) for column in columns), strict=True)
        marks = tuple(
            DEFAULT * row.default + DEAD * (report.heads_separate(row.run) is False) for row in rows
        )
        parts.append(SubTable(part, rows[0].question, rows, marks, tuple(cells)))
    return TableOne(tuple(columns), tuple(parts))


def _column_cells(
    report: Report, column: Column, rows: tuple[ReportRow, ...], best: Mapping[tuple[Slice, str, str], str]
) -> tuple[Shown, ...]:
    if column.where is None:
        return published_cells([getattr(row, f"published_{column.metric}") for row in rows], column.metric)
    estimates = report.estimates(column.where, column.metric)
    marked = best.get((column.where, column.metric, rows[0].part))
    return measured_cells(
        [estimates[row.run] for row in rows], column.metric, [row.run == marked for row in rows]
    )


def measured_cells(
    estimates: Sequence[Estimate | None], metric: str, best: Sequence[bool] | None = None
) -> tuple[Shown, ...]:
    """One column of measured values; `best` are marked."""
    style, marks = style_of(metric), best or [False] * len(estimates)
    return tuple(
        ABSENT if e is None else Shown(fixed(e.value, style.decimals), spread(e, style.decimals), marked)
        for e, marked in zip(estimates, marks, strict=True)
    )


def published_cells(values: Sequence[float | None], metric: str) -> tuple[Shown, ...]:
    """One column of published values, with all decimals that the paper gives. No test stands behind a best one."""
    decimals = style_of(metric).decimals
    return tuple(ABSENT if value is None else Shown(in_full(value, decimals)) for value in values)


def supported_best(report: Report) -> dict[tuple[Slice, str, str], str]:
    """The row of each column of a sub-table, by slice, metric and part, that is better than every other row there.

    The row with the best mean is tested against each other one; its p-value is the largest of them, times the number of
    rows that might have been it. Holm's rule is over all columns of all sub-tables.
    """
    found: dict[tuple[Slice, str, str], tuple[str, float]] = {}
    for (where, metric), fit in report.fits.items():
        lower = style_of(metric).lower
        if lower is None:
            continue
        for part, rows in report.study.parts.items():
            runs = list(dict.fromkeys(row.run for row in rows))
            if len(runs) > 1:
                best = (min if lower else max)(runs, key=lambda run: fit.means[run])
                others = [fit.difference(best, run) for run in runs if run != best]
                if any(each.error == 0 for each in others):  # nothing varies: all fail alike, or none does
                    continue
                p = max(each.below(0) if lower else each.above(0) for each in others)
                found[where, metric, part] = best, p * len(runs)
    adjusted = holm([p for _, p in found.values()])
    return {key: best for (key, (best, _)), p in zip(found.items(), adjusted, strict=True) if p <= LEVEL}


def reading_notes(report: Report) -> tuple[str, ...]:
    """What a reader must know to read the table, in plain sentences."""
    study, first = report.study, report.first
    measured = report.measurements[study.runs[0], first]
    notes = [
        f"Measured: {len(study.rows)} cells from {len(study.runs)} rows, {runs_text(report)}, "
        f"{measured.images} images of prompt set “{first.prompts}” for each run.",
        "Published: the paper's one-step values (512 \N{MULTIPLICATION SIGN} 512, 5,000 COCO samples). They "
        "stand under another protocol: compare the order of rows within a sub-table, but never a measured "
        "value with a published one.",
        interval_note(report),
        "Bold: better than every other row of its sub-table, by a test at 5% with Holm's correction for all columns. "
        "Dagger: the shared default, which is the same run in every sub-table.",
    ]
    said = dict.fromkeys((row.part, row.note) for row in study.rows if row.note is not None)
    notes += [f"({part}) {note}" for part, note in said]
    if dead := [run for run in study.runs if report.heads_separate(run) is False]:
        names = "; ".join(plain_label(study.name_of(run)) for run in dead)
        notes.append(
            "Double dagger: the discriminator's heads do not tell real from generated images, so the row does not "
            f"answer its question ({names})."
        )
    if floors := report.floors(first):
        styles = [(style_of(metric), value) for metric, value in floors.items()]
        values = ", ".join(f"{style.title} {fixed(value, style.decimals)}" for style, value in styles)
        notes.append(f"Real images score, under the same protocols: {values}.")
    if "alignment" in report.metrics(first):
        notes.append(
            "All right: the share of images in which the oracle finds every attribute of the prompt."
        )
    return tuple(notes)


def runs_text(report: Report) -> str:
    """How many runs there are a row, with which training seeds."""
    counts = sorted({len(found) for found in report.results.values()})
    seeds = sorted({result.seed for found in report.results.values() for result in found})
    row = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    listed = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{row} run{'s' * (row != '1')} each (training seed{'s' * (len(seeds) > 1)} {listed})"


def interval_note(report: Report) -> str:
    """The sentences that say what a measured value and the interval beside it are."""
    most = max(len(found) for found in report.results.values())
    values = "Values are of one run a row."
    if most > 1:
        values = "Values are means over a row's runs, geometric ones of FID."
    found = list(_estimates(report))
    if all(e.low is None for *_, e in found):
        return f"{values} There is no interval: nothing tells a difference between rows from noise."
    total = {metric for metric, _, e in found if e.is_total}
    narrow: dict[str, str] = {}
    for metric in in_order({metric for metric, *_ in found}):
        for steps, e in ((steps, e) for m, steps, e in found if m == metric):
            if e.low is not None and not e.is_total:
                at = f", {steps_text(steps)}" if metric in total else ""
                narrow[f"{style_of(metric).title}{at}"] = e.covers
    each = "; ".join(f"{title}: {covers}" for title, covers in narrow.items())
    if not total:
        return (
            f"{values} What the brackets cover: {each}. They do not cover the training seed, which can move a value by "
            "more, so nothing is bold and no claim is judged."
        )
    source = "of these runs" if most > 1 else "of the replication"
    note = (
        f"{values} Brackets: 95%, total. They hold the training seed and the processor (another processor is "
        f"another draw), by the variance between runs {source}, a row's own where it has 7 "
        "runs, else the mean over rows, and the images and the reference images. They do not hold the draw of the "
        "pretrained networks."
    )
    return note + (f" Where no spread between runs is known they hold less ({each})." if each else "")


def _estimates(report: Report) -> Iterator[tuple[str, int, Estimate]]:
    """Each estimate with its metric and number of steps."""
    for (_, column), measurement in report.measurements.items():
        for metric, estimate in measurement.metrics.items():
            yield metric, column.steps, estimate
