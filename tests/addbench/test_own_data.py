"""A scale over data that is already there: no job makes it, and what is missing is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mini.dataset import write_dataset
from tests.support.smoke import REPOSITORY


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what planning needs, with a scale whose `data.build` is null."""
    for part in ("add", "addbench", "eval", "reports", "config", "profiles", "ablations", "systems"):
        shutil.copytree(REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", tmp_path)
    shutil.copy(REPOSITORY / "environment.yml", tmp_path)
    text = (REPOSITORY / "config" / "smoke.yaml").read_text(encoding="utf-8")
    assert "build: mini.smoke" in text
    (tmp_path / "config" / "own.yaml").write_text(
        text.replace("build: mini.smoke", "build: null").replace("name: smoke", "name: own"), encoding="utf-8"
    )
    return tmp_path


def plan(project: Path) -> subprocess.CompletedProcess[str]:
    """A dry run of one train job."""
    target = "results/own/baseline/seed0/train/train.json"
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--dry-run",
        "--cores",
        "1",
        target,
        "--config",
        "scale=own",
    ]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_data_that_is_there_is_not_made(project: Path) -> None:
    write_dataset(project / "data" / "smoke", train=2, val=8, reference=8, prompts=12)
    result = plan(project)
    assert result.returncode == 0, result.stderr
    assert "rule train" in result.stdout + result.stderr
    assert "rule data" not in result.stdout + result.stderr


def test_data_that_is_missing_is_named(project: Path) -> None:
    # A job that runs `python -m None` would fail with a message about neither data nor scale.
    result = plan(project)
    assert result.returncode != 0
    for missing in ("annotations/captions_train.json", "annotations/captions_val.json", "PartiPrompts.tsv"):
        assert f"data/smoke/{missing}: no such file or directory" in result.stdout + result.stderr


def test_training_data_with_a_fault_stop_the_plan(project: Path) -> None:
    write_dataset(project / "data" / "smoke", train=2, val=8, reference=8, prompts=12)
    (project / "data/smoke/train/000000000002.png").unlink()
    result = plan(project)
    assert result.returncode != 0
    assert "1 of 2 images are missing, the first is 000000000002.png" in result.stdout + result.stderr
