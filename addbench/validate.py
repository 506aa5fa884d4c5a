"""Check every YAML file and every combination of them; print all problems at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from add.config.load import BASELINE, load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.config.yaml import SpecError, raise_all
from addbench.project import ABLATIONS, CONFIG, RESULTS, scale_path
from addbench.study import study_plan
from eval.protocols.spec import load_protocols

_LOADED = TypeVar("_LOADED")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`validate` takes none."""


def report(options: argparse.Namespace) -> tuple[str, int]:
    """A line that says what was checked. Raises SpecError with every problem of every file."""
    problems: list[SpecError] = []

    def attempt(action: Callable[[], _LOADED]) -> _LOADED | None:
        try:
            return action()
        except SpecError as error:
            problems.append(error)
            return None

    paths = [scale_path(options.scale)] if options.scale else sorted(CONFIG.glob("*.yaml"))
    if not paths:
        raise SpecError(CONFIG.as_posix(), 1, "holds no scale; run from the repository's root")
    scales = [attempt(lambda path=path: load_scale(path)) for path in paths]  # type: ignore[misc]
    baseline = attempt(lambda: load_baseline(ABLATIONS / f"{BASELINE}.yaml"))
    ablations = attempt(lambda: load_ablations(ABLATIONS))
    counts = []
    for scale in scales:
        if scale is not None and baseline is not None and ablations is not None:
            table = attempt(lambda scale=scale: resolve(scale, baseline, ablations))  # type: ignore[misc]
            if table is not None:
                attempt(lambda scale=scale, table=table: study_plan(scale, table, RESULTS.as_posix()))  # type: ignore[misc]
                counts.append(f"{scale.name}: {len(table.cells)} cells, {len(table.runs)} runs")
    protocols = sorted((CONFIG / "protocols").glob("*.yaml"))
    for path in protocols:
        attempt(lambda path=path: load_protocols(path))  # type: ignore[misc]
    raise_all(problems)
    files = len(paths) + 1 + len(ablations or ()) + len(protocols)
    return f"{files} files are valid ({'; '.join(counts)})", 0
