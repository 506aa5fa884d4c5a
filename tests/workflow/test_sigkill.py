"""Killed thirty times at random, the smoke table ends in the bits of an unbroken one, by the same command each time."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.workflow import copy_project, run_workflow, workflow_command, workflow_environment

KILLS = 30
# What says how long something took, when, or in which process; the rest is a function of values and seeds.
UNSTABLE = {
    "wall_seconds",
    "setup_seconds",
    "seconds_per_step",
    "seconds",
    "peak_bytes",
    "created",
    "resumed",
}


def contents(directory: Path) -> dict[str, Any]:
    """What the table's stages made, by file: values of JSON, digests of everything else."""
    found: dict[str, Any] = {}
    for pattern in ("*/seed*/student/**/*.safetensors", "*/seed*/samples/**/*.png", "study_samples/**/*.png"):
        for file in sorted((directory / "results/smoke").glob(pattern)):
            found[str(file.relative_to(directory))] = hashlib.sha256(file.read_bytes()).hexdigest()
    for pattern in ("*/seed*/result.json", "reference/reference.json", "ratings/ratings.json"):
        for file in sorted((directory / "results/smoke").glob(pattern)):
            found[str(file.relative_to(directory))] = stable(json.loads(file.read_text()))
    with (directory / "reports/smoke/table.csv").open(newline="") as table:
        found["table.csv"] = [
            {k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(table)
        ]
    return found


def stable(value: Any) -> Any:
    """JSON values without times, floats to 12 digits: FID's last bits depend on the linear algebra's threads."""
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if key not in UNSTABLE}
    if isinstance(value, list):
        return [stable(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def stages_of(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The stages' python processes below a Snakemake."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        if "-m" in command and any(
            part.startswith(("add.", "eval.", "reports.", "mini.")) for part in command
        ):
            found.append(child)
    return found


@pytest.mark.slow
def test_thirty_random_kills_change_no_bit_and_lose_nothing(tmp_path: Path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for directory in (unbroken, broken):
        directory.mkdir()
        copy_project(directory)
    whole = run_workflow(unbroken, "--cores", "2")
    assert whole.returncode == 0, whole.stdout + whole.stderr

    # A person's own files, beside what the workflow makes.
    own = [broken / "results/smoke/preferences/notes.txt", broken / "data/smoke-notes.txt"]
    for file in own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    draw = random.Random(0)
    killed: list[str] = []
    while len(killed) < KILLS:
        process = subprocess.Popen(
            workflow_command("--cores", "2"),
            cwd=broken,
            env=workflow_environment(broken),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + draw.uniform(3, 18)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        stages = stages_of(process) if process.poll() is None else []
        if process.poll() is not None:
            assert process.returncode == 0, "a kill needed more than the same command"
            break
        if stages and draw.random() < 0.5:
            stage = draw.choice(stages)
            try:
                name = next(
                    part
                    for part in stage.cmdline()
                    if part.startswith(("add.", "eval.", "reports.", "mini."))
                )
                stage.send_signal(signal.SIGKILL)
            except (psutil.Error, StopIteration):
                name = "a stage that had just ended"
            killed.append(name)
            process.wait()  # the other jobs go on; it ends by itself
        else:
            process.kill()
            process.wait()
            killed.append("snakemake")
    print(killed, file=sys.stderr)
    last = run_workflow(broken, "--cores", "2")
    assert last.returncode == 0, last.stdout + last.stderr
    assert len(killed) == KILLS, f"the table was whole after {len(killed)} kills"
    assert "Nothing to be done" in run_workflow(broken, "--cores", "2", "--dry-run").stdout
    assert all(file.read_text() == "mine" for file in own)
    expected, found = contents(unbroken), contents(broken)
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if found[name] != value] == []
