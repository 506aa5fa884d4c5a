"""reports/table.md: Table 1 as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from reports.cells import Report
from reports.render.layout import Column, Shown, SubTable, reading_notes, steps_text, style_of, table_one

_ACTIVE = re.compile(r"([\\`*_\[\]<>|~$&])")
# What would begin a heading, a list or an underlined heading at the start of a line.
_LEADING = re.compile(r"^(\d*)([#+=.)-])")


def render_markdown(report: Report) -> str:
    """The table as Markdown text: one pipe table a sub-table."""
    table = table_one(report)
    study = report.study
    lines = [f"# Table 1, scale {escape(study.scale)}", ""]
    if study.notice:
        lines += [f"> **{escape(study.notice)}**", ""]
    if study.description:
        lines += [escape(study.description), ""]
    for sub in table.parts:
        lines += [*_sub_table(sub, table.columns), ""]
    lines += [f"- {escape(note)}" for note in reading_notes(report)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """User-supplied text as literal Markdown on one line: no emphasis, link, table edge or HTML survives."""
    text = _ACTIVE.sub(r"\\\1", " ".join(text.split()))
    return _LEADING.sub(r"\1\\\2", text)


def _sub_table(sub: SubTable, columns: tuple[Column, ...]) -> list[str]:
    heads = ["", *(_head(column) for column in columns)]
    lines = [f"## ({escape(sub.part)}) {escape(sub.question)}", ""]
    lines += [_line(heads), _line(["---", *("---:" for _ in columns)])]
    for row, cells in zip(sub.rows, sub.cells, strict=True):
        label = escape(row.label) + (" †" if row.default else "")
        lines.append(_line([label, *(_cell(cell) for cell in cells)]))
    return lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(column: Column) -> str:
    source = "paper" if column.where is None else f"measured, {steps_text(column.where.steps)}"
    return f"{escape(style_of(column.metric).title)} {column.arrow}<br>{source}"


def _cell(cell: Shown) -> str:
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} {cell.spread}".rstrip()
