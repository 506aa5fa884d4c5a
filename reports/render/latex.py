"""reports/table.tex: Table 1 as a booktabs table to \\input into a paper."""

from __future__ import annotations

import re

from reports.cells import Report
from reports.render.layout import (
    Column,
    Shown,
    SubTable,
    reading_notes,
    split_label,
    steps_text,
    style_of,
    table_one,
)

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": r"{[}",
    "]": r"{]}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": r"$-$",
    "\N{EN DASH}": "--",
    "†": r"$^\dagger$",
    "λ": r"$\lambda$",
    "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "“": "``",
    "”": "''",
}
_NEEDED = re.compile("|".join(re.escape(key) for key in _SPECIAL))


def render_latex(report: Report) -> str:
    """The table as LaTeX text; needs the packages booktabs and graphicx."""
    table = table_one(report)
    study = report.study
    notice = f"\\textbf{{{escape(study.notice)}}} " if study.notice else ""
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}; made by `python -m reports.table`, do not edit.",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{notice}Ablations of adversarial diffusion distillation, scale {escape(study.scale)}. "
        f"{escape(' '.join(reading_notes(report)))}}}",
        "  \\label{tab:add-ablations}",
        "  \\resizebox{\\linewidth}{!}{%",
        f"  \\begin{{tabular}}{{@{{}}l{'r' * len(table.columns)}@{{}}}}",
        "    \\toprule",
        _line(["", *(_source(column) for column in table.columns)]),
        _line(["", *(escape(f"{style_of(c.metric).title} {c.arrow}") for c in table.columns)]),
    ]
    for sub in table.parts:
        lines += ["    \\midrule", *_sub_table(sub, len(table.columns))]
    lines += ["    \\bottomrule", "  \\end{tabular}}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """User-supplied text as literal LaTeX on one line: no command, comment, math or alignment survives."""
    return _NEEDED.sub(lambda found: _SPECIAL[found.group()], " ".join(text.split()))


def label(text: str) -> str:
    """A row's label: escaped, with `L_adv` set as a symbol and its index."""
    return "".join(
        f"$_{{\\mathrm{{{escape(piece.text)}}}}}$"
        if piece.index
        else f"$\\mathit{{{escape(piece.text)}}}$"
        if piece.symbol
        else escape(piece.text)
        for piece in split_label(text)
    )


def _sub_table(sub: SubTable, columns: int) -> list[str]:
    heading = f"\\textit{{({escape(sub.part)}) {escape(sub.question)}}}"
    lines = [f"    \\multicolumn{{{columns + 1}}}{{@{{}}l}}{{{heading}}} \\\\"]
    for row, cells in zip(sub.rows, sub.cells, strict=True):
        mark = "$^\\dagger$" if row.default else ""
        lines.append(_line([label(row.label) + mark, *(_cell(cell) for cell in cells)]))
    return lines


def _source(column: Column) -> str:
    return "paper, one step" if column.where is None else f"measured, {steps_text(column.where.steps)}"


def _line(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(cell: Shown) -> str:
    value = f"\\textbf{{{escape(cell.value)}}}" if cell.best else escape(cell.value)
    return f"{value} {{\\footnotesize {escape(cell.spread)}}}" if cell.spread else value
