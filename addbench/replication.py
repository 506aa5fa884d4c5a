"""The subcommand replication: grow the study with many seeds on this machine, or take in another machine's results."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from add.errors import InputError, amount, at_least
from addbench.project import Project, load_project, project_options

if TYPE_CHECKING:
    from eval.findings.store import CountedRuns
    from eval.result import Result

STORES = Path("replication")
SNAKEFILE = Path("Snakefile")
MARK = ".replication"
"""A file in the folder of a run that this program began: it may go on with it, and remove it."""
RUNS_A_CALL = 8
"""Runs that one call of the workflow makes for each one at a time; then the plan is looked at again."""
BARREN = 3
"""So many runs, each of another row, fail before one succeeds: then it is the workflow, and not the runs."""
PAUSE = 1.0
"""Seconds between two looks for results."""

_Job = tuple[str, int]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`replication add FILE...`, `replication run --hours H`, `replication plan`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    shared = [project_options()]
    text = "take in results, of this machine or another"
    add = actions.add_parser("add", help=text, parents=shared).add_argument
    add("files", nargs="+", type=Path, metavar="RESULT", help="a result.json, or a folder that holds some")
    text = "train, sample and score where it pays most"
    add = actions.add_parser("run", help=text, parents=shared).add_argument
    add("--hours", type=amount, required=True, metavar="H", help="begin no run that would end later")
    add("--most", type=at_least(0), metavar="N", help="begin at most N runs")
    add("--cores", type=_cores, default="all", metavar="N", help="as of snakemake (default: all)")
    text = "keep students and samples of the runs; otherwise their numbers alone stay"
    add("--keep", action="store_true", help=text)
    actions.add_parser("plan", help="which runs would be made next", parents=shared)


def _cores(text: str) -> int | str:
    return text if text == "all" else at_least(1)(text)


def replication(options: argparse.Namespace) -> tuple[str, int]:
    """Grow the study with many seeds, or add results to it; `make replication` typesets it.

    Raises InputError where results do not match, after the others were added, or where runs failed, after the others
    were made.
    """
    from add.lock import only_writer

    project = load_project(options.scale, options.ablations)
    growing = _GrowingStudy(project, STORES / project.results.name, project.results)
    if options.action == "add":
        return growing.add(_result_files(options.files)), 0
    if options.action == "plan":
        lines = [f"{run} seed {seed}" for run, seed in growing.jobs(20, ())] or [_NOTHING]
        return "\n".join(filter(None, [*lines, growing.counted().left_out_text])), 0
    with only_writer(growing.results / "replication-run"), _ended_by_sigterm():
        return _run(options, growing), 0


_NOTHING = "Every claim is decided, or out of reach: nothing more is to be run."


def _result_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("result.json")) if path.is_dir() else [path]
        if not found:
            raise InputError(path, "holds no result.json")
        files += found
    return files


@dataclass(frozen=True)
class _GrowingStudy:
    """A scale's table, the store of its study, and the folder of its runs on this machine."""

    project: Project
    store: Path
    results: Path

    def counted(self) -> CountedRuns:
        """What the store holds of the present table."""
        from eval.findings.present import present_study
        from eval.findings.store import read_store

        return read_store(self.store).counted(present_study(self.project.scale, self.project.table))

    def add(self, files: Sequence[Path]) -> str:
        """Take results in; a line for each, and one on the records that do not count. Raises InputError."""
        from add.lock import only_writer
        from eval.findings.present import present_study
        from eval.findings.store import add_results, read_store

        self.store.mkdir(parents=True, exist_ok=True)
        with only_writer(self.store):
            study = present_study(self.project.scale, self.project.table)
            added, refused = add_results(files, read_store(self.store), study)
        if refused:
            lines = "\n".join(refused)
            raise InputError(f"{len(added)} added, {len(refused)} refused:\n{lines}")
        lines = "\n".join(f"added {key}" for key in added)
        return "\n".join(filter(None, [lines, self.counted().left_out_text]))

    def folder(self, job: _Job) -> Path:
        """Where a run lies on this machine."""
        from eval.result import seed_directory

        return seed_directory(self.results, *job)

    def jobs(self, most: int, without: Collection[str]) -> list[_Job]:
        """The next runs on this machine, at most so many, without those of some rows."""
        from add.config.load import BASELINE
        from eval.findings.page import answers
        from eval.findings.plan import next_jobs, wanted_runs

        counted = self.counted()
        prompts = next(
            name for name, spec in self.project.scale.sampling.prompts.items() if spec.kind == "coco"
        )
        there = counted.there
        asked = answers(self.project.table.findings, there, prompts, growing=True) if there else ()
        counts = {run: len(found) for run, found in counted.results.items()}
        wanted = [run for run in wanted_runs(BASELINE, counts, asked) if run not in without]
        return next_jobs(wanted, self._taken(counted), most)

    def _taken(self, counted: CountedRuns) -> dict[str, set[int]]:
        """The seeds of each run that the store has, of any processor, or that somebody has on this machine."""
        taken = {run: {r.seed for r in found} for run, found in counted.results.items()}
        for run, seeds in taken.items():
            for folder in (self.results / run).glob("seed*/"):
                number = folder.name.removeprefix("seed")
                if number.isdigit() and not (folder / MARK).exists():
                    seeds.add(int(number))
        return taken

    def _processor(self) -> str:
        from eval.findings.measured import processor_name
        from eval.result import hardware

        return processor_name(hardware("cuda" if self.uses_gpu else "cpu"))

    @property
    def uses_gpu(self) -> bool:
        """Whether the runs here do."""
        from addbench.workflow import gpu_jobs

        return bool(gpu_jobs(None, self.project.scale))

    def known_seconds(self) -> float:
        """The longest run on this processor so far; 0 where there is none."""
        here = _here(self.counted(), self._processor())
        return max((_seconds(result) for found in here.values() for result in found), default=0.0)


def _here(counted: CountedRuns, processor: str) -> dict[str, list[Result]]:
    from eval.findings.measured import processor_of

    return {
        run: [result for result in found if processor_of(result) == processor]
        for run, found in counted.results.items()
    }


def _seconds(result: Result) -> float:
    """What a run took: training, sampling, scoring."""
    source = result.provenance
    sampling = source.sample_seconds if isinstance(source.sample_seconds, dict) else {}
    parts = [source.train.get("wall_seconds"), *sampling.values(), source.score_seconds]
    return sum(part for part in parts if part)


@dataclass
class _Made:
    """What became of the runs so far. longest: seconds that the longest one took. failed: by run, what is to be said.

    barren: how many failed since one succeeded.
    """

    longest: float
    begun: int = 0
    added: list[_Job] = field(default_factory=list)
    failed: dict[_Job, str] = field(default_factory=dict)
    barren: int = 0


def _run(options: argparse.Namespace, growing: _GrowingStudy) -> str:
    from addbench.owner import wait_until_free

    deadline = time.monotonic() + 3600 * options.hours
    wait_until_free(SNAKEFILE)
    _take_up(growing, options.keep)
    cores = os.cpu_count() or 1 if options.cores == "all" else options.cores
    at_once = 1 if growing.uses_gpu else max(1, cores // growing.project.scale.training.threads)
    made, end = _Made(growing.known_seconds()), ""
    while (left := deadline - time.monotonic()) > 0:
        # Nothing known of a run's time: one each, and then it is known.
        waves = min(RUNS_A_CALL, int(left / made.longest)) if made.longest else 1
        most = at_once * waves if options.most is None else min(at_once * waves, options.most - made.begun)
        if most <= 0:
            break
        wait_until_free(SNAKEFILE)
        if not (jobs := growing.jobs(most, {run for run, _ in made.failed})):
            end = _NOTHING if not made.failed else ""
            break
        _make(jobs, made, growing, options)
        if made.barren >= BARREN:
            end = f"{made.barren} failed and none succeeded: stopped."
            break
    said = f"{len(made.added)} runs made. {end}".rstrip()
    if made.failed:
        raise InputError(f"{said}\n" + "\n".join(made.failed.values()))
    return "\n".join(filter(None, [said, growing.counted().left_out_text]))


def _make(jobs: Sequence[_Job], made: _Made, growing: _GrowingStudy, options: argparse.Namespace) -> None:
    """Make these runs by one call of the workflow; each result is added as soon as it is there."""
    print(f"next: {', '.join(f'{run} seed {seed}' for run, seed in jobs)}", flush=True)
    for job in jobs:
        growing.folder(job).mkdir(parents=True, exist_ok=True)
        (growing.folder(job) / MARK).touch()
    made.begun += len(jobs)
    waiting = {job: _Awaited(growing.folder(job) / "result.json") for job in jobs}
    log = growing.results / "logs" / "replication-run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--cores", str(options.cores)]
    command += [str(each.file) for each in waiting.values()]
    # A run's samples and scores before the next training: a kill then costs the runs in flight alone.
    command += ["--config", f"scale={options.scale or growing.project.scale.name}"]
    command += [f"ablations={growing.project.ablations}", "whole_runs_first=1"]
    with log.open("a", encoding="utf-8") as said:
        workflow = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            while workflow.poll() is None:
                _add_finished(waiting, made, growing)
                time.sleep(PAUSE)
        except BaseException:  # SIGTERM, or an interrupt from the keyboard: what runs may end
            workflow.terminate()
            workflow.wait()
            raise
        finally:
            _add_finished(waiting, made, growing, last=True)
    for job, awaited in waiting.items():
        if not awaited.added:
            made.failed[job] = (
                f"{job[0]} seed {job[1]} failed: {awaited.refused or _last_log(job, growing, log)}"
            )
            print(made.failed[job], file=sys.stderr, flush=True)
        else:
            _let_go(growing.folder(job), options.keep)
    succeeded = [job for job, awaited in waiting.items() if awaited.added]
    made.barren = 0 if succeeded else made.barren + len({run for run, _ in jobs})


@dataclass
class _Awaited:
    """A result that the workflow makes. refused: why the store did not take it. seen: its time when it was tried."""

    file: Path
    added: bool = False
    refused: str | None = None
    seen: int | None = None


def _add_finished(
    waiting: dict[_Job, _Awaited], made: _Made, growing: _GrowingStudy, last: bool = False
) -> None:
    """Add the results that are there. One that is refused may be of before, and is tried again once it is new."""
    from eval.result import read_result

    for job, awaited in waiting.items():
        if awaited.added or not awaited.file.is_file():
            continue
        if (time_of := awaited.file.stat().st_mtime_ns) == awaited.seen and not last:
            continue
        awaited.seen = time_of
        try:
            print(growing.add([awaited.file]), flush=True)
        except InputError as error:
            awaited.refused = str(error)
            continue
        awaited.added = True
        made.added.append(job)
        made.longest = max(made.longest, _seconds(read_result(awaited.file)))


def _take_up(growing: _GrowingStudy, keep: bool) -> None:
    """Add what a call that was killed left finished; what it left unfinished is gone on with when it is wanted."""
    from eval.findings.store import holds, read_store
    from eval.result import read_result

    for mark in sorted(growing.results.glob(f"*/seed*/{MARK}")):
        file = mark.with_name("result.json")
        if not file.is_file():
            continue
        try:
            if not holds(read_store(growing.store), read_result(file)):
                print(growing.add([file]), flush=True)
        except InputError as error:
            print(f"{error}\nIt is made again when it is wanted.", file=sys.stderr, flush=True)
        else:
            _let_go(mark.parent, keep)


def _let_go(folder: Path, keep: bool) -> None:
    """Remove a run that is in the store, or leave it to whoever wants to keep it."""
    if keep:
        (folder / MARK).unlink()
    else:
        shutil.rmtree(folder)


def _last_log(job: _Job, growing: _GrowingStudy, log: Path) -> str:
    """Where it stands why a run failed."""
    logs = (growing.results / "logs").glob(f"*-{job[0]}-seed{job[1]}.log")
    return f"see {max(logs, key=lambda file: file.stat().st_mtime_ns, default=log)}"


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that what is finished is still added."""

    def end(number: int, _: FrameType | None) -> Any:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
