"""Killed thirty times at random, the smoke table ends in the bits of an unbroken one, by the same command each time."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.workflow import copy_project, run_workflow, workflow_command, workflow_environment

KILLS = 30


def contents(directory: Path) -> dict[str, Any]:
    """What the table's stages made, by file: values of JSON, digests of everything else."""
    found: dict[str, Any] = {}
    for pattern in ("*/seed*/student/**/*.safetensors", "*/seed*/samples/**/*.png", "systems/**/*.png"):
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
        return {key: stable(item) for key, item in value.items() if "seconds" not in key}
    if isinstance(value, list):
        return [stable(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def stages_of(process: subprocess.Popen[str]) -> list[tuple[str, psutil.Process]]:
    """(module, process) of the stages that run below a Snakemake."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            command = child.cmdline()
            if "-m" in command[:3]:
                found.append((command[command.index("-m") + 1], child))
    return found


@pytest.mark.slow
def test_thirty_random_kills_change_no_bit_and_lose_nothing(tmp_path: Path):
    unbroken = tmp_path / "unbroken"
    unbroken.mkdir()
    copy_project(unbroken)
    whole = run_workflow(unbroken, "--cores", "2")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    expected = contents(unbroken)
    draw = random.Random(0)
    killed: list[str] = []
    while len(killed) < KILLS:
        broken = tmp_path / f"broken-{len(killed)}"
        broken.mkdir()
        copy_project(broken)
        # A person's own files, beside what the workflow makes.
        own = [broken / "results/smoke/preferences/README.md", broken / "data/smoke-notes.txt"]
        for file in own:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("mine")
        while len(killed) < KILLS and (name := killed_once(broken, draw)):
            killed.append(name)
        last = run_workflow(broken, "--cores", "2")
        assert last.returncode == 0, last.stdout + last.stderr
        assert "Nothing to be done" in run_workflow(broken, "--cores", "2", "--dry-run").stdout
        assert all(file.read_text() == "mine" for file in own)
        found = contents(broken)
        assert expected.keys() == found.keys()
        assert [name for name, value in expected.items() if found[name] != value] == []
    print(Counter(killed), file=sys.stderr)
    assert {"snakemake", "add.train"} <= set(killed)


def killed_once(directory: Path, draw: random.Random) -> str | None:
    """Start the workflow, kill it or one of its stages some seconds later, and say which; None where it had ended."""
    process = subprocess.Popen(
        workflow_command("--cores", "2"),
        cwd=directory,
        env=workflow_environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    reader.start()
    until = time.monotonic() + draw.uniform(4, 14)
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    if process.poll() is not None:
        assert process.returncode == 0, "a kill needed more than the same command: " + "".join(said)
        return None
    stages = stages_of(process)
    if not stages or draw.random() < 0.5:
        process.kill()
        process.wait()
        return "snakemake"
    name, stage = draw.choice(stages)
    with suppress(psutil.NoSuchProcess):
        stage.send_signal(signal.SIGKILL)
    process.wait()  # other jobs go on; it ends by itself
    return name
