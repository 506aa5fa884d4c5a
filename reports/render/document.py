"""reports/table.pdf: the report, typeset. What a user wrote travels as JSON and is never markup."""

from __future__ import annotations

import json
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterable
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from reports.cells import Report, Slice, in_order
from reports.context import duration, protocol_texts, provenance, train_facts
from reports.plots.figures import Drawn
from reports.render.layout import (
    Shown,
    TableOne,
    column,
    fixed,
    interval_note,
    reading_notes,
    split_label,
    steps_text,
    style_of,
    table_one,
)
from reports.render.ratings import RatingsPage
from reports.samples import ShownSamples, read_samples, tile
from reports.study import flatten

Data = dict[str, Any]


def document_data(report: Report, figures: tuple[Drawn, ...]) -> Data:
    """All text and numbers of the document but the sample page, as JSON values."""
    study = report.study
    origin = provenance(report)
    times = [
        {
            "label": label_of(report, time.run),
            "cells": [duration(time.train), duration(time.sample), duration(time.score)],
        }
        for time in origin.times
    ]
    total = sum(time.train or 0.0 for time in origin.times)
    return {
        "scale": study.scale,
        "notice": study.notice,
        "description": study.description,
        "counts": {"cells": len(study.rows), "runs": len(study.runs), "parts": len(study.parts)},
        "seeds": ", ".join(map(str, study.seeds)),
        "table": _table(table_one(report, compact=len(study.seeds) == 1)),
        "notes": reading_notes(report),
        "interval": interval_note(report),
        "figures": [
            {"file": f"{figure.name}.pdf", "caption": figure.caption}
            for figure in figures
            if not figure.montage
        ],
        "measurements": [_measurements(report, where) for where in report.slices],
        "attributes": [table for where in report.headline if (table := _attributes(report, where))],
        "protocols": [
            {"name": text.name, "used_by": "; ".join(text.used_by), "settings": text.settings}
            for text in protocol_texts(report)
        ],
        "published_settings": study.published,
        "chosen_settings": study.chosen,
        "reference": _reference(report),
        "commits": ", ".join(origin.commits),
        "hardware": origin.hardware,
        "training": train_facts(report),
        "versions": origin.versions,
        "weights": origin.weights,
        "times": times,
        "total_time": duration(total) if total else None,
    }


def _table(table: TableOne) -> Data:
    columns = table.columns
    return {
        "columns": [{"measured": c.where is not None} for c in columns],
        # Three lines of heads: steps, metric, source; neighbours that say the same are one head.
        "heads": [
            _spans([(c.where or table.columns[0].where or Slice(1, "")).steps for c in columns], steps_text),
            _spans([(c.metric, (c.where or columns[0].where), c.arrow) for c in columns], _metric_head),
            _spans([(i, c.where is None) for i, c in enumerate(columns)], _source_head),
        ],
        "parts": [
            {
                "part": sub.part,
                "question": sub.question,
                "rows": [
                    {"label": _pieces(row.label), "default": row.default, "cells": [_cell(c) for c in cells]}
                    for row, cells in zip(sub.rows, sub.cells, strict=True)
                ],
            }
            for sub in table.parts
        ],
    }


def _spans(keys: Iterable[Any], text: Callable[[Any], str]) -> list[Data]:
    return [{"text": text(key), "span": len(list(group))} for key, group in groupby(keys)]


def _metric_head(key: tuple[str, Any, str]) -> str:
    return f"{style_of(key[0]).title} {key[2]}"


def _source_head(key: tuple[int, bool]) -> str:
    return "paper" if key[1] else "measured"


def _cell(cell: Shown) -> Data:
    return {"value": _minus(cell.value), "spread": _minus(cell.spread), "best": cell.best}


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _pieces(label: str) -> list[Data]:
    return [{"text": p.text, "index": p.index, "symbol": p.symbol} for p in split_label(label)]


def label_of(report: Report, run: str) -> Data:
    """A run's name in pieces, and whether it is the shared default."""
    name = report.study.full_name_of(run)
    return {"pieces": _pieces(name), "run": run, "default": report.study.is_default(run)}


def _measurements(report: Report, where: Slice) -> Data:
    runs, metrics = report.study.runs, report.metrics(where)
    columns = [column([report.estimate(run, where, metric) for run in runs], metric) for metric in metrics]
    return {
        "title": f"Prompt set “{where.prompts}”, {steps_text(where.steps)}, "
        f"{report.measurements[runs[0], where].images} images for each training seed",
        "heads": [style_of(metric).title for metric in metrics],
        "rows": [
            {"label": label_of(report, run), "cells": [_cell(cells[i]) for cells in columns]}
            for i, run in enumerate(runs)
        ],
    }


def _attributes(report: Report, where: Slice) -> Data | None:
    """The oracle's accuracy for each attribute, or None where there is no oracle."""
    runs = report.study.runs
    found = {run: report.estimate(run, where, "alignment") for run in runs}
    groups = [] if (first := found[runs[0]]) is None else list(first.groups)
    if not groups:
        return None
    return {
        "title": steps_text(where.steps),
        "heads": [group.replace("_", " ") for group in groups],
        "rows": [
            {
                "label": label_of(report, run),
                "cells": [fixed(e.groups[group], 3) if e and group in e.groups else "" for group in groups],
            }
            for run, e in found.items()
        ],
    }


def _reference(report: Report) -> list[tuple[str, str]]:
    """What real images score, line by line; each number with its protocol."""
    reference = report.reference
    if reference is None:
        return []
    lines = [(f"reference {key}", value) for key, value in flatten(reference.reference)]
    for real in reference.real:
        title = f"{real.images} real images of “{real.prompts}”"
        for metric in in_order(set(real.metrics)):
            measured, style = real.metrics[metric], style_of(metric)
            low, high = measured.interval or (None, None)
            interval = (
                ""
                if low is None or high is None
                else (f" [{fixed(low, style.decimals)}, {fixed(high, style.decimals)}]")
            )
            text = f"{fixed(measured.value, style.decimals)}{interval}, protocol {measured.protocol}"
            lines.append((f"{title}: {style.title}", text))
        if real.blur is not None:
            factor = "" if real.blur.factor is None else f", {real.blur.factor:.2f} times the floor"
            blurred = (
                f"the same, blurred with \N{GREEK SMALL LETTER SIGMA} = {real.blur.sigma_pixels:g} px: FID"
            )
            lines.append((blurred, f"{fixed(real.blur.fid, style_of('fid').decimals)}{factor}"))
    return lines


PAGE_PROMPTS = 5
TEASER_PROMPTS = 9
_TILE = 128  # pixels
# A fixed creation date (the paper's day, 2023-11-28), so that the same results give the same bytes.
_CREATED = 1701129600


def write_document(
    report: Report,
    results: Path,
    figures: tuple[Drawn, ...],
    output: Path,
    rated: RatingsPage | None = None,
) -> None:
    """Typesets the report, with pages of ratings where there are any.

    Raises InputError where samples are missing or differ between runs.
    """
    import typst

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        prepare(report, results, figures, root, rated)
        output.parent.mkdir(parents=True, exist_ok=True)
        whole = root / "whole.pdf"
        typst.compile(
            root / "document.typ",
            output=whole,
            root=root,
            ignore_system_fonts=True,
            timestamp=_CREATED,
        )
        # A report appears whole or not at all; the temporary folder may lie on another file system.
        beside = output.with_name(f".{output.name}.part")
        shutil.copyfile(whole, beside)
        beside.replace(output)


def prepare(
    report: Report,
    results: Path,
    figures: tuple[Drawn, ...],
    root: Path,
    rated: RatingsPage | None = None,
) -> None:
    """Lays out a folder that typst compiles: the template, data.json, figures and sample tiles."""
    template = files("reports.render").joinpath("document.typ").read_text(encoding="utf-8")
    (root / "document.typ").write_text(template, encoding="utf-8")
    for figure in (*figures, *(rated.figures if rated else ())):
        shutil.copyfile(figure.pdf, root / f"{figure.name}.pdf")
    data = document_data(report, figures)
    data["samples"] = _sample_page(report, results, root)
    data["teaser"] = _teaser(report, results, root)
    data["ratings"] = rated.data if rated else None
    (root / "data.json").write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")


def _sample_page(report: Report, results: Path, root: Path) -> Data:
    """Copies the sample page's tiles into `root` and describes the page: the first and the last slice."""
    blocks = _samples(report, results, PAGE_PROMPTS)
    rows = [
        {
            "label": label_of(report, run),
            "tiles": [_tiles(block, run, root, f"page-{i:03d}-{k}") for k, block in enumerate(blocks)],
        }
        for i, run in enumerate(report.study.runs)
    ]
    return {
        "prompts": [_short(prompt, 120) for prompt in blocks[0].prompts],
        "blocks": [steps_text(block.where.steps) for block in blocks],
        "seed": blocks[0].training_seed,
        "set": blocks[0].where.prompts,
        "rows": rows,
    }


def _teaser(report: Report, results: Path, root: Path) -> Data:
    """The shared default's samples (the first run's where no row is the default) for the first page."""
    study = report.study
    run = next((run for run in study.runs if study.is_default(run)), study.runs[0])
    blocks = _samples(report, results, TEASER_PROMPTS)
    return {
        "label": label_of(report, run),
        "prompts": [_short(prompt, 70) for prompt in blocks[0].prompts],
        "rows": [
            {"title": steps_text(block.where.steps), "tiles": _tiles(block, run, root, f"teaser-{k}")}
            for k, block in enumerate(blocks)
        ],
    }


def _short(prompt: str, most: int) -> str:
    """A prompt cut at a word, marked by an ellipsis: one long prompt must not push a page over."""
    return textwrap.shorten(prompt, most, placeholder=" \N{HORIZONTAL ELLIPSIS}")


def _samples(report: Report, results: Path, most: int) -> tuple[ShownSamples, ...]:
    """The first prompts, at most `most` and as many as were scored, at the fewest and the most steps."""
    wanted = tuple(dict.fromkeys((report.first, report.last)))
    images = [report.measurements[run, where].images for run in report.study.runs for where in wanted]
    return tuple(read_samples(report, results, where, min(most, *images)) for where in wanted)


def _tiles(samples: ShownSamples, run: str, root: Path, stem: str) -> list[str]:
    """Writes one run's tiles into `root`; returns their file names."""
    names = [f"{stem}-{j}.png" for j in range(len(samples.prompts))]
    for name, path in zip(names, samples.tiles[run], strict=True):
        tile(path, _TILE).save(root / name, format="PNG")
    return names
