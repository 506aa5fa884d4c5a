"""The document's text and numbers as JSON values: what document.typ sets, and nothing that it would parse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from reports.cells import Report, Slice, in_order
from reports.context import duration, protocol_texts, provenance, train_facts
from reports.figures import Drawn
from reports.labels import split_label
from reports.layout import TableOne, interval_note, reading_notes, steps_text, table_one
from reports.numbers import Shown, column, fixed, style_of
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
