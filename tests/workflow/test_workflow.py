"""The whole Snakefile on the smoke scale: what it makes, and that values, not files, decide what is rerun."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from eval.preferences.reader import read_votes, write_votes
from tests.support.workflow import copy_project, run_workflow, workflow_command, workflow_environment

TEACHER_STEPS = """\
part: f
question: Teacher steps
rows:
  - label: "1"
    published: {fid: 20.6, clip_score: 0.319}
  - label: "2"
    set: {teacher_steps: 2}
    published: {fid: 20.8, clip_score: 0.321}
"""
ONE_MORE = """\
part: g
question: Weight of the distillation loss
rows:
  - label: lambda 1
    set: {loss.distillation_weight: 1.0}
"""


def snakemake(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the copy's workflow on the smoke scale, on two cores."""
    return run_workflow(directory, "--cores", "2", *arguments)


def planned(directory: Path, *targets: str) -> set[str]:
    """What a dry run would do: 'rule' or 'rule run'."""
    result = snakemake(directory, "--dry-run", *targets)
    assert result.returncode == 0, result.stdout + result.stderr
    text = result.stdout + result.stderr
    jobs = set()
    for block in re.split(r"\n(?=\[|rule |localrule )", text):
        rule = re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE)
        if rule:
            run = re.search(r"wildcards: .*?run=([\w-]+)", block)
            jobs.add(f"{rule[1]} {run[1]}" if run else rule[1])
    if not jobs:
        assert "Nothing to be done" in text
    # After `cp -r` the copies in reports/ may be older than what they are copies of, and are copied again.
    assert "latest" in jobs or "report" not in jobs, "the copies follow the report"
    assert "latest_systems" in jobs or "systems" not in jobs
    return jobs - {"all", "latest", "latest_systems"}


def shell_command(directory: Path, rule: str) -> str:
    """The command line of one job of a rule, were it run now."""
    result = snakemake(directory, "--dry-run", "--printshellcmds", "--forcerun", rule)
    found = re.search(rf"\n(?:local)?rule {rule}:\n.*?\nShell command: (.*?)\n", result.stdout, re.DOTALL)
    assert found, result.stdout + result.stderr
    return re.sub(r"\bstage \S+ ", "", found[1])  # a function of the Snakefile, which keeps the log


def stages(run: str) -> set[str]:
    return {f"{stage} {run}" for stage in ("train", "sample", "score")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which two runs and their report have been made."""
    directory = tmp_path_factory.mktemp("workflow")
    copy_project(directory, ablations=("baseline",))
    (directory / "ablations" / "teacher_steps.yaml").write_text(TEACHER_STEPS)
    result = snakemake(directory)
    logs = "".join(f.read_text()[-1500:] for f in sorted((directory / "results/smoke/logs").glob("*.log")))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    return directory


def test_every_stage_leaves_what_the_next_reads_and_the_report_stands(finished: Path):
    assert (finished / "reports" / "table.pdf").read_bytes().startswith(b"%PDF")
    with (finished / "reports" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["row"], row["run"]) for row in rows} == {("1", "baseline"), ("2", "teacher_steps-2")}
    result = json.loads((finished / "results/smoke/baseline/seed0/result.json").read_text())
    assert {(s["prompts"], s["steps"]) for s in result["systems"]} == {
        (p, k) for p in ("coco", "parti", "diversity") for k in (1, 4)
    }
    train = result["provenance"]["train"]
    assert set(train["weights"]) == {"sd21", "vit_s_dinov2", "c_text", "c_img"}


def test_again_there_is_nothing_to_do(finished: Path):
    assert planned(finished) == set()


def test_a_copy_of_the_whole_directory_has_nothing_to_do(finished: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, copy_function=shutil.copy)  # as `cp -r`: every file is as old as its copy
    assert planned(copy) == set()


def test_a_comment_reruns_nothing(finished: Path):
    for name in ("baseline", "teacher_steps"):
        file = finished / "ablations" / f"{name}.yaml"
        text = file.read_text()
        file.write_text("# a comment\n" + text)
        assert planned(finished) == set()
        file.write_text(text)


def test_a_cache_reruns_no_training_and_training_gets_it(finished: Path):
    file = finished / "config" / "smoke.yaml"
    text = file.read_text()
    cached = text.replace(
        "  root: data/smoke", '  root: data/smoke\n  cache: {directory: "it\'s {here} $HOME"}', 1
    )
    assert cached != text
    file.write_text(cached)
    try:
        assert planned(finished) == {"report"}, "it prints every setting"
        command = shell_command(finished, "train")
    finally:
        file.write_text(text)
    words = shlex.split(command)
    kept = ["--cache", "it's {here} $HOME", "--keep", "latents", "text", "c_text", "c_img"]
    assert words[words.index("--cache") :][: len(kept)] == kept


def of_both(stage: str) -> set[str]:
    return {f"{stage} baseline", f"{stage} teacher_steps-2"}


BATCH = ("  seed: 0 \n  batch: 4 ", "  seed: 0 \n  batch: 2 ")
REFERENCES = ("data/smoke/reference \n    count: 8 ", "data/smoke/reference \n    count: 7 ")
PICTURES = ("  log_every: 1 \n  pictures_every: 3 ", "  log_every: 2 \n  pictures_every: 4 ")
SHUFFLED = ("  trials_per_rater: 40 \n  seed: 0 ", "  trials_per_rater: 40 \n  seed: 1 ")
AFTER_SAMPLING = {"automatic", "ratings", "report"}
OF_SYSTEMS = {"system_samples", "system_score"}  # and "train_rival", where what trains changes


@contextmanager
def another_value(directory: Path, line: str, changed: str) -> Iterator[None]:
    """The smoke scale with a line of its text changed, without its comments."""
    file = directory / "config" / "smoke.yaml"
    text = file.read_text()
    plain = re.sub(r" +#.*", " ", text)
    assert plain.count(line) == 1
    file.write_text(plain.replace(line, changed))
    try:
        yield
    finally:
        file.write_text(text)


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (("  votes_per_pair: 2 ", "  votes_per_pair: 3 "), set()),
        (PICTURES, {"report"}),
        (SHUFFLED, {"ratings", "report"}),
        (REFERENCES, {"reference", "system_score"} | AFTER_SAMPLING | of_both("score")),
        (BATCH, OF_SYSTEMS | AFTER_SAMPLING | of_both("sample") | of_both("score")),
    ],
)
def test_a_value_of_the_scale_reruns_exactly_the_stages_that_read_it(
    finished: Path, change: tuple[str, str], jobs: set[str]
):
    with another_value(finished, *change):
        assert planned(finished) == jobs


@pytest.mark.parametrize(
    ("change", "outputs", "jobs"),
    [
        (BATCH, "results/smoke/*/seed0/samples/*/samples.json", of_both("sample") | of_both("score")),
        (BATCH, "results/smoke/systems/*/samples/*/samples.json", OF_SYSTEMS | AFTER_SAMPLING),
        (SHUFFLED, "results/smoke/ratings/*.json", {"ratings", "report"}),
        (PICTURES, "reports/smoke/table.*", {"report"}),
    ],
)
def test_what_an_older_result_was_made_from_is_not_current_once_a_stage_failed_on_a_change(
    finished: Path, tmp_path: Path, change: tuple[str, str], outputs: str, jobs: set[str]
):
    """Snakemake removes and forgets the outputs of a job that fails; what was made from them before still stands."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    failed = [str(file.relative_to(copy)) for file in copy.glob(outputs)]
    assert failed
    assert snakemake(copy, "--cleanup-metadata", *failed).returncode == 0
    for file in failed:
        (copy / file).unlink()
    with another_value(copy, *change):
        assert jobs <= planned(copy)


def test_jobs_use_the_values_that_were_read_at_the_start_and_no_yaml(finished: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    commands = {
        stage: shell_command(copy, stage)
        for stage in ("reference", "sample", "score", *sorted(OF_SYSTEMS), "automatic", "ratings", "report")
    }
    shutil.rmtree(copy / "config")
    shutil.rmtree(copy / "ablations")
    environment = workflow_environment(
        copy, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    for stage, command in commands.items():
        done = subprocess.run(["bash", "-c", command], cwd=copy, env=environment, check=False)
        log = "".join(f.read_text() for f in (copy / "results/smoke/logs").glob(f"{stage}*.log"))
        assert done.returncode == 0, f"{stage}: {log[-1500:]}"
    for output in (
        "reports/smoke/table.csv",
        "reports/smoke/ratings.csv",
        "results/smoke/ratings/automatic.csv",
    ):
        assert (copy / output).read_bytes() == (finished / output).read_bytes()


def test_a_new_file_runs_exactly_its_run_and_the_report(finished: Path):
    file = finished / "ablations" / "distillation_weight.yaml"
    file.write_text(ONE_MORE)
    try:
        assert planned(finished) == stages("distillation_weight-lambda-1") | {"report"}
    finally:
        file.unlink()
    assert planned(finished) == set()


def test_a_baseline_value_reruns_exactly_the_runs_that_do_not_override_it(finished: Path):
    file = finished / "ablations" / "baseline.yaml"
    text = file.read_text()
    changed = re.sub(r"(?m)^teacher_steps: 1\b", "teacher_steps: 4", text)
    assert changed != text
    file.write_text(changed)
    try:
        assert planned(finished) == stages("baseline") | OF_SYSTEMS | {"timing"} | AFTER_SAMPLING
    finally:
        file.write_text(text)


def test_a_label_or_published_value_reruns_the_report_alone(finished: Path):
    file = finished / "ablations" / "teacher_steps.yaml"
    file.write_text(TEACHER_STEPS.replace("20.8", "20.9"))
    try:
        assert planned(finished) == {"report"}
    finally:
        file.write_text(TEACHER_STEPS)


def test_a_broken_setting_stops_before_anything_runs_and_says_where(finished: Path):
    file = finished / "ablations" / "distillation_weight.yaml"
    file.write_text(ONE_MORE.replace("distillation_weight:", "distilation_weight:"))
    try:
        result = snakemake(finished, "--dry-run")
    finally:
        file.unlink()
    assert result.returncode != 0
    text = result.stdout + result.stderr
    assert "distillation_weight.yaml:5" in text
    assert "loss.distillation_weight" in text


def test_a_preference_file_dropped_in_makes_the_ratings_and_the_report_anew_and_nothing_else(finished: Path):
    assert {row["rater_kind"] for row in ratings_of(finished)} == {"oracle"}
    folder = finished / "results/smoke/preferences"
    folder.mkdir()
    votes = read_votes(finished / "results/smoke/ratings/automatic.csv")
    people = [
        dataclasses.replace(v, rater=rater, rater_kind="human", study="by-hand", shown_left="a")
        for rater in ("anna", "ben")
        for v in votes
    ]
    write_votes(folder / "people.csv", people)
    assert planned(finished) == {"ratings", "report"}
    before = (finished / "reports/table.pdf").read_bytes()
    result = snakemake(finished)
    assert result.returncode == 0, result.stdout + result.stderr
    assert planned(finished) == set()
    assert {row["rater_kind"] for row in ratings_of(finished)} == {"human", "oracle"}
    assert (finished / "reports/table.pdf").read_bytes() != before
    # Another vote in the same file, which looks older than the ratings, and a note beside it.
    write_votes(folder / "people.csv", people[:-1])
    os.utime(folder / "people.csv", (1, 1))
    (folder / "README.md").write_text("notes")
    assert planned(finished) == {"ratings", "report"}
    write_votes(folder / "people.csv", people)


@contextmanager
def handed_in(directory: Path, name: str, text: str) -> Iterator[None]:
    """A file in the folder of people's votes, for a while."""
    file = directory / "results/smoke/preferences" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()


@pytest.mark.parametrize("name", ["bad.csv", "votes.xlsx", "other.csv"])
def test_a_preference_file_that_is_wrong_is_refused_before_anything_is_trained(finished: Path, name: str):
    """Breaks when a file that the ratings refuse, or never see, is told of after days of training, or never."""
    good = (finished / "results/smoke/ratings/automatic.csv").read_text().splitlines()
    prompt = list(csv.DictReader(good))[1]["prompt"]
    changed = (prompt, f"{prompt} and more") if name == "other.csv" else (",oracle,", ",robot,")
    text = "\n".join([*good[:2], good[2].replace(*changed)]) + "\n"
    with handed_in(finished, name, text):
        result = snakemake(finished)
        said = result.stdout + result.stderr
        assert result.returncode != 0
        reasons = {
            "bad.csv": r"bad\.csv, line 3.*robot",
            "votes.xlsx": r"votes\.xlsx: is no preference",
            "other.csv": r"other\.csv, line 3.*votes on other images",
        }
        assert re.search(reasons[name], said)
        assert "Execute" not in said, "a job was begun"
        assert planned(finished, "results/smoke/reference/reference.json") == set(), "it needs no votes"


def test_votes_that_the_job_refuses_are_not_tried_again(finished: Path):
    # Only the job has the automatic raters' file, whose votes these are again.
    good = (finished / "results/smoke/ratings/automatic.csv").read_text().splitlines()
    refused = finished / "results/smoke/logs/ratings.log.refused"
    with handed_in(finished, "other.csv", "\n".join(good[:2]) + "\n"):
        for _ in range(2):  # a mark of the last workflow stands in nobody's way
            result = snakemake(finished, "--retries", "2")
            assert result.returncode != 0
            log = finished / "results/smoke/logs/ratings.log"
            assert "or it counts twice" in log.read_text()
            assert refused.stat().st_mtime_ns < log.stat().st_mtime_ns, "a refusal was tried again"
    assert snakemake(finished).returncode == 0
    assert not refused.exists()


def test_a_folder_of_images_and_a_pipeline_need_a_file_each_and_no_code(finished: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    made = copy / "results/smoke/baseline/seed0"
    shutil.copytree(made / "samples/parti-1step", copy / "handed_in")
    (copy / "systems/smoke/other.yaml").write_text(
        "label: Another model\nimages: {parti: handed_in}\nsteps: [16]\n"
    )
    shutil.copytree(made / "student", copy / "plain")
    (copy / "plain" / "student.json").unlink()  # a pipeline like any other
    (copy / "systems/smoke/pipeline.yaml").write_text(
        "label: By directory\npipeline: plain\nsteps: [1]\nguidance: 1.0\n"
    )
    assert planned(copy, "reports/systems.pdf") == {*OF_SYSTEMS, "system_images", "timing", "systems"}
    result = snakemake(copy, "reports/systems.pdf")
    assert result.returncode == 0, result.stdout + result.stderr
    with (copy / "reports/smoke/systems.csv").open(newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if row["metric"] == "clip_score" and row["prompts"] == "parti"
        ]
    values = {(row["system"], row["steps"]): row["value"] for row in rows}
    assert values["Another model", "16"] == values["ADD", "1"], "the same images"
    assert ("By directory", "1") in values
    with (copy / "reports/smoke/systems.csv").open(newline="") as file:
        timed = [r["system"] for r in csv.DictReader(file) if r["metric"] == "seconds_at_batch_1"]
    assert "By directory" in timed
    assert "Another model" not in timed, "nothing here draws them"
    assert (copy / "reports/systems.pdf").read_bytes().startswith(b"%PDF")
    (copy / "handed_in" / "000001.png").write_bytes(b"broken")
    assert {"system_images", "system_score"} <= planned(copy, "reports/systems.pdf")
    assert snakemake(copy, "reports/systems.pdf").returncode != 0
    log = next((copy / "results/smoke/logs").glob("system_images-other-*.log")).read_text()
    assert "handed_in/000001.png: cannot be read as an image" in log


def test_the_study_is_made_once_and_its_answers_are_never_overwritten(finished: Path):
    assert planned(finished, "study") == {"study"}
    result = snakemake(finished, "study")
    assert result.returncode == 0, result.stdout + result.stderr
    folder = finished / "results/smoke/study"
    pages = sorted(file.name for file in (folder / "pages").iterdir())
    assert pages == ["rater-01.html", "rater-02.html"]
    (key,) = folder.glob("*.key.json")
    names = set(json.loads(key.read_text())["systems"].values())
    assert names == {
        *("ADD, 1 step", "ADD, 2 steps", "ADD, 4 steps"),
        *("SD2.1 teacher, 3 steps", "attention-check"),
    }
    for page in (folder / "pages").iterdir():
        assert not any(name in page.read_text() for name in names)
    assert planned(finished) == set(), "the study is no part of the report"
    config = finished / "config/smoke.yaml"
    text = config.read_text()
    config.write_text(text.replace("votes_per_pair: 2", "votes_per_pair: 3"))
    try:
        assert planned(finished, "study") == {"study"}
        assert snakemake(finished, "study").returncode != 0
        assert "may hold answers" in (finished / "results/smoke/logs/study.log").read_text()
        assert (folder / "study.json").exists()
        assert key.exists()
    finally:
        config.write_text(text)


def test_an_unknown_run_of_a_system_stops_before_anything_runs_and_says_where(finished: Path):
    file = finished / "systems/smoke/add.yaml"
    text = file.read_text()
    file.write_text(text.replace("run: baseline", "run: baselin"))
    try:
        result = snakemake(finished, "--dry-run")
    finally:
        file.write_text(text)
    assert result.returncode != 0
    assert re.search(r"add\.yaml:\d+: .*'baselin'; did you mean 'baseline'", result.stdout + result.stderr)


def ratings_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "reports/smoke/ratings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_gpu_jobs_never_run_two_at_a_time_whatever_the_cores(finished: Path, tmp_path: Path):
    # The jobs only claim a GPU (gpu=1) here; the profile beside the Snakefile must keep them apart.
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "results/smoke/baseline/seed0/samples")
    shutil.rmtree(copy / "results/smoke/teacher_steps-2/seed0/samples")
    targets = [
        f"results/smoke/{run}/seed0/samples/coco-1step/samples.json"
        for run in ("baseline", "teacher_steps-2")
    ]
    result = run_workflow(copy, "--cores", "all", *targets, config=("gpu=1",))
    assert result.returncode == 0, result.stdout + result.stderr
    spans = []
    for target in targets:
        finish = (copy / target).stat().st_mtime
        begin = min(p.stat().st_mtime for p in (copy / target).parent.glob("*.png"))
        spans.append((begin, finish))
    (_, first), (second, _) = sorted(spans)
    # a process needs seconds to load; side by side, the later one's first image would follow at once
    assert second - first > 1.0


def test_after_sigkill_the_next_command_goes_on_beside_the_orphan_and_loses_nothing(tmp_path: Path):
    copy_project(tmp_path, ablations=("baseline",))
    scale = tmp_path / "config/smoke.yaml"
    scale.write_text(scale.read_text().replace("  steps: 3 ", "  steps: 60 ", 1))
    out = tmp_path / "results/smoke/baseline/seed0"
    target = "results/smoke/baseline/seed0/train/train.json"
    first = subprocess.Popen(
        workflow_command("--cores", "1", target),
        cwd=tmp_path,
        env=workflow_environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list((out / "train/checkpoints").glob("step-*.safetensors")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        assert first.poll() is None, "training ended before Snakemake could be killed"
        time.sleep(0.02)
    first.kill()
    first.wait()
    orphan, _ = (out.parent / ".seed0.lock").read_text().split()
    result = snakemake(tmp_path, target)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert f"process {first.pid}, is dead" in said
    log = (tmp_path / "results/smoke/logs/train-baseline-seed0.log").read_text()
    assert f"process {orphan} on" in log
    assert "has finished this very training" in log
    assert len((out / "train/log.jsonl").read_text().splitlines()) == 60
    assert (out / "student/model_index.json").exists()
    assert planned(tmp_path, target) == set()


def test_every_scale_keeps_its_report_and_a_report_that_fails_takes_none_away(finished: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    first = (copy / "reports/table.pdf").read_bytes()
    kept = {file: file.read_bytes() for file in (copy / "reports/smoke").rglob("*") if file.is_file()}
    assert {"ratings.csv", "table.pdf", "gap.png"} <= {file.name for file in kept}

    # Another scale, whose report first fails in the last step.
    text = (copy / "config/smoke.yaml").read_text().replace("name: smoke ", "name: other ", 1)
    (copy / "config/other.yaml").write_text(text[: text.index("\nstudy:")])
    other = [*workflow_command("--cores", "2", "reports/table.pdf")[:-1], "scale=other"]

    def run_other() -> int:
        environment = workflow_environment(copy)
        return subprocess.run(other, cwd=copy, env=environment, check=False, capture_output=True).returncode

    template = copy / "reports/document.typ"
    page = template.read_text()
    template.write_text("#panic()")
    assert run_other() != 0
    assert (copy / "reports/table.pdf").read_bytes() == first
    template.write_text(page)
    assert run_other() == 0
    second = (copy / "reports/table.pdf").read_bytes()
    assert second != first
    assert (copy / "reports/other/table.pdf").read_bytes() == second
    assert {file: file.read_bytes() for file in kept} == kept

    # The first scale again: a copy, and nothing else runs.
    result = snakemake(copy, "reports/table.pdf")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "rule report" not in result.stdout + result.stderr
    assert (copy / "reports/table.pdf").read_bytes() == first


def test_no_profile_trains_again_for_a_newer_version_of_the_project():
    """The cluster's profile stands in place of the default one, so it must say again what decides a result."""
    default, slurm = (
        YAML(typ="safe").load(Path("profiles", name, "config.yaml")) for name in ("default", "slurm")
    )
    for key in ("rerun-triggers", "rerun-incomplete", "keep-going", "show-failed-logs", "printshellcmds"):
        assert default[key] == slurm[key], key
