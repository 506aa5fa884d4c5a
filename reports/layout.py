"""Table 1's columns and sub-tables as text cells: what Markdown, LaTeX and the PDF lay out alike."""

from __future__ import annotations

from dataclasses import dataclass

from reports.cells import Report, Slice, in_order
from reports.numbers import Shown, column, fixed, published, style_of
from reports.study import Row


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
    rows: tuple[Row, ...]
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


def _column_cells(report: Report, col: Column, rows: tuple[Row, ...]) -> tuple[Shown, ...]:
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
