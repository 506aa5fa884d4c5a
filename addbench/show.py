"""Show one run fully resolved, as YAML, with the place that each value comes from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from add.config.load import BASELINE
from add.config.resolve import spec_hash
from addbench.project import Project, load_project
from addbench.text import scalar
from addbench.workflow import plain


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`show RUN [--json]`."""
    command.add_argument("run", metavar="RUN", help="a run's name, as `list` prints it")
    command.add_argument(
        "--json", action="store_true", help="as the JSON that `python -m add.train --spec` reads"
    )


def report(options: argparse.Namespace) -> tuple[str, int]:
    """YAML that reads back as the run; comments say baseline, scale, scale (default), row or unused. Or its JSON."""
    project = load_project(options.scale)
    run = project.run(options.run)
    if options.json:
        return plain(run), 0
    cells = project.table.cells_of(run.name)
    lines = [(f"# spec {spec_hash(run)}, scale {project.scale.name}", "")]
    lines += [(f"# part {cell.part}, {cell.label}: {cell.file}:{cell.line}", "") for cell in cells]
    lines += _lines(run.model_dump(mode="json"), (), project, run.name)
    width = max(len(text) for text, source in lines if source)
    return "\n".join(f"{text.ljust(width)}  # {source}" if source else text for text, source in lines), 0


def source(project: Project, run: str, key: str) -> str:
    """Where a run's value comes from; `key` as in the run's JSON, dotted."""
    if key == "name":
        return "resolved"
    cell = next(iter(project.table.cells_of(run)), None)
    if cell and run != BASELINE and key.removeprefix("variant.") in cell.overrides:
        return f"row {cell.file}:{cell.line}"
    if key.startswith("variant."):
        return BASELINE
    stated = tuple(key.split(".")) in project.scale.origin.lines
    return "scale" if stated else "scale (default)"


def _lines(
    node: Mapping[str, Any], path: tuple[str, ...], project: Project, run: str
) -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        here = (*path, key)
        indented = "  " * len(path) + f"{key}:"
        if isinstance(value, Mapping) and value:
            yield indented, ""
            yield from _lines(value, here, project, run)
        else:
            unused = not value and here[0] == "networks" and len(here) == 2
            yield f"{indented} {scalar(value)}", "unused" if unused else source(project, run, ".".join(here))
