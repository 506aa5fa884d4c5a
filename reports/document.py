"""table.pdf: the report, typeset. What a user wrote travels as JSON and is never markup."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import typst

from add.files import write_whole
from eval.findings.verdicts import LOGARITHMIC
from reports import layout
from reports.categories import CategoryScore, categories_data
from reports.cells import Report, Slice, budget, in_order
from reports.context import protocols, provenance, times, training_time
from reports.explorer.listed import link_to_cell, link_to_system
from reports.findings import findings_note, page_lines, steps_table, system_lines
from reports.plots.style import Drawn
from reports.ratings import Preferences, ratings_page
from reports.samples import first_and_last, write_tiles
from reports.study import flatten
from reports.systems import SystemRow, systems_data

Data = dict[str, Any]

PAGE_PROMPTS = 5
TEASER_PROMPTS = 9
LINKED = "Each measured value links to the images behind it, in explorer.html beside this file."
_COLUMNS = 5  # metrics with intervals that fit beside each other on a page
# A fixed creation date (the paper's day, 2023-11-28), so that the same results give the same bytes.
_CREATED = 1701129600


def write_document(
    report: Report,
    results: Path | None,
    figures: tuple[Drawn, ...],
    output: Path,
    preferences: Preferences | None = None,
    systems: Sequence[SystemRow] = (),
    only_systems: bool = False,
    categories: Sequence[CategoryScore] = (),
    explorer: bool = False,
) -> None:
    """Typesets the report, with a page of ratings if there are preferences, and with samples from `results`.

    systems: of the comparison, which has pages of its own. only_systems: these pages alone. categories: their scores by
    category. explorer: whether explorer.html will lie beside it, to whose images its cells then link.

    Raises InputError where samples are missing or differ between runs.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        prepare(report, results, figures, root, preferences, systems, only_systems, categories, explorer)
        pdf = typst.compile(root / "document.typ", root=root, ignore_system_fonts=True, timestamp=_CREATED)
    write_whole(output, pdf)


def prepare(
    report: Report,
    results: Path | None,
    figures: tuple[Drawn, ...],
    root: Path,
    preferences: Preferences | None = None,
    systems: Sequence[SystemRow] = (),
    only_systems: bool = False,
    categories: Sequence[CategoryScore] = (),
    explorer: bool = False,
) -> None:
    """Lays out a folder that typst compiles: the template, data.json, figures and sample tiles."""
    (root / "document.typ").write_bytes(files("reports").joinpath("document.typ").read_bytes())
    for figure in figures:
        if figure.page is not None:
            shutil.copyfile(figure.pdf, root / figure.pdf.name)
    data = document_data(report, explorer)
    data["figures"] = _figures_of("figures", figures)
    judged = any(answer.judged for answer in report.answers)
    data["findings"]["figures"] = _figures_of("findings", figures) if judged else []
    data["samples"] = data["teaser"] = None
    if results is not None and not only_systems:
        data["samples"] = _sample_page(report, results, root)
        data["teaser"] = _teaser(report, results, root)
    data["systems"] = systems_data(report, systems, root)
    if data["systems"] is not None:
        data["systems"]["figures"] = _figures_of("systems", figures)
        data["systems"]["categories"] = categories_data(categories)
        for line, row in zip(data["systems"]["rows"], systems, strict=True):
            line["link"] = link_to_system(row, data["systems"]["set"]) if explorer else ""
        data["systems"]["claims"] = system_lines(report)
        # The first page has said it, where there is one.
        data["systems"]["claims_note"] = findings_note(report) if only_systems else ""
    data["only_systems"] = only_systems
    data["ratings"] = None
    if preferences is not None:
        data["ratings"] = {**ratings_page(preferences), "figures": _figures_of("ratings", figures)}
    (root / "data.json").write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")


def _figures_of(page: str, figures: tuple[Drawn, ...]) -> list[Data]:
    return [{"file": each.pdf.name, "caption": each.caption} for each in figures if each.page == page]


def document_data(report: Report, explorer: bool = False) -> Data:
    """All text and numbers of the document, but for figures, samples and ratings, as JSON values.

    explorer: with links from Table 1 to the images behind each cell.
    """
    study = report.study
    papers = any(row.published_fid is not None for row in study.rows)
    return {
        "scale": study.scale,
        "title": "The ablations of Table 1, measured and published"
        if papers
        else "Ablations that the paper does not have",
        "notice": study.notice,
        "description": study.description,
        "counts": {"cells": len(study.rows), "runs": len(study.runs)},
        "table": _table(report, explorer),
        "notes": (*layout.reading_notes(report), *[LINKED] * explorer),
        "findings": {
            "lines": page_lines(report),
            "note": findings_note(report),
            "counts": _verdicts(report),
            "by_steps": steps_table(report),
        },
        "interval": layout.interval_note(report),
        "budget": _budget(report),
        "measurements": [table for where in report.slices for table in _measurements(report, where)],
        "attributes": [table for where in report.headline if (table := _attributes(report, where))],
        "protocols": protocols(report),
        "published_settings": study.published,
        "chosen_settings": study.chosen,
        "reference": _reference(report),
        **provenance(report),
        "diagnoses": _diagnoses(report),
        "times": _by_run(report, times(report)),
        "total_time": training_time(report),
    }


def _budget(report: Report) -> Data | None:
    """What the uncertainty of one run's values is made of; None where nothing says how far runs spread."""
    lines = []
    parts = ("between runs", "processor", "images", "reference")
    for where in report.headline:
        for metric in report.metrics(where):
            if (found := budget(report, where, metric)) is not None:
                relative = metric in LOGARITHMIC
                shown = [
                    f"{100 * found[p]:.2f}%" if relative else f"{found[p]:.2g}" for p in parts if p in found
                ]
                cells = iter(shown)
                title = f"{layout.style_of(metric).title}, {layout.steps_text(where.steps)}"
                lines.append([title, *(next(cells) if p in found else layout.ABSENT.value for p in parts)])
    return {"heads": parts, "rows": lines} if lines else None


def _verdicts(report: Report) -> str:
    """How many claims have which verdict, in a sentence."""
    counts = Counter(answer.verdict for answer in report.answers)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def _table(report: Report, explorer: bool) -> Data:
    """Table 1, compact: its brackets are wide."""
    table = layout.table_one(report, compact=True)
    columns = table.columns
    steps = [(column.where or report.first).steps for column in columns]
    sources = ["paper" if column.where is None else "measured" for column in columns]
    return {
        "columns": [{"measured": column.where is not None} for column in columns],
        # Three lines of heads: steps, metric, source. Neighbours with the same steps and metric share a head.
        "heads": [
            _heads(steps, layout.steps_text),
            _heads(list(zip(steps, (column.title for column in columns), strict=True)), lambda key: key[1]),
            [{"text": source, "span": 1} for source in sources],
        ],
        "parts": [
            {
                "part": sub.part,
                "question": sub.question,
                "rows": [
                    {
                        "label": _pieces(row.label),
                        "default": row.default,
                        "marks": mark,
                        "cells": list(map(_cell, cells)),
                        "links": [
                            link_to_cell(report, row.run, column.where) if explorer and column.where else ""
                            for column in columns
                        ],
                    }
                    for row, mark, cells in zip(sub.rows, sub.marks, sub.cells, strict=True)
                ],
            }
            for sub in table.parts
        ],
    }


def _heads(keys: Iterable[Any], text: Callable[[Any], str]) -> list[Data]:
    return [{"text": text(key), "span": len(list(group))} for key, group in groupby(keys)]


def _cell(cell: layout.Shown) -> Data:
    value, spread = (text.replace("-", "\N{MINUS SIGN}") for text in (cell.value, cell.spread))
    return {"value": value, "spread": spread, "best": cell.best}


def _pieces(label: str) -> list[Data]:
    return list(map(asdict, layout.split_label(label)))


def _label(report: Report, run: str) -> Data:
    """A run's name in pieces, and whether it is the shared default."""
    return {"pieces": _pieces(report.study.name_of(run, full=True)), "default": report.study.is_default(run)}


def _by_run(report: Report, cells: Mapping[str, Iterable[Any]]) -> list[Data]:
    """The lines of a table with one line for each run."""
    return [{"label": _label(report, run), "cells": list(line)} for run, line in cells.items()]


def _diagnoses(report: Report) -> Data | None:
    """What the trainings found of their losses, means over seeds; None where no result says."""
    heads = {
        "ranked": "ranked right",
        "gap": "logit gap",
        "heads_above_zero": "heads above zero",
        "gradient_ratio": "gradient ratio",
    }
    cells = {}
    for run in report.study.runs:
        found = report.diagnoses(run)
        line = []
        for key in heads:
            values = [each[key] for each in found if key in each]
            line.append(layout.fixed(sum(values) / len(values), 3) if values else layout.ABSENT.value)
        lost = [sum(each["no_gradient"].values()) for each in found if "no_gradient" in each]
        cells[run] = [*line, f"{100 * max(lost):.0f}%" if lost else layout.ABSENT.value]
    if not any(report.diagnoses(run) for run in report.study.runs):
        return None
    return {"heads": [*heads.values(), "no gradient"], "rows": _by_run(report, cells)}


def _measurements(report: Report, where: Slice) -> list[Data]:
    """The tables of one slice; each has as many metrics as fit beside each other."""
    runs, metrics = report.study.runs, report.metrics(where)
    title = (
        f"Prompt set “{where.prompts}”, {layout.steps_text(where.steps)}, "
        f"{report.measurements[runs[0], where].images} images for each training seed"
    )
    tables = []
    for start in range(0, len(metrics), _COLUMNS):
        some = metrics[start : start + _COLUMNS]
        columns = [
            layout.measured_cells(list(report.estimates(where, metric).values()), metric) for metric in some
        ]
        lines = zip(*columns, strict=True)
        table = {
            "title": title,
            "heads": [layout.style_of(metric).title for metric in some],
            "rows": _by_run(report, {run: map(_cell, line) for run, line in zip(runs, lines, strict=True)}),
        }
        tables.append(table)
    return tables


def _attributes(report: Report, where: Slice) -> Data | None:
    """The oracle's accuracy for each attribute, or None if there is no oracle."""
    found = report.estimates(where, "alignment")
    groups = list(found[report.study.runs[0]].groups) if found else []
    if not groups:
        return None
    cells = {
        run: [layout.fixed(estimate.groups[g], 3) if g in estimate.groups else "" for g in groups]
        for run, estimate in found.items()
    }
    heads = [group.replace("_", " ") for group in groups]
    return {"title": layout.steps_text(where.steps), "heads": heads, "rows": _by_run(report, cells)}


def _reference(report: Report) -> list[tuple[str, str]]:
    """What real images score, line by line; each number with its protocol."""
    reference = report.reference
    if reference is None:
        return []
    lines = [(f"reference {key}", value) for key, value in flatten(reference.reference)]
    for real in reference.real:
        for metric in in_order(set(real.metrics)):
            measured, style = real.metrics[metric], layout.style_of(metric)
            interval = f" {layout.bracketed(*measured.interval, style.decimals)}" if measured.interval else ""
            text = f"{layout.fixed(measured.value, style.decimals)}{interval}, protocol {measured.protocol}"
            lines.append((f"{real.images} real images of “{real.prompts}”: {style.title}", text))
        if (blur := real.blur) is not None:
            factor = "" if blur.factor is None else f", {blur.factor:.2f} times the floor"
            title = f"the same, blurred with \N{GREEK SMALL LETTER SIGMA} = {blur.sigma_pixels:g} px: FID"
            lines.append((title, f"{layout.fixed(blur.fid, layout.style_of('fid').decimals)}{factor}"))
    return lines


def _sample_page(report: Report, results: Path, root: Path) -> Data:
    """Writes the sample page's tiles into `root` and describes the page: the fewest and the most steps."""
    blocks = first_and_last(report, results, PAGE_PROMPTS)
    rows = [
        {
            "label": _label(report, run),
            "tiles": [
                write_tiles(block.tiles[run], root, f"page-{i:03d}-{k}") for k, block in enumerate(blocks)
            ],
        }
        for i, run in enumerate(report.study.runs)
    ]
    return {
        "prompts": [layout.shortened(prompt, 120) for prompt in blocks[0].prompts],
        "blocks": [layout.steps_text(block.where.steps) for block in blocks],
        "seed": blocks[0].training_seed,
        "set": blocks[0].where.prompts,
        "rows": rows,
    }


def _teaser(report: Report, results: Path, root: Path) -> Data:
    """Samples for the first page: the shared default's, or the first run's if no row is the default."""
    study = report.study
    run = next((run for run in study.runs if study.is_default(run)), study.runs[0])
    blocks = first_and_last(report, results, TEASER_PROMPTS)
    return {
        "label": _label(report, run),
        "prompts": [layout.shortened(prompt, 70) for prompt in blocks[0].prompts],
        "rows": [
            {
                "title": layout.steps_text(block.where.steps),
                "tiles": write_tiles(block.tiles[run], root, f"teaser-{k}"),
            }
            for k, block in enumerate(blocks)
        ],
    }
