"""The cluster profile: what its jobs ask for, and the smoke table through a real SLURM that fails in the middle."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.local_slurm import LocalSlurm, missing_programs, wait_for
from tests.support.workflow import copy_project, run_workflow, workflow_command, workflow_environment

needs_slurm = pytest.mark.skipif(
    bool(missing_programs()), reason=f"SLURM is not installed: no {', '.join(missing_programs())}"
)
# This SLURM has no accounting database, so the plugin has to ask the controller; it looks often, as jobs are short.
LOCAL = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5")
PATIENCE = 3 * 3600.0
"""Seconds for anything that is waited for; a busy machine takes long."""
GPU_RULES = {
    "reference",
    "train",
    "sample",
    "score",
    "timing",
    "system_samples",
    "system_score",
    "train_rival",
    "automatic",
}
CPU_RULES = {"data", "study", "ratings", "report", "system_images", "system_statistics", "systems"}
LOCAL_RULES = {"all", "compared", "latest", "latest_systems"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("profile")
    copy_project(directory, ablations=("baseline", "teacher_steps"))
    (directory / "handed_in").mkdir()
    (directory / "systems/smoke/other.yaml").write_text(
        "label: Other\nimages: {parti: handed_in}\nsteps: [1]\n"
    )
    (directory / "handed_in.npz").touch()
    (directory / "systems/smoke/statistics.yaml").write_text(
        "label: Statistics\nstatistics: {coco: handed_in.npz}\ncount: 8\nsteps: [1]\n"
    )
    return directory


def asked(project: Path, *arguments: str, config: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """What the first job of every rule would ask for, by a dry run."""
    result = run_workflow(project, *arguments, "--dry-run", config=config)
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    jobs: dict[str, dict[str, str]] = {}
    for block in re.split(r"\n(?=rule |localrule )", text)[1:]:
        rule = re.match(r"rule (\w+):", block)
        line = re.search(r"^ +resources: (.*)$", block, re.MULTILINE)
        if rule and line and rule[1] not in LOCAL_RULES:
            jobs.setdefault(rule[1], dict(part.split("=") for part in line[1].split(", ")))
    return jobs


SLURM = ("reports/table.pdf", "reports/systems.pdf", "study", "--workflow-profile", "slurm")


def test_every_job_asks_for_memory_and_time_and_gpu_jobs_for_one_gpu(project: Path):
    # Breaks where a new or renamed rule is not in the profile (Snakemake says nothing of a name that no rule has), and
    # where `--config scale=...` takes away the profile's own setting that jobs use a GPU.
    jobs = asked(project, *SLURM)
    assert set(jobs) == GPU_RULES | CPU_RULES
    profile = YAML(typ="safe").load(project / "profiles" / "slurm" / "config.yaml")
    assert set(profile["set-resources"]) == set(jobs)
    assert {rule for rule, resources in jobs.items() if resources.get("gpu") == "1"} == GPU_RULES
    for rule, resources in jobs.items():
        assert int(resources["mem_mb"]) >= 8000, rule
        assert int(resources["runtime"]) >= 60, rule


def test_on_a_cluster_without_gpus_no_job_asks_for_one(project: Path):
    jobs = asked(project, *SLURM, config=("gpu=0",))
    assert {resources.get("gpu", "0") for resources in jobs.values()} == {"0"}


def test_a_scale_that_states_the_cpu_asks_for_no_gpu_whatever_the_cluster_has(project: Path, tmp_path: Path):
    shutil.copytree(project, tmp_path / "copy")
    scale = tmp_path / "copy/config/smoke.yaml"
    scale.write_text(scale.read_text().replace("  threads: 1 ", "  device: cpu\n  threads: 3 ", 1))
    jobs = asked(tmp_path / "copy", *SLURM)
    assert {resources.get("gpu", "0") for resources in jobs.values()} == {"0"}
    # On one machine: the cores that a job uses, so that no two jobs crowd each other.
    result = run_workflow(tmp_path / "copy", "reports/table.pdf", "--dry-run", "--cores", "4")
    blocks = re.split(r"\n(?=rule |localrule )", result.stdout + result.stderr)[1:]
    threads = {block.split()[1].rstrip(":"): "threads: 3" in block for block in blocks}
    # All of them are timed in one job that takes every core.
    assert {rule for rule, several in threads.items() if several} == GPU_RULES - {"timing"} | {
        "system_statistics"
    }


def test_on_kubernetes_every_pod_names_its_gpu_and_limits(project: Path):
    # The plugin refuses a GPU without a manufacturer, and Kubernetes one without limits, which `scale=0` sets.
    arguments = ("-s", "profiles/kubernetes/Snakefile", "--workflow-profile", "none")
    jobs = asked(project, *arguments, config=(f"project={project}",))
    assert set(jobs) == {"prepare", "run", "table"}
    for rule, resources in jobs.items():
        assert {k: resources[k] for k in ("gpu", "gpu_manufacturer", "scale")} == {
            "gpu": "1",
            "gpu_manufacturer": "nvidia",
            "scale": "0",
        }, rule
        assert int(resources["mem_mb"]) >= 24000, rule
    without = asked(project, *arguments, config=(f"project={project}", "gpu=0"))
    assert not any("gpu" in resources for resources in without.values())


@needs_slurm
def test_slurm_leaves_no_process_and_no_directory_behind():
    with LocalSlurm() as slurm:
        environment = {**os.environ, **slurm.environment}
        job = ["sbatch", "--output=/dev/null", "--gpus=1", "--wrap", "srun -n1 sleep 600"]
        subprocess.run(job, env=environment, check=True, capture_output=True)
        # The step itself: `srun ... sleep 600` is there before it, and does not survive without the node's daemon.
        wait_for("the step", lambda: any("/sleep 600" in line for line in slurm.jobs_processes().values()))
        slurm.kill_node_daemon()
        assert any("/sleep 600" in line for line in slurm.jobs_processes().values()), "the job runs on"
        slurm.start_node()
        assert slurm.ask("squeue", "--noheader", "--format=%T") == "RUNNING"
    assert slurm.processes() == {}
    assert not slurm.directory.exists()


def kill_a_training(directory: Path, slurm: LocalSlurm, seconds: float) -> str:
    """SIGKILL a training that has left a checkpoint and goes on; returns its run. Waits for one up to `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for file in directory.glob("results/smoke/*/seed0/train/checkpoints/step-*.safetensors"):
            out = file.parents[2]
            for pid, line in slurm.jobs_processes().items():
                if f"-m add.train --spec results/smoke/{out.parent.name}/" in line and "printf" not in line:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    if not (out / "train" / "train.json").exists():
                        return out.parent.name
        time.sleep(0.02)
    raise TimeoutError(f"no training could be killed in its middle within {seconds:.0f} s")


@contextlib.contextmanager
def running(
    command: list[str], directory: Path, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the end where it still runs."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=workflow_environment(directory, **environment),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def without_times(value: Any) -> Any:
    """JSON without what a clock says: wall_seconds, sample_seconds and so on."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def results(directory: Path) -> dict[str, Any]:
    """What two workflows must agree on, by file: bytes, and of JSON with times in it the rest."""
    found: dict[str, Any] = {}
    scale = directory / "results" / "smoke"
    for pattern in ("*/seed0/result.json", "*/seed0/train/train.json", "reference/reference.json"):
        for file in scale.glob(pattern):
            found[str(file.relative_to(directory))] = without_times(json.loads(file.read_text()))
    exact = (
        "*/seed0/spec.json",
        "*/seed0/train/log.jsonl",
        "*/seed0/student/**/*",
        "*/seed0/samples/**/*.png",
    )
    for pattern in (*exact, "ratings/*"):
        for file in scale.glob(pattern):
            if file.is_file():
                found[str(file.relative_to(directory))] = file.read_bytes()
    for name in ("table.csv", "table.md", "table.tex", "smoke/ratings.csv"):
        found[f"reports/{name}"] = (directory / "reports" / name).read_bytes()
    return found


@pytest.mark.slow
@needs_slurm
def test_the_smoke_table_through_a_slurm_that_fails_is_the_local_one(tmp_path: Path):
    # A training is killed and the node's daemon is killed and started again under its jobs; then the power goes:
    # Snakemake and everything on the node die at once. What goes on from there loses a training once more. Breaks
    # where a retry does not go on from the checkpoint or loses its log, where half a file is taken for a whole one,
    # where a job that was lost is not made again, or where jobs on a node compute other bits.
    local, cluster = tmp_path / "local", tmp_path / "cluster"
    for directory in (local, cluster):
        directory.mkdir()
        copy_project(directory)
    profile = ("--workflow-profile", "slurm")
    with LocalSlurm() as slurm:
        command = workflow_command(*profile, *LOCAL)
        with running(command, cluster, tmp_path / "first.log", **slurm.environment) as process:
            killed = kill_a_training(cluster, slurm, PATIENCE)
            slurm.kill_node_daemon()
            slurm.start_node()
            tried = f"rule_train_wildcards_{killed}_0"
            wait_for("a second try", lambda: memory_of(slurm, tried) == ["128000M", "64000M"], PATIENCE)
            cut = kill_a_training(cluster, slurm, PATIENCE)
            process.kill()
            slurm.crash_node()
        slurm.ask("scancel", "--user", getpass.getuser())
        slurm.start_node()
        wait_for("the end of all jobs", lambda: not slurm.ask("squeue", "--noheader"), PATIENCE)

        unlocked = run_workflow(cluster, *profile, "--unlock", environment=slurm.environment)
        assert unlocked.returncode == 0, unlocked.stdout + unlocked.stderr
        last = tmp_path / "second.log"
        command = workflow_command(*profile, "--rerun-incomplete", *LOCAL)
        with running(command, cluster, last, **slurm.environment) as process:
            again = kill_a_training(cluster, slurm, PATIENCE)
            assert process.wait(PATIENCE) == 0, last.read_text()
        assert "128000M" in memory_of(slurm, f"rule_train_wildcards_{again}_0")
    for run in {killed, cut, again}:
        # tqdm's first line: the bar begins at the checkpoint.
        text = (cluster / f"results/smoke/logs/train-{run}-seed0.log").read_text()
        assert re.search(r" [12]/3 \[00:00<", text), text
        assert " 0/3 " not in text

    reference = run_workflow(local, "--cores", "2")
    assert reference.returncode == 0, reference.stdout + reference.stderr
    expected, found = results(local), results(cluster)
    assert len([name for name in expected if name.endswith("result.json")]) == 17
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def memory_of(slurm: LocalSlurm, comment: str) -> list[str]:
    """Memory that the jobs with this comment asked for, of all states, sorted as text; none where squeue fails."""
    jobs = slurm.ask("squeue", "--noheader", "--states=all", "--noconvert", "--format=%k %m", check=False)
    return sorted(line.split()[1] for line in jobs.splitlines() if line.split()[0] == comment)
