"""Say why a run would be trained again: the settings that changed since its results were made."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from add.config.yaml import SpecError
from addbench.project import RESULTS, flat, load_project, values
from addbench.text import changes


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`explain RUN`."""
    command.add_argument("run", metavar="RUN", help="a run's name, as `list` prints it")


def report(options: argparse.Namespace) -> tuple[str, int]:
    """For each training seed: never ran, nothing changed, or each changed key as old -> new."""
    project = load_project(options.scale)
    run = project.run(options.run)
    lines = []
    for seed in project.scale.training.seeds:
        directory = RESULTS / project.scale.name / run.name / f"seed{seed}"
        lines += _seed_lines(directory, values(run))
    return "\n".join(lines), 0


def _seed_lines(directory: Path, now: dict[str, Any]) -> list[str]:
    place = directory.as_posix()
    recorded = directory / "spec.json"
    if not recorded.is_file():
        return [f"{place}: never ran (it holds no spec.json)"]
    found = changes(flat(_read(recorded)), now)
    if found:
        settings = "1 setting" if len(found) == 1 else f"{len(found)} settings"
        return [f"{place}: {settings} changed", *(f"  {key}: {old} -> {new}" for key, old, new in found)]
    if not (directory / "train" / "train.json").is_file():
        return [f"{place}: nothing changed, but training has not finished; it would go on"]
    return [f"{place}: nothing changed"]


def _read(path: Path) -> dict[str, Any]:
    try:
        spec = json.loads(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise SpecError(path.as_posix(), 1, "is not UTF-8 text; delete it to train the run again") from error
    except json.JSONDecodeError as error:
        message = f"is not JSON ({error.msg}); delete it to train the run again"
        raise SpecError(path.as_posix(), error.lineno, message) from error
    if not isinstance(spec, dict):
        raise SpecError(path.as_posix(), 1, "holds no settings; delete it to train the run again")
    return spec
