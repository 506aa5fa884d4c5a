"""addbench replication: what it asks the workflow for, what becomes of the results, what it refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import addbench.replication
from addbench.__main__ import main
from eval.findings.store import read_store
from tests.eval.findings.test_store import result
from tests.support.specs import copy_settings


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_settings(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eval.result.hardware", lambda device: {"processor": "CPU 1"})
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The workflow's targets, call by call; its results are made up."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        targets = [part for part in command if part.endswith("result.json")]
        calls.append(targets)
        for target in targets:
            name, seed = Path(target).parts[2:4]
            Path(target).parent.mkdir(parents=True)
            made = result(name, int(seed.removeprefix("seed")), shift=0.001 * len(calls))
            Path(target).write_text(json.dumps(made))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(addbench.replication.subprocess, "run", run)
    return calls


def test_runs_are_made_added_and_their_images_removed(root: Path, asked: list[list[str]]):
    assert main(["replication", "run", "--hours", "1", "--most", "5", "--cores", "1"]) == 0
    assert [len(targets) for targets in asked] == [2, 2, 1]
    assert asked[0][0] == "results/mini/baseline/seed100/result.json"
    assert len(read_store(root / "replication/mini").runs) == 5
    assert not list((root / "results/mini").glob("*/seed*")), "their numbers alone stay"
    assert main(["replication", "run", "--hours", "1", "--most", "1", "--cores", "1", "--keep"]) == 0
    assert len(list((root / "results/mini").glob("*/seed*"))) == 1
    assert len({target for targets in asked for target in targets}) == 6, "no run twice"


def test_no_time_no_run(root: Path, asked: list[list[str]]):
    assert main(["replication", "run", "--hours", "-1"]) == 0
    assert not asked


def test_what_failed_is_said_and_what_finished_is_added(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        target = next(part for part in command if part.endswith("result.json"))
        Path(target).parent.mkdir(parents=True)
        Path(target).write_text(json.dumps(result()))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(addbench.replication.subprocess, "run", run)
    assert main(["replication", "run", "--hours", "1", "--cores", "1"]) == 1
    assert "replication-run.log; 1 of 2 runs were added" in capsys.readouterr().err
    assert len(read_store(root / "replication/mini").runs) == 1


def test_a_folder_of_another_machines_results_is_added_and_what_does_not_match_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    for seed in (100, 101):
        folder = root / f"other/baseline/seed{seed}"
        folder.mkdir(parents=True)
        values = result(seed=seed, processor="CPU 2")
        (folder / "result.json").write_text(
            json.dumps(values if seed == 100 else {**values, "spec_hash": "0" * 12})
        )
    assert main(["replication", "add", str(root / "other")]) == 1
    said = capsys.readouterr().err
    assert "1 added, 1 refused" in said
    assert "seed101/result.json" in said
    assert "is of another spec of baseline" in said
    assert len(read_store(root / "replication/mini").runs) == 1
    assert main(["replication", "add", str(root / "config")]) == 1
    assert "holds no result.json" in capsys.readouterr().err


def test_the_plan_counts_this_processors_seeds_alone(root: Path, capsys: pytest.CaptureFixture[str]):
    file = root / "result.json"
    for processor in ("CPU 1", "CPU 2"):
        file.write_text(json.dumps(result(seed=100, processor=processor)))
        assert main(["replication", "add", str(file)]) == 0
    capsys.readouterr()
    assert main(["replication", "plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "discriminator_features-vit-s-dinov1 seed 100" in lines
    assert "baseline seed 101" in lines
    assert "baseline seed 100" not in lines
