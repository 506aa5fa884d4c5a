"""Show the settings in which two runs differ, one a line: key, value in A, value in B."""

from __future__ import annotations

import argparse

from addbench.project import load_project, values
from addbench.text import aligned, changes


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`diff RUN_A RUN_B`."""
    command.add_argument("run_a", metavar="RUN_A", help="a run's name, as `list` prints it")
    command.add_argument("run_b", metavar="RUN_B", help="another run's name")


def report(options: argparse.Namespace) -> tuple[str, int]:
    """Only the keys that differ."""
    project = load_project(options.scale)
    first, second = project.run(options.run_a), project.run(options.run_b)
    found = changes(values(first), values(second))
    if not found:
        return f"{first.name} and {second.name} do not differ", 0
    return aligned([("key", first.name, second.name), *found]), 0
