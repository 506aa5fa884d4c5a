"""A lock that a killed Snakemake left is removed, and one whose owner lives is not."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from addbench.owner import LOCKS, OWNER
from tests.support.smoke import REPOSITORY

OWN = """\
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from addbench.owner import LOCKS, free_dead_lock, note_owner
free_dead_lock(Path("Snakefile"))
if sys.argv[2] == "own":
    LOCKS.mkdir(parents=True)
    (LOCKS / "0.output.lock").write_text("a")
    note_owner()
    print("locked", flush=True)
    time.sleep(600)
"""


def snakemake(directory: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWN, str(REPOSITORY), what],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def owner(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "Snakefile").touch()
    process = snakemake(tmp_path, "own")
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_lock_of_a_living_snakemake_stays_and_its_process_is_named(
    tmp_path: Path, owner: subprocess.Popen[str]
):
    _, said = snakemake(tmp_path, "look").communicate()
    assert f"process {owner.pid} on {socket.gethostname()}" in said
    assert f"kill {owner.pid}" in said
    assert (tmp_path / LOCKS).is_dir()
    owner.kill()
    owner.wait()


def test_the_lock_of_a_killed_snakemake_is_removed(tmp_path: Path, owner: subprocess.Popen[str]):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, said = snakemake(tmp_path, "look").communicate()
    assert f"process {owner.pid}, is dead" in said
    assert not (tmp_path / LOCKS).exists()


def test_a_lock_that_another_machine_took_stays(tmp_path: Path, owner: subprocess.Popen[str]):
    owner.kill()
    owner.wait()
    (tmp_path / OWNER).write_text(f"{owner.pid} another-machine\n")
    assert snakemake(tmp_path, "look").communicate() == ("", "")
    assert (tmp_path / LOCKS).is_dir()
