"""A copy of the project, on which tests run the workflow at the smoke scale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.smoke import REPOSITORY

PARTS = ("add", "addbench", "eval", "mini", "reports", "config", "profiles", "systems")
OUTPUTS = (
    "__pycache__",
    "figures",
    "table.pdf",
    "table.csv",
    "table.md",
    "table.tex",
    "ratings.csv",
    "systems.pdf",
    "systems.csv",
    "systems_categories.csv",
    "explorer.html",
    "weights",
)


def copy_project(directory: Path, ablations: tuple[str, ...] | None = None) -> None:
    """Copy what the workflow reads into `directory`, with the ablations of those stems (default: all)."""
    for part in PARTS:
        shutil.copytree(REPOSITORY / part, directory / part, ignore=shutil.ignore_patterns(*OUTPUTS))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, directory)
    (directory / "ablations").mkdir()
    for file in sorted((REPOSITORY / "ablations").glob("*.yaml")):
        if ablations is None or file.stem in ablations:
            shutil.copy(file, directory / "ablations")


def workflow_command(*arguments: str, config: tuple[str, ...] = ()) -> list[str]:
    """Snakemake on the smoke scale, with further `--config` values."""
    return [sys.executable, "-m", "snakemake", *arguments, "--config", "scale=smoke", *config]


def workflow_environment(directory: Path, **more: str) -> dict[str, str]:
    """An environment that imports the copy's own modules and uses one thread."""
    return {**os.environ, "PYTHONPATH": str(directory), "OMP_NUM_THREADS": "1", **more}


def run_workflow(
    directory: Path,
    *arguments: str,
    config: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the copy's workflow to its end and return its output; the caller checks the exit status."""
    return subprocess.run(
        workflow_command(*arguments, config=config),
        cwd=directory,
        env={**workflow_environment(directory), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
