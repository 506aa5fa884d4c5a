"""What the explorer shows of a report: every row of the table, and every system of the comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.image_scores import scores_file
from eval.images import samples_directory
from eval.result import seed_directory
from reports import layout
from reports.cells import Estimate, Report, Slice, in_order
from reports.explorer.entries import EntryFinding, ExplorerEntry, TableCell
from reports.explorer.page import view_fragment
from reports.systems import SystemRow

PAGE = "./explorer.html"
"""Beside the document. Without "." before it, viewers take an address whose labels have dots for one of the web."""
SYSTEMS = "systems"
"""The group of the comparison."""


def listed(report: Report, systems: Sequence[SystemRow], results: Path) -> tuple[ExplorerEntry, ...]:
    """One entry for each row, number of steps and prompt set, at the first training seed; then those of the systems.

    A row has the first finding of its sub-table that it decides, or is one of.
    """
    return (*_of_table(report, results), *_of_systems(report, systems))


def name_of_row(report: Report, run: str) -> str:
    """A row's name in the explorer."""
    return layout.plain_label(report.study.name_of(run, full=True))


def link_to_cell(report: Report, run: str, where: Slice) -> str:
    """The address of a cell's images, beside a document that lies beside explorer.html: of the row and the default."""
    default = next((other for other in report.study.runs if report.study.is_default(other)), run)
    names = [name_of_row(report, each) for each in dict.fromkeys((default, run))]
    return PAGE + view_fragment([(name, where.steps) for name in names], where.prompts)


def link_to_system(row: SystemRow, prompts: str) -> str:
    """The same of a system of the comparison; empty where it has no images of the set."""
    if prompts not in row.system.samples or prompts not in row.estimates:
        return ""
    return PAGE + view_fragment([(row.system.name, row.system.steps)], prompts)


def _of_table(report: Report, results: Path) -> Iterator[ExplorerEntry]:
    seed = report.study.seeds[0]
    for row in report.study.rows:
        folder = seed_directory(results, row.run, seed)
        for where in report.slices:
            measured = report.measurements[row.run, where]
            yield ExplorerEntry(
                system=name_of_row(report, row.run),
                steps=where.steps,
                prompts=where.prompts,
                samples=samples_directory(folder, where.prompts, where.steps).as_posix(),
                scores=_scores(folder, where.prompts, where.steps),
                group=f"({row.part}) {row.question}",
                cells=_cells(measured.metrics, measured.images),
                finding=_finding(report, row.run, where.steps, where.prompts, row.part),
            )


def _of_systems(report: Report, systems: Sequence[SystemRow]) -> Iterator[ExplorerEntry]:
    for row in systems:
        for prompts, samples in row.system.samples.items():
            if prompts not in row.estimates:
                continue
            folder = Path(samples).parent.parent
            yield ExplorerEntry(
                system=row.system.name,
                steps=row.system.steps,
                prompts=prompts,
                samples=samples,
                scores=_scores(folder, prompts, row.system.steps),
                group=SYSTEMS,
                cells=_cells(row.estimates[prompts], row.images[prompts]),
                finding=_finding(report, row.system.label, None, prompts, "systems"),
            )


def _scores(folder: Path, prompts: str, steps: int) -> str | None:
    """The scores of single images, which older results lack."""
    file = scores_file(folder, prompts, steps)
    return file.as_posix() if file.is_file() else None


def _cells(estimates: Mapping[str, Estimate], images: int) -> list[TableCell]:
    """FID with its number of images: it falls with more of them, and systems are compared on fewer than rows."""
    cells = []
    for metric in in_order(set(estimates)):
        (shown,) = layout.measured_cells([estimates[metric]], metric)
        count = f", {images:,} images" if metric == "fid" else ""
        cells.append(TableCell(metric=metric, text=f"{shown.value} {shown.spread}".strip() + count))
    return cells


def _finding(report: Report, row: str, steps: int | None, prompts: str, part: str) -> EntryFinding | None:
    """The first finding of a part that a row is of. steps: None for a system, whose name says them."""
    if prompts != report.first.prompts:
        return None
    for answer in report.answers:
        finding = answer.finding
        if (finding.part, finding.steps) == (part, steps) and row in (*finding.rows, *finding.others):
            return EntryFinding(claim=finding.claim, verdict=answer.verdict)
    return None
