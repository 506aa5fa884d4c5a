"""reports/table.pdf: the report, typeset. What a user wrote travels as JSON and is never markup."""

from __future__ import annotations

import json
import shutil
import tempfile
import textwrap
from importlib.resources import files
from pathlib import Path

from reports.cells import Report
from reports.document_data import Data, document_data, label_of
from reports.figures import Drawn
from reports.layout import steps_text
from reports.ratings_page import RatingsPage
from reports.samples import Samples, read_samples, tile

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

    Raises ReportError where samples are missing or differ between runs.
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
    template = files("reports").joinpath("document.typ").read_text(encoding="utf-8")
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


def _samples(report: Report, results: Path, most: int) -> tuple[Samples, ...]:
    """The first prompts, at most `most` and as many as were scored, at the fewest and the most steps."""
    wanted = tuple(dict.fromkeys((report.first, report.last)))
    images = [report.measurements[run, where].images for run in report.study.runs for where in wanted]
    return tuple(read_samples(report, results, where, min(most, *images)) for where in wanted)


def _tiles(samples: Samples, run: str, root: Path, stem: str) -> list[str]:
    """Writes one run's tiles into `root`; returns their file names."""
    names = [f"{stem}-{j}.png" for j in range(len(samples.prompts))]
    for name, path in zip(names, samples.tiles[run], strict=True):
        tile(path, _TILE).save(root / name, format="PNG")
    return names
