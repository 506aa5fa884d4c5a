"""One writer at a time: a lock that dies with its process, and a second writer that waits and destroys nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from add.lock import only_writer
from tests.support.smoke import REPOSITORY

HOLD = """\
import sys, time
from pathlib import Path
from add.lock import only_writer
with only_writer(Path(sys.argv[1])) as waited:
    print("waited" if waited else "at once", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def holding(target: Path, seconds: float = 600) -> subprocess.Popen[str]:
    return start(["-c", HOLD, str(target), str(seconds)])


def line(process: subprocess.Popen[str], stream: str = "stdout") -> str:
    pipe = getattr(process, stream)
    return str(pipe.readline())


def test_the_second_writer_says_who_holds_the_directory_and_goes_on_when_that_process_dies(tmp_path: Path):
    target = tmp_path / "seed0"
    first = holding(target)
    assert line(first) == "at once\n"
    second = holding(target, 0)
    said = line(second, "stderr")
    assert str(target) in said
    assert f"process {first.pid} on {socket.gethostname()}" in said
    assert f"kill {first.pid}" in said
    assert f"rm {tmp_path / '.seed0.lock'}" in said
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    assert line(second) == "waited\n"
    assert second.wait(20) == 0
    first.wait()


def test_a_writer_that_ends_or_fails_leaves_neither_lock_nor_file(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path / "samples"):
        raise ZeroDivisionError
    with only_writer(tmp_path / "samples") as waited:
        assert not waited
    assert list(tmp_path.iterdir()) == []


def test_one_who_waits_for_a_machine_that_is_gone_goes_on_without_its_file(tmp_path: Path):
    first = holding(tmp_path / "seed0")
    line(first)
    second = holding(tmp_path / "seed0", 0)
    line(second, "stderr")
    (tmp_path / ".seed0.lock").unlink()
    assert line(second) == "waited\n"
    assert second.wait(20) == 0
    first.kill()
    first.wait()


def test_a_data_set_that_is_being_made_is_not_made_by_a_second_process_at_the_same_time(tmp_path: Path):
    first = holding(tmp_path / "mini")
    line(first)
    counts = ("--train", "1", "--val", "1", "--reference", "1", "--prompts", "1")
    second = start(["-m", "mini.dataset", "--out", str(tmp_path / "mini"), *counts])
    assert f"kill {first.pid}" in line(second, "stderr")
    time.sleep(0.5)
    assert not (tmp_path / "mini").exists()
    assert not (tmp_path / ".mini.partial").exists()
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait(60) == 0
    assert (tmp_path / "mini" / "dataset.json").is_file()
    first.wait()
