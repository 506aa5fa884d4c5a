"""The subcommand replication: grow the study with many seeds on this machine, or take in another machine's results."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from add.errors import InputError
from addbench.project import RESULTS, Project, load_project

if TYPE_CHECKING:
    from eval.findings.store import ReplicationStore

STORES = Path("replication")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`replication add FILE...`, `replication run --hours H`, `replication plan`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="take in results, of this machine or another").add_argument
    add("files", nargs="+", type=Path, metavar="RESULT", help="a result.json, or a folder that holds some")
    add = actions.add_parser("run", help="train, sample and score where it pays most").add_argument
    add("--hours", type=float, required=True, metavar="H", help="begin no run that would end later")
    add("--most", type=int, metavar="N", help="make at most N runs")
    add("--cores", default="all", metavar="N", help="as of snakemake (default: all)")
    text = "keep students and samples of the runs; otherwise their numbers alone stay"
    add("--keep", action="store_true", help=text)
    actions.add_parser("plan", help="which runs would be made next")


def replication(options: argparse.Namespace) -> tuple[str, int]:
    """Grow the study with many seeds, or add results to it; `make replication` typesets it.

    Raises InputError where results do not match, after the others were added, or the workflow fails.
    """
    project = load_project(options.scale)
    store = STORES / project.scale.name
    if options.action == "add":
        return _add(_result_files(options.files), store, project)
    if options.action == "plan":
        return "\n".join(f"{run} seed {seed}" for run, seed in _jobs(store, project, 20)) or _nothing(), 0
    return _run(options, store, project)


def _nothing() -> str:
    return "Every claim is decided, or out of reach: nothing more is to be run."


def _result_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("result.json")) if path.is_dir() else [path]
        if not found:
            raise InputError(path, "holds no result.json")
        files += found
    return files


def _add(files: Sequence[Path], store: Path, project: Project) -> tuple[str, int]:
    from add.lock import only_writer
    from eval.findings.store import add_results, read_store

    store.mkdir(parents=True, exist_ok=True)
    with only_writer(store):
        added, refused = add_results(files, read_store(store), project.scale, project.table)
    if refused:
        lines = "\n".join(refused)
        raise InputError(f"{len(added)} added, {len(refused)} refused:\n{lines}")
    return "\n".join(f"added {key}" for key in added), 0


def _run(options: argparse.Namespace, store: Path, project: Project) -> tuple[str, int]:
    deadline = time.monotonic() + 3600 * options.hours
    cores = os.cpu_count() or 1 if options.cores == "all" else int(options.cores)
    left, longest, made = options.most if options.most is not None else sys.maxsize, 0.0, 0
    while left > 0 and time.monotonic() + longest <= deadline:
        jobs = _jobs(store, project, min(left, 2 * cores))
        if not jobs:
            return f"{made} runs made. {_nothing()}", 0
        begun = time.monotonic()
        print(f"next: {', '.join(f'{run} seed {seed}' for run, seed in jobs)}", flush=True)
        files = [RESULTS / project.scale.name / run / f"seed{seed}" / "result.json" for run, seed in jobs]
        command = [sys.executable, "-m", "snakemake", "--cores", str(options.cores), *map(str, files)]
        scale = options.scale or project.scale.name
        log = RESULTS / project.scale.name / "logs" / "replication-run.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as said:
            command += ["--config", f"scale={scale}"]
            done = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, check=False)
        finished = [file for file in files if file.is_file()]
        if finished:
            text, _ = _add(finished, store, project)
            print(text, flush=True)
        if done.returncode:
            raise InputError(f"snakemake failed, see {log}; {len(finished)} of {len(jobs)} runs were added")
        if not options.keep:
            for file in finished:
                shutil.rmtree(file.parent)
        made, left = made + len(finished), left - len(finished)
        longest = max(longest, time.monotonic() - begun)
    return f"{made} runs made", 0


def _jobs(store: Path, project: Project, most: int) -> list[tuple[str, int]]:
    """The next runs on this machine."""
    from add.config.load import BASELINE
    from add.identity import spec_hash
    from eval.findings.page import answers
    from eval.findings.plan import next_jobs, wanted_runs
    from eval.findings.store import read_store

    found = read_store(store)
    hashes = {name: spec_hash(run) for name, run in project.table.runs.items()}
    results = found.results(hashes)
    there = {run: each for run, each in results.items() if each}
    prompts = next(name for name, spec in project.scale.sampling.prompts.items() if spec.kind == "coco")
    asked = answers(project.table.findings, there, prompts, growing=True) if there else ()
    counts = {run: len(each) for run, each in results.items()}
    return next_jobs(wanted_runs(BASELINE, counts, asked), _taken(found, project), most)


def _taken(store: ReplicationStore, project: Project) -> dict[str, set[int]]:
    """The seeds that each run has on this machine's processor."""
    from add.device import machine_gpus
    from eval.findings.page import processor_name
    from eval.result import hardware

    gpu = project.scale.training.device != "cpu" and bool(machine_gpus())
    processor = processor_name(hardware("cuda" if gpu else "cpu"))
    taken: dict[str, set[int]] = {}
    for key in store.runs:
        if key.processor == processor:
            taken.setdefault(key.run, set()).add(key.seed)
    return taken
