"""addbench replication: what it asks the workflow for, what becomes of the results, what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import addbench.replication
from add.identity import spec_hash
from addbench.__main__ import main
from addbench.project import load_project
from eval.findings.store import read_store
from tests.eval.findings.test_store import result
from tests.support.specs import ROOT, copy_settings, edit


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_settings(tmp_path)
    (tmp_path / "Snakefile").touch()
    monkeypatch.setattr("addbench.replication.PAUSE", 0.001)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eval.result.hardware", lambda device: {"processor": "CPU 1"})
    return tmp_path


class FakeWorkflow:
    """In place of Snakemake: `make` is called with each target between two looks for results."""

    def __init__(self, make: Callable[[Path], None], targets: list[str]) -> None:
        self.make, self.left, self.code = make, [Path(target) for target in targets], 0

    def poll(self) -> int | None:
        if not self.left:
            return self.code
        self.make(self.left.pop(0))
        return None

    def terminate(self) -> None:
        self.left = []

    def wait(self) -> int:
        return self.code


@dataclass
class Asked:
    """The workflow's targets, call by call; `make` makes up a result."""

    calls: list[list[str]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    make: Callable[[Path], None] = field(default=lambda target: make(target))

    def __call__(self, command: list[str], **_: Any) -> FakeWorkflow:
        targets = [part for part in command if part.endswith("result.json")]
        self.calls.append(targets)
        self.commands.append(command)
        return FakeWorkflow(lambda target: self.make(target), targets)


def make(target: Path, **changes: Any) -> None:
    name, seed = target.parts[-3], int(target.parts[-2].removeprefix("seed"))
    target.parent.mkdir(parents=True, exist_ok=True)
    (target.parent / "student").mkdir(exist_ok=True)
    target.write_text(json.dumps({**result(name, seed, shift=0.0001 * (seed + len(name))), **changes}))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made_up = Asked()
    monkeypatch.setattr(addbench.replication.subprocess, "Popen", made_up)
    return made_up


def run(*more: str, most: int = 5) -> int:
    return main(["replication", "run", "--hours", "1", "--cores", "1", "--most", str(most), *more])


def test_runs_are_made_added_and_their_images_removed(root: Path, asked: Asked):
    assert run() == 0
    assert [len(targets) for targets in asked.calls] == [1, 4], "the first tells how long a run takes"
    assert asked.calls[0][0] == "results/mini/baseline/seed100/result.json"
    assert len(read_store(root / "replication/mini").runs) == 5
    assert not list((root / "results/mini").glob("*/seed*")), "their numbers alone stay"
    assert run("--keep", most=1) == 0
    (kept,) = (root / "results/mini").glob("*/seed*")
    assert {path.name for path in kept.iterdir()} == {"student", "result.json"}
    assert len({target for targets in asked.calls for target in targets}) == 6, "no run twice"


def test_each_result_is_added_when_it_is_there_and_not_at_the_end_of_a_call(root: Path, asked: Asked):
    there: list[int] = []

    def count(target: Path) -> None:
        make(target)
        there.append(len(read_store(root / "replication/mini").runs))

    asked.make = count
    assert run() == 0
    assert there == [0, 1, 2, 3, 4]


def test_somebodys_own_folder_is_neither_used_nor_removed(root: Path, asked: Asked):
    own = root / "results/mini/baseline/seed100"
    (own / "student").mkdir(parents=True)
    assert run() == 0
    assert (own / "student").is_dir()
    assert "results/mini/baseline/seed101/result.json" in asked.calls[0]
    assert [path.name for path in (root / "results/mini/baseline").glob("seed*")] == ["seed100"]


def test_a_run_that_fails_is_named_and_left_out_and_the_others_are_made(
    root: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
):
    def most_of_them(target: Path) -> None:
        if target.parts[-3] != "baseline":
            make(target)
            return
        log = Path(f"results/mini/logs/sample-baseline-{target.parts[-2]}.log")
        log.write_text("not finite")

    asked.make = most_of_them
    assert run(most=8) == 1
    said = capsys.readouterr().err
    assert "7 runs made" in said
    assert "baseline seed 100 failed: see results/mini/logs/sample-baseline-seed100.log" in said
    assert sum("/baseline/" in target for targets in asked.calls for target in targets) == 1
    assert (root / "results/mini/baseline/seed100").is_dir(), "another call goes on with what it left"
    asked.make = make
    assert run(most=1) == 0
    assert asked.calls[-1] == ["results/mini/baseline/seed100/result.json"]


def test_where_nothing_succeeds_it_stops(root: Path, asked: Asked, capsys: pytest.CaptureFixture[str]):
    asked.make = lambda target: None
    assert run(most=100) == 1
    assert len(asked.calls) == 3
    assert "3 failed and none succeeded: stopped" in capsys.readouterr().err


def test_a_result_that_does_not_match_is_a_failure_with_its_reason(
    root: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
):
    asked.make = lambda target: make(target, spec_hash="0" * 12)
    assert run(most=1) == 1
    assert "is of another spec of baseline" in capsys.readouterr().err


def test_what_a_killed_call_left_is_gone_on_with(
    root: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
):
    class KilledError(BaseException):
        pass

    def die_at_the_third(target: Path) -> None:
        if len(read_store(root / "replication/mini").runs) == 2:
            raise KilledError
        make(target)

    asked.make = die_at_the_third
    with pytest.raises(KilledError):
        run()
    assert len(read_store(root / "replication/mini").runs) == 2
    begun = {file.parent for file in Path("results/mini").glob("*/seed*/.replication")}
    assert len(begun) == 4, "one was added and removed, one was added, three are unfinished"
    # One of these ends after its parent was killed.
    unfinished = sorted(folder for folder in begun if not (folder / "result.json").exists())
    make(unfinished[0] / "result.json")
    asked.make, asked.calls = make, []
    assert run(most=2) == 0
    assert sorted(Path(target).parent for targets in asked.calls for target in targets) == unfinished[1:]
    assert len(read_store(root / "replication/mini").runs) == 5
    assert not list((root / "results/mini").glob("*/seed*"))


def test_sigterm_ends_it_after_what_is_finished_is_added(root: Path, asked: Asked):
    def terminated(target: Path) -> None:
        make(target)
        os.kill(os.getpid(), signal.SIGTERM)

    asked.make = terminated
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 128 + signal.SIGTERM
    assert len(read_store(root / "replication/mini").runs) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_it_waits_for_a_living_snakemake(
    root: Path, asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    descriptor = os.open(root / "Snakefile", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)

    def named(file: Path) -> str:
        # Who holds the lock is asked just before the wait begins: only then does it end.
        threading.Timer(0.3, os.close, [descriptor]).start()
        return file.name

    monkeypatch.setattr("addbench.owner._who", named)
    assert run(most=1) == 0
    assert "Snakemake works here already" in capsys.readouterr().err


def test_no_time_no_run(root: Path, asked: Asked):
    assert main(["replication", "run", "--hours", "0"]) == 0
    assert not asked.calls


def test_runs_that_would_end_too_late_are_not_begun(root: Path, asked: Asked):
    def slow(target: Path) -> None:
        values = result(target.parts[-3], int(target.parts[-2].removeprefix("seed")))
        values["provenance"]["train"]["wall_seconds"] = 1000.0
        make(target, provenance=values["provenance"])

    asked.make = slow
    assert run(most=8) == 0  # an hour has room for 3 of 1009 s; made up, they take none, and the hour stays
    assert [len(targets) for targets in asked.calls] == [1, 3, 3, 1]


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


def test_records_that_no_longer_count_are_counted_by_plan_and_add(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    file, scale = root / "result.json", root / "config/mini.yaml"
    file.write_text(json.dumps(result("teacher_steps-2")))
    assert main(["replication", "add", str(file)]) == 0
    assert "do not count" not in capsys.readouterr().out
    text = scale.read_text()
    changed = re.sub(r"(?m)^(  steps: )\d+", r"\g<1>7", text, count=1)
    assert changed != text
    scale.write_text(changed)
    assert main(["replication", "plan"]) == 0
    said = capsys.readouterr().out
    assert "teacher_steps-2 seed 100" in said, "its seed is free again"
    assert said.endswith("1 older record(s) in the store do not count: 1 of another spec.\n")


def test_the_runs_of_another_folder_of_questions_stand_in_the_same_store(
    root: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
):
    (root / "questions").mkdir()
    shutil.copy(root / "ablations/ours/distillation_strength.yaml", root / "questions")
    assert run("--ablations", "questions", most=3) == 0
    made = {Path(target).parts[-3] for targets in asked.calls for target in targets}
    strength = {f"distillation_strength-{row}" for row in ("lambda-0-5", "teacher-without-guidance")}
    assert made == {"baseline", *strength}
    assert all("ablations=questions" in command for command in asked.commands)
    capsys.readouterr()
    assert main(["replication", "plan"]) == 0
    said = capsys.readouterr().out
    assert "baseline seed 101" in said, "the default's run counts in both tables"
    assert said.endswith("2 record(s) in the store are of runs that this table does not have.\n")
    assert main(["--ablations", "questions", "replication", "plan"]) == 0
    said = capsys.readouterr().out
    assert "baseline seed 101" in said
    assert "of runs that this table does not have" not in said


def test_a_folder_with_its_own_baseline_has_a_study_of_its_own(root: Path, asked: Asked):
    """Breaks when its runs take the places of the table's, which are of other values, in the store."""
    assert run(most=1) == 0
    before = {file: file.read_bytes() for file in (root / "replication/mini").rglob("*.json")}
    (root / "own").mkdir()
    edit(root / "ablations/baseline.yaml", "teacher_steps: 1 ", "teacher_steps: 2 ")
    shutil.move(root / "ablations/baseline.yaml", root / "own/baseline.yaml")
    shutil.copy(ROOT / "ablations/baseline.yaml", root / "ablations")
    spec = spec_hash(load_project("mini", Path("own")).run("baseline"))
    asked.make = lambda target: make(target, spec_hash=spec)
    assert run("--ablations", "own", most=1) == 0
    assert Path(asked.calls[-1][0]).parts[:3] == ("results", "mini-own", "baseline")
    assert [file.parts[-2] for file in (root / "replication/mini-own").glob("*/seed*.json")] == ["baseline"]
    assert {file: file.read_bytes() for file in (root / "replication/mini").rglob("*.json")} == before
