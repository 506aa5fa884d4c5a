"""The subcommands that only look: list, show, diff, validate, explain. None of them runs or writes anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from add.config.load import BASELINE, baseline_file, load_ablations, load_baseline, load_run, load_scale
from add.config.resolve import resolve
from add.config.run import Run, Variant
from add.config.types import WITH_NULLS
from add.config.yaml import SpecError, raise_all
from add.identity import deciding_values, spec_hash
from addbench.project import (
    CONFIG,
    Project,
    aligned,
    attempt,
    changes,
    flat,
    is_section,
    load_project,
    project_of,
    scale_path,
    values,
    walk,
    yaml_line,
)
from addbench.workflow import plain
from eval.protocols.spec import load_protocols


def list_cells(options: argparse.Namespace) -> tuple[str, int]:
    """List every cell of the table with the run that fills it, and which cells share a run."""
    project = load_project(options.scale, options.ablations)
    table = project.table
    rows = [("part", "label", "run", "")]
    for cell in table.cells:
        others = [other.part for other in table.cells_of(cell.run) if other is not cell]
        notes = ["default"] if cell.is_default else []
        notes += [f"shared with part {', '.join(dict.fromkeys(others))}"] if others else []
        rows.append((cell.part, cell.label, cell.run, "; ".join(notes)))
    seeds = len(project.scale.training.seeds)
    each = f"{seeds} training seed{'s' * (seeds != 1)} each, at scale {project.scale.name}"
    return f"{aligned(rows)}\n\n{len(table.cells)} cells, {len(table.runs)} runs, {each}", 0


def add_run(command: argparse.ArgumentParser) -> None:
    """`RUN`."""
    command.add_argument("run", metavar="RUN", help="a run's name, as `list` prints it")


def add_run_and_json(command: argparse.ArgumentParser) -> None:
    """`RUN [--json]`."""
    add_run(command)
    text = "as the JSON that `python -m add.train --spec` reads"
    command.add_argument("--json", action="store_true", help=text)


def show(options: argparse.Namespace) -> tuple[str, int]:
    """Show one run fully resolved, as YAML, with the place that each value comes from.

    The YAML reads back as the run; comments say baseline, scale, row or unused, and (default) where the file of a
    baseline or a scale leaves a value to this program.
    """
    project = load_project(options.scale, options.ablations)
    baseline = load_baseline(baseline_file(options.ablations))
    run = project.run(options.run)
    if options.json:
        return plain(run), 0
    cells = project.table.cells_of(run.name)
    lines = [(f"# spec {spec_hash(run)}, scale {project.scale.name}", "")]
    lines += [(f"# part {cell.part}, {cell.label}: {cell.file}:{cell.line}", "") for cell in cells]
    for path, value in walk(run.model_dump(mode="json", context=WITH_NULLS)):
        unused = not value and path[0] == "networks" and len(path) == 2
        source = "unused" if unused else _source(project, baseline, run.name, path)
        lines.append((yaml_line(path, value), "" if is_section(value) else source))
    width = max(len(text) for text, source in lines if source)
    return "\n".join(f"{text.ljust(width)}  # {source}" if source else text for text, source in lines), 0


def _source(project: Project, baseline: Variant, run: str, path: tuple[str, ...]) -> str:
    """Where a run's value comes from; `path` holds its keys in the run's JSON."""
    if path == ("name",):
        return "resolved"
    cell = next(iter(project.table.cells_of(run)), None)
    if cell and run != BASELINE and ".".join(path).removeprefix("variant.") in cell.overrides:
        return f"row {cell.file}:{cell.line}"
    if path[0] == "variant":
        return BASELINE if path[1:] in baseline.origin.lines else f"{BASELINE} (default)"
    return "scale" if path in project.scale.origin.lines else "scale (default)"


def add_two_runs(command: argparse.ArgumentParser) -> None:
    """`RUN_A RUN_B`."""
    command.add_argument("run_a", metavar="RUN_A", help="a run's name, as `list` prints it")
    command.add_argument("run_b", metavar="RUN_B", help="another run's name")


def diff(options: argparse.Namespace) -> tuple[str, int]:
    """Show the settings in which two runs differ, one a line: key, value in A, value in B."""
    project = load_project(options.scale, options.ablations)
    first, second = project.run(options.run_a), project.run(options.run_b)
    found = changes(values(first), values(second))
    if not found:
        return f"{first.name} and {second.name} do not differ", 0
    return aligned([("key", first.name, second.name), *found]), 0


def validate(options: argparse.Namespace) -> tuple[str, int]:
    """Check every YAML file and every combination of them; print all problems at once."""
    problems: list[SpecError] = []

    paths = [scale_path(options.scale)] if options.scale is not None else sorted(CONFIG.glob("*.yaml"))
    if not paths:
        raise SpecError(CONFIG.as_posix(), 1, "holds no scale; run from the repository's root")
    scales = [attempt(SpecError, problems, load_scale, path) for path in paths]
    baseline = attempt(SpecError, problems, load_baseline, baseline_file(options.ablations))
    ablations = attempt(SpecError, problems, load_ablations, options.ablations)
    counts = []
    for scale in scales:
        if scale is not None and baseline is not None and ablations is not None:
            table = attempt(SpecError, problems, resolve, scale, baseline, ablations)
            if table is not None:
                project = attempt(SpecError, problems, project_of, scale, table, options.ablations)
                if project is not None:
                    attempt(SpecError, problems, project.compared)
                counts.append(f"{scale.name}: {len(table.cells)} cells, {len(table.runs)} runs")
    protocols = sorted((CONFIG / "protocols").glob("*.yaml"))
    for path in protocols:
        attempt(SpecError, problems, load_protocols, path)
    raise_all(problems)
    files = len(paths) + 1 + len(ablations or ()) + len(protocols)
    return f"{files} files are valid ({'; '.join(counts)})", 0


def explain(options: argparse.Namespace) -> tuple[str, int]:
    """Say why a run would be trained again: what decides its bits and changed since its results were made.

    For each training seed: it never ran, nothing changed, or each changed setting, network or data set as old -> new.
    """
    from addbench.identity import run_identity

    project = load_project(options.scale, options.ablations)
    run = project.run(options.run)
    now = run_identity(project.scale, run)
    folder = project.results / run.name
    seeds = project.scale.training.seeds
    return "\n".join(line for seed in seeds for line in _changed(folder / f"seed{seed}", run, now)), 0


def _changed(directory: Path, run: Run, now: dict[str, Any]) -> list[str]:
    from addbench.identity import changed_contents, recorded_method

    place = directory.as_posix()
    recorded = directory / "spec.json"
    if not recorded.is_file():
        return [f"{place}: never ran (it holds no spec.json)"]
    spec = _read(recorded)
    try:
        then = deciding_values(load_run(recorded)) | recorded_method(directory)
        found = changes(flat(then), flat(now["values"]))
    except SpecError:  # of another version: it is compared as it stands
        found = changes(flat(spec), values(run))
    lines = [f"  {key}: {old} -> {new}" for key, old, new in [*found, *changed_contents(directory, now)]]
    if lines:
        return [f"{place}: {len(lines)} change{'s' * (len(lines) > 1)}", *lines]
    if not recorded_method(directory):
        return [f"{place}: nothing changed, but training has not finished; it would go on"]
    return [f"{place}: nothing changed"]


def _read(path: Path) -> dict[str, Any]:
    spec, line, reason = None, 1, "holds no settings"
    try:
        spec = json.loads(path.read_text("utf-8"))
    except UnicodeDecodeError:
        reason = "is not UTF-8 text"
    except json.JSONDecodeError as error:
        line, reason = error.lineno, f"is not JSON ({error.msg})"
    if not isinstance(spec, dict):
        raise SpecError(path.as_posix(), line, f"{reason}; delete it to train the run again")
    return spec
