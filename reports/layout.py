"""What all outputs share: numbers and labels as text, Table 1's columns and sub-tables, the reading notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reports.cells import Estimate, Report, Slice, in_order
from reports.study import ReportRow


@dataclass(frozen=True)
class Style:
    """How a metric is titled and printed; `lower` is None where no direction is better."""

    title: str
    lower: bool | None
    decimals: int


STYLES = {
    "fid": Style("FID", True, 1),
    "kid": Style("KID", True, 4),
    "clip_score": Style("CLIP score", False, 3),
    "alignment": Style("All right", False, 3),
}


def style_of(metric: str) -> Style:
    """The style of a metric; an unknown metric is printed under its own name."""
    return STYLES.get(metric, Style(metric, None, 4))


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


def spread(estimate: Estimate, decimals: int) -> str:
    """The standard deviation over seeds if there are several seeds, else the interval that scoring reported."""
    if estimate.seed_sd is not None:
        return f"\N{PLUS-MINUS SIGN} {fixed(estimate.seed_sd, decimals)}"
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
    parts = []
    for part, rows in report.study.parts.items():
        cells = zip(*(_column_cells(report, column, rows) for column in columns), strict=True)
        marks = tuple(
            DEFAULT * row.default + DEAD * (report.heads_separate(row.run) is False) for row in rows
        )
        parts.append(SubTable(part, rows[0].question, rows, marks, tuple(cells)))
    return TableOne(tuple(columns), tuple(parts))


def _column_cells(report: Report, column: Column, rows: tuple[ReportRow, ...]) -> tuple[Shown, ...]:
    if column.where is None:
        return published_cells([getattr(row, f"published_{column.metric}") for row in rows], column.metric)
    estimates = report.estimates(column.where, column.metric)
    return measured_cells([estimates[row.run] for row in rows], column.metric)


def measured_cells(estimates: Sequence[Estimate | None], metric: str) -> tuple[Shown, ...]:
    """One column of measured values, its best marked.

    Values are compared as printed, so that digits which a reader cannot see never tell two equal figures apart.
    All values that tie for the best are marked. A column of one row has no best.
    """
    style = style_of(metric)
    best = best_of([None if e is None else float(fixed(e.value, style.decimals)) for e in estimates], style)
    return tuple(
        ABSENT if e is None else Shown(fixed(e.value, style.decimals), spread(e, style.decimals), marked)
        for e, marked in zip(estimates, best, strict=True)
    )


def published_cells(values: Sequence[float | None], metric: str) -> tuple[Shown, ...]:
    """One column of published values, its best marked, with all decimals that the paper gives."""
    style = style_of(metric)
    return tuple(
        ABSENT if value is None else Shown(in_full(value, style.decimals), best=marked)
        for value, marked in zip(values, best_of(values, style), strict=True)
    )


def best_of(values: Sequence[float | None], style: Style) -> tuple[bool, ...]:
    """Which values are the best; none if fewer than two values can be compared."""
    present = [value for value in values if value is not None]
    if style.lower is None or len(present) < 2:
        return (False,) * len(values)
    target = min(present) if style.lower else max(present)
    return tuple(value == target for value in values)


def reading_notes(report: Report) -> tuple[str, ...]:
    """What a reader must know to read the table, in plain sentences."""
    study, first = report.study, report.first
    measured = report.measurements[study.runs[0], first]
    notes = [
        f"Measured: {len(study.rows)} cells from {len(study.runs)} trained runs, training seed"
        f"{'s' if len(study.seeds) > 1 else ''} {', '.join(map(str, study.seeds))}, "
        f"{measured.images} images of prompt set “{first.prompts}” for each value.",
        "Published: the paper's one-step values (512 \N{MULTIPLICATION SIGN} 512, 5,000 COCO samples). They "
        "stand under another protocol: compare the order of rows within a sub-table, but never a measured "
        "value with a published one.",
        interval_note(report),
        "Bold: the best value of a column within its sub-table, compared as printed. Dagger: the shared "
        "default, which is the same run in every sub-table.",
    ]
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


def interval_note(report: Report) -> str:
    """The sentence that says what the spread beside a measured value covers, and what it does not."""
    n = len(report.study.seeds)
    if n > 1:
        sd = "± is their standard deviation (n \N{MINUS SIGN} 1)"
        return f"Measured values are means over {n} training seeds; {sd}."
    estimates = [e for measurement in report.measurements.values() for e in measurement.metrics.items()]
    covers = {metric: estimate.covers for metric, estimate in estimates if estimate.low is not None}
    if not covers:
        return (
            "There is one training seed and no interval: nothing tells a difference between rows from noise."
        )
    each = "; ".join(f"{style_of(metric).title}: {covers[metric]}" for metric in in_order(set(covers)))
    return (
        f"There is one training seed. What the brackets cover: {each}. They do not cover the training seed, "
        "which can move a value by more."
    )
