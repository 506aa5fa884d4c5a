"""Table 1's columns and sub-tables as text cells, its numbers and labels: what all formats lay out alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reports.cells import Estimate, Report, Slice, in_order
from reports.study import ReportRow


@dataclass(frozen=True)
class Column:
    """A column holds one metric from one source: measured in one slice, or published (`where` is None)."""

    metric: str
    where: Slice | None

    @property
    def arrow(self) -> str:
        """Which direction is better."""
        lower = style_of(self.metric).lower
        return {True: "\N{DOWNWARDS ARROW}", False: "\N{UPWARDS ARROW}", None: ""}[lower]


@dataclass(frozen=True)
class SubTable:
    """One question: its rows, and for each row one cell a column."""

    part: str
    question: str
    rows: tuple[ReportRow, ...]
    cells: tuple[tuple[Shown, ...], ...]


@dataclass(frozen=True)
class TableOne:
    """The paper's Table 1 with measured values beside it."""

    columns: tuple[Column, ...]
    parts: tuple[SubTable, ...]


def table_one(report: Report, *, compact: bool = False) -> TableOne:
    """Table 1. One step first, published beside measured; then the most steps.

    `compact` leaves of the last columns only FID and the alignment (CLIP score where there is no oracle).
    """
    columns = _columns(report, compact)
    parts = []
    for part in report.study.parts:
        rows = report.study.rows_of(part)
        by_column = [_column_cells(report, col, rows) for col in columns]
        cells = tuple(tuple(col[i] for col in by_column) for i in range(len(rows)))
        parts.append(SubTable(part, rows[0].question, rows, cells))
    return TableOne(columns, tuple(parts))


def _columns(report: Report, compact: bool) -> tuple[Column, ...]:
    first, last = report.first, report.last
    found = report.metrics(first)
    columns = [Column("fid", first), Column("fid", None)]
    if "clip_score" in found:
        columns += [Column("clip_score", first), Column("clip_score", None)]
    if "alignment" in found:
        columns.append(Column("alignment", first))
    if last != first:
        wanted = ["fid", "clip_score", "alignment"]
        if compact:
            wanted = ["fid", "alignment" if "alignment" in report.metrics(last) else "clip_score"]
        columns += [Column(metric, last) for metric in wanted if metric in report.metrics(last)]
    return tuple(columns)


def _column_cells(report: Report, col: Column, rows: tuple[ReportRow, ...]) -> tuple[Shown, ...]:
    if col.where is None:
        return published([getattr(row, f"published_{col.metric}") for row in rows], col.metric)
    return column([report.estimate(row.run, col.where, col.metric) for row in rows], col.metric)


def steps_text(steps: int) -> str:
    """ "one step", "4 steps": for headings."""
    words = {1: "one", 2: "two", 3: "three", 4: "four", 8: "eight"}
    return f"{words.get(steps, str(steps))} step{'' if steps == 1 else 's'}"


def reading_notes(report: Report) -> tuple[str, ...]:
    """What a reader must know to read the table, as sentences of plain text."""
    study, first = report.study, report.first
    measured = report.measurements[study.runs[0], first]
    notes = [
        f"Measured: {len(study.rows)} cells from {len(study.runs)} trained runs, training seed"
        f"{'s' if len(study.seeds) > 1 else ''} {', '.join(map(str, study.seeds))}, "
        f"{measured.images} images of prompt set “{first.prompts}” for each value.",
        "Published: the paper's one-step values (512 \N{MULTIPLICATION SIGN} 512, 5,000 COCO samples). They "
        "stand under another protocol: compare the order of rows within a sub-table, never a measured with "
        "a published value.",
        interval_note(report),
        "Bold: best of a column within its sub-table, as printed. Dagger: the shared default, one run in "
        "every sub-table.",
    ]
    if floors := report.floors(first):
        values = ", ".join(
            f"{style_of(f.metric).title} {fixed(f.value, style_of(f.metric).decimals)}" for f in floors
        )
        notes.append(f"Real images score, under the same protocols: {values}.")
    if "alignment" in report.metrics(first):
        notes.append("All right: share of images in which the oracle finds every attribute of the prompt.")
    return tuple(notes)


def interval_note(report: Report) -> str:
    """The sentence that says what the spread beside a measured value covers, and what it does not."""
    n = len(report.study.seeds)
    if n > 1:
        return (
            f"Measured values are means over {n} training seeds; ± is their standard deviation "
            "(n \N{MINUS SIGN} 1)."
        )
    covers: dict[str, str] = {}
    for measurement in report.measurements.values():
        for metric, estimate in measurement.metrics.items():
            if estimate.low is not None:
                covers[metric] = estimate.covers
    if not covers:
        return "One training seed and no interval: differences between rows cannot be told from noise."
    each = "; ".join(f"{style_of(metric).title}: {covers[metric]}" for metric in in_order(set(covers)))
    return (
        f"One training seed. Brackets cover, for {each}. They do not cover the training seed, which can move "
        "a value by more."
    )


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
    """The style of a metric; one that this package has no style for is printed under its own name."""
    return STYLES.get(metric, Style(metric, None, 4))


@dataclass(frozen=True)
class Shown:
    """One cell as text: the value, its spread ("" where there is none), and whether it is a column's best."""

    value: str
    spread: str = ""
    best: bool = False


ABSENT = Shown("\N{EN DASH}")


def fixed(value: float, decimals: int) -> str:
    """Fixed decimals without a negative zero."""
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def spread(estimate: Estimate, decimals: int) -> str:
    """The sd over seeds where there are several, else the interval that scoring reported."""
    if estimate.seed_sd is not None:
        return f"\N{PLUS-MINUS SIGN} {fixed(estimate.seed_sd, decimals)}"
    if estimate.low is not None and estimate.high is not None:
        return f"[{fixed(estimate.low, decimals)}, {fixed(estimate.high, decimals)}]"
    return ""


def column(estimates: Sequence[Estimate | None], metric: str) -> tuple[Shown, ...]:
    """One column of a sub-table, its best marked.

    Values are compared as printed, so two equal figures are never told apart by digits a reader cannot see;
    all that tie for the best are marked. A column of one row has no best.
    """
    style = style_of(metric)
    best = best_of([None if e is None else e.value for e in estimates], style)
    return tuple(
        ABSENT
        if estimate is None
        else Shown(fixed(estimate.value, style.decimals), spread(estimate, style.decimals), marked)
        for estimate, marked in zip(estimates, best, strict=True)
    )


def published(values: Sequence[float | None], metric: str) -> tuple[Shown, ...]:
    """One column of published values, its best marked, with all decimals that the paper gives."""
    style = style_of(metric)
    best = best_of(values, style, as_printed=False)
    return tuple(
        ABSENT if value is None else Shown(in_full(value, style.decimals), best=marked)
        for value, marked in zip(values, best, strict=True)
    )


def in_full(value: float, decimals: int) -> str:
    """All decimals that a value was given with, but at least `decimals`."""
    return max(fixed(value, decimals), f"{value}", key=len)


def best_of(values: Sequence[float | None], style: Style, *, as_printed: bool = True) -> tuple[bool, ...]:
    """Which values are the best; none where fewer than two values can be compared."""
    rounded = [
        float(fixed(value, style.decimals)) if as_printed and value is not None else value for value in values
    ]
    present = [value for value in rounded if value is not None]
    if style.lower is None or len(present) < 2:
        return tuple(False for _ in rounded)
    target = min(present) if style.lower else max(present)
    return tuple(value == target for value in rounded)


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
    """A label on one line as plain text, Greek letters set: for figures."""
    return _GREEK.sub(lambda found: _LETTERS[found.group()], " ".join(label.split()))


def split_label(label: str) -> tuple[Piece, ...]:
    """A label in pieces; joined, with `_` before an index, they are the label with Greek letters set."""
    label = plain_label(label)
    pieces: list[Piece] = []
    end = 0
    for found in _INDEX.finditer(label):
        pieces += [
            Piece(label[end : found.start()]),
            Piece(found.group(1), symbol=True),
            Piece(found.group(2), index=True),
        ]
        end = found.end()
    pieces.append(Piece(label[end:]))
    return tuple(piece for piece in pieces if piece.text)
