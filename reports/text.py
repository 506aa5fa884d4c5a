"""Table 1 as text: table.csv (every number with its protocol), table.md and table.tex (as it is printed)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import product

from reports.cells import Estimate, Report, in_order
from reports.layout import Column, Shown, SubTable, reading_notes, split_label, steps_text, table_one

LEADING = ("part", "question", "row", "default", "run", "steps", "prompts")
TRAILING = ("published_fid", "published_clip_score", "heads_separate", "runs", "images")


def render_csv(report: Report) -> str:
    """One line for each cell, number of steps and prompt set.

    Published values stand only on the lines of the slice that they were published for. For each metric: value,
    interval, what the interval covers, sd over seeds (and standard error, or the value in each attribute group).
    """
    found = [item for measurement in report.measurements.values() for item in measurement.metrics.items()]
    groups = sorted({group for _, estimate in found for group in estimate.groups})
    examples = dict(found)
    metrics = in_order(set(examples))
    fields = [field for metric in metrics for field in _csv_fields(metric, examples[metric], groups)]
    columns = [*LEADING, *fields, *TRAILING, *(f"{metric}_protocol" for metric in metrics)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row, where in product(report.study.rows, report.slices):
        measurement, default = report.measurements[row.run, where], str(row.default).lower()
        leading = (row.part, row.question, row.label, default, row.run, str(where.steps), where.prompts)
        line = dict(zip(LEADING, leading, strict=True))
        separate = report.heads_separate(row.run)
        line["heads_separate"] = "" if separate is None else str(separate).lower()
        line |= {"runs": str(len(report.results[row.run])), "images": str(measurement.images)}
        if where.steps == 1 and where.prompts == report.first.prompts:
            line["published_fid"] = _number(row.published_fid)
            line["published_clip_score"] = _number(row.published_clip_score)
        for metric, estimate in measurement.metrics.items():
            line |= _csv_fields(metric, estimate, groups) | {f"{metric}_protocol": estimate.protocol}
        writer.writerow(line)
    return out.getvalue()


def _csv_fields(metric: str, estimate: Estimate, groups: Sequence[str]) -> dict[str, str]:
    """The columns of one metric, in order, but for its protocol."""
    fields = {
        metric: _number(estimate.value),
        f"{metric}_low": _number(estimate.low),
        f"{metric}_high": _number(estimate.high),
        f"{metric}_covers": estimate.covers,
        f"{metric}_seed_sd": _number(estimate.seed_sd),
    }
    if metric == "clip_score":
        fields["clip_stderr"] = _number(estimate.stderr)
    if metric == "alignment":
        fields |= {f"alignment_{group}": _number(estimate.groups.get(group)) for group in groups}
    return fields


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def render_markdown(report: Report) -> str:
    """GitHub-flavoured Markdown: one pipe table for each sub-table."""
    table, study = table_one(report), report.study
    lines = [f"# Table 1, scale {escape_markdown(study.scale)}", ""]
    if study.notice:
        lines += [f"> **{escape_markdown(study.notice)}**", ""]
    if study.description:
        lines += [escape_markdown(study.description), ""]
    for sub in table.parts:
        lines += [*_markdown_table(sub, table.columns), ""]
    lines += [f"- {escape_markdown(note)}" for note in reading_notes(report)]
    return "\n".join(lines) + "\n"


_ACTIVE = re.compile(r"([\\`*_\[\]<>|~$&])")
# What would begin a heading, a list or an underlined heading at the start of a line.
_AT_START = re.compile(r"^(\d*)([#+=.)-])")


def escape_markdown(text: str) -> str:
    """User-supplied text as literal Markdown on one line: no emphasis, link, table edge or HTML survives."""
    text = _ACTIVE.sub(r"\\\1", " ".join(text.split()))
    return _AT_START.sub(r"\1\\\2", text)


def _markdown_table(sub: SubTable, columns: tuple[Column, ...]) -> list[str]:
    heads = [f"{escape_markdown(column.title)}<br>{_source(column, 'paper')}" for column in columns]
    lines = [["", *heads], ["---", *("---:" for _ in columns)]]
    for row, mark, cells in zip(sub.rows, sub.marks, sub.cells, strict=True):
        label = f"{escape_markdown(row.label)} {mark}".rstrip()
        lines.append([label, *(_markdown_cell(cell) for cell in cells)])
    title = f"## ({escape_markdown(sub.part)}) {escape_markdown(sub.question)}"
    return [title, "", *(f"| {' | '.join(line)} |" for line in lines)]


def _markdown_cell(cell: Shown) -> str:
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} {cell.spread}".rstrip()


def _source(column: Column, published: str) -> str:
    return published if column.where is None else f"measured, {steps_text(column.where.steps)}"


def render_latex(report: Report) -> str:
    """A booktabs table to \\input into a paper; needs the packages booktabs and graphicx."""
    table, study = table_one(report), report.study
    notice = f"\\textbf{{{escape_latex(study.notice)}}} " if study.notice else ""
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}; made by `python -m reports.table`, do not edit.",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{notice}Ablations of adversarial diffusion distillation, scale {escape_latex(study.scale)}. "
        f"{escape_latex(' '.join(reading_notes(report)))}}}",
        "  \\label{tab:add-ablations}",
        "  \\resizebox{\\linewidth}{!}{%",
        f"  \\begin{{tabular}}{{@{{}}l{'r' * len(table.columns)}@{{}}}}",
        "    \\toprule",
        _latex_line(["", *(_source(column, "paper, one step") for column in table.columns)]),
        _latex_line(["", *(escape_latex(column.title) for column in table.columns)]),
    ]
    for sub in table.parts:
        lines += ["    \\midrule", *_latex_rows(sub, len(table.columns))]
    lines += ["    \\bottomrule", "  \\end{tabular}}", "\\end{table}"]
    return "\n".join(lines) + "\n"


_TO_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "{}$&#%_"}
    | {
        "\\": r"\textbackslash{}",
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
        "‡": r"$^\ddagger$",
        "λ": r"$\lambda$",
        "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "“": "``",
        "”": "''",
    }
)


def escape_latex(text: str) -> str:
    """User-supplied text as literal LaTeX on one line: no command, comment, math or alignment survives."""
    return " ".join(text.split()).translate(_TO_LATEX)


def latex_label(text: str) -> str:
    """A row's label: escaped, with `L_adv` set as a symbol and its index."""
    return "".join(
        f"$_{{\\mathrm{{{escape_latex(piece.text)}}}}}$"
        if piece.index
        else f"$\\mathit{{{escape_latex(piece.text)}}}$"
        if piece.symbol
        else escape_latex(piece.text)
        for piece in split_label(text)
    )


def _latex_rows(sub: SubTable, columns: int) -> list[str]:
    heading = f"\\textit{{({escape_latex(sub.part)}) {escape_latex(sub.question)}}}"
    lines = [f"    \\multicolumn{{{columns + 1}}}{{@{{}}l}}{{{heading}}} \\\\"]
    for row, mark, cells in zip(sub.rows, sub.marks, sub.cells, strict=True):
        label = latex_label(row.label) + escape_latex(mark)
        lines.append(_latex_line([label, *(_latex_cell(cell) for cell in cells)]))
    return lines


def _latex_line(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _latex_cell(cell: Shown) -> str:
    value = f"\\textbf{{{escape_latex(cell.value)}}}" if cell.best else escape_latex(cell.value)
    return f"{value} {{\\footnotesize {escape_latex(cell.spread)}}}" if cell.spread else value
