"""List every cell of the table with the run that fills it, and which cells share a run."""

from __future__ import annotations

import argparse

from addbench.project import load_project
from addbench.text import aligned


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`list` takes none."""


def report(options: argparse.Namespace) -> tuple[str, int]:
    """The cells, one a line, under a header, and the counts below."""
    project = load_project(options.scale)
    table = project.table
    rows = [("part", "label", "run", "")]
    for cell in table.cells:
        others = [other.part for other in table.cells_of(cell.run) if other is not cell]
        notes = ["default"] if cell.is_default else []
        notes += [f"shared with part {', '.join(dict.fromkeys(others))}"] if others else []
        rows.append((cell.part, cell.label, cell.run, "; ".join(notes)))
    seeds = len(project.scale.training.seeds)
    counts = (
        f"{len(table.cells)} cells, {len(table.runs)} runs, {seeds} training seed{'s' * (seeds != 1)} each"
    )
    return f"{aligned(rows)}\n\n{counts}, at scale {project.scale.name}", 0
