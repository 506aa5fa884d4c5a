"""What a table costs: from measured runs where there are some, by arithmetic elsewhere, and which is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from add.config.load import load_scale
from add.config.resolve import Table
from add.config.scale import Scale
from add.config.yaml import SpecError
from add.identity import spec_hash
from addbench.__main__ import main
from addbench.cost.shapes import PUBLISHED, Arithmetic, configurations, storage
from addbench.cost.timing import (
    DeviceRate,
    benchmark_rate,
    measured_rate,
    read_measured,
    same_trainings,
    sampling_times,
    training_times,
)
from addbench.workflow import ComparedSystems, plan_compared
from baselines.spec import rival_hash
from tests.support.specs import ROOT, copy_settings, table_of

TRAINING = 7.0
SETUP = 3.0


@pytest.fixture
def mini() -> tuple[Scale, Table]:
    return load_scale(ROOT / "config/mini.yaml"), table_of(ROOT)


def leave(results: Path, table: Table, run: str, seed: int = 0, seconds: float = TRAINING) -> None:
    """What a finished run leaves."""
    directory = results / run / f"seed{seed}"
    facts = {
        "seconds_per_step": seconds,
        "setup_seconds": SETUP,
        "spec_hash": spec_hash(table.runs[run]),
        "device": "x86_64",
    }
    (directory / "train").mkdir(parents=True)
    (directory / "train/train.json").write_text(json.dumps(facts))
    for name, steps in (("coco-1step", 1), ("coco-4step", 4)):
        (directory / "samples" / name).mkdir(parents=True)
        entry = {"steps": steps, "count": 10, "seconds": 2.0 * steps}
        (directory / "samples" / name / "samples.json").write_text(json.dumps(entry))


class Counted:
    """Stands for the counted one: every step takes 100 operations, 300 where the teacher takes four."""

    def step(self, run: object) -> float:
        return 300.0 if run.variant.teacher_steps == 4 else 100.0  # type: ignore[attr-defined]

    def sample(self, path: str, resolution: int | None, steps: int, guided: bool = False) -> float:
        return 10.0 * steps * (3 if path.endswith("sdxl") else 1)


def test_runs_of_the_same_values_are_measured_and_others_scaled(
    mini: tuple[Scale, Table], tmp_path: Path
) -> None:
    scale, table = mini
    steps = scale.training.steps
    leave(tmp_path, table, "baseline")
    leave(tmp_path, table, "baseline", seed=1, seconds=9.0)
    measured = read_measured(tmp_path)
    arithmetic = Counted()
    rate = measured_rate(table, measured, arithmetic, scale)  # type: ignore[arg-type]
    assert rate is not None
    assert rate.training == pytest.approx(100 / 8.0)
    times = training_times(table, measured, arithmetic, rate)  # type: ignore[arg-type]
    assert times["baseline"].how == "measured"
    assert times["baseline"].seconds == pytest.approx(8.0 * steps + SETUP)
    assert times["teacher_steps-4"].how == "scaled"
    assert times["teacher_steps-4"].seconds == pytest.approx(3 * 8.0 * steps + SETUP)
    assert set(times) == set(table.runs)


def test_a_run_whose_values_have_changed_is_no_measurement_of_it(
    mini: tuple[Scale, Table], tmp_path: Path
) -> None:
    _, table = mini
    leave(tmp_path, table, "baseline")
    file = tmp_path / "baseline/seed0/train/train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"spec_hash": "0" * 12}))
    assert same_trainings(table.runs["baseline"], read_measured(tmp_path)) == []


def test_samples_of_students_of_one_shape_stand_for_each_other(
    mini: tuple[Scale, Table], tmp_path: Path
) -> None:
    scale, table = mini
    leave(tmp_path, table, "baseline")
    measured = read_measured(tmp_path)
    rate = measured_rate(table, measured, Counted(), scale)  # type: ignore[arg-type]
    times = sampling_times(scale, table, measured, Counted(), rate)  # type: ignore[arg-type]
    # 4000, 100 and 160 images by one step, 0.2 s each; 1000, 100 and 160 by four, 0.8 s each.
    seconds = 4260 * 0.2 + 1260 * 0.8
    assert times["loss_terms-l-adv"].seconds == pytest.approx(seconds)
    assert times["loss_terms-l-adv"].how == "measured"
    large = times["teacher_type-sdxl-sdxl"]
    assert large.how == "scaled"
    assert large.seconds == pytest.approx(3 * seconds)


def test_without_measurement_the_stated_rate_decides(mini: tuple[Scale, Table], tmp_path: Path) -> None:
    scale, table = mini
    measured = read_measured(tmp_path / "nothing")
    rate = DeviceRate(50.0, 50.0, "modelled", "stated")
    times = training_times(table, measured, Counted(), rate)  # type: ignore[arg-type]
    assert times["baseline"].seconds == pytest.approx(100 / 50 * scale.training.steps)
    assert times["baseline"].how == "modelled"
    assert {t.how for t in training_times(table, measured, None, None).values()} == {"unknown"}


BENCHMARK = {
    "size": "sd21",
    "batch": 8,
    "device": "NVIDIA H100",
    "rows": [
        {"name": "plain", "batch": 8, "seconds": 9.0, "peak_bytes": 1},
        {"name": "add.step", "batch": 8, "seconds": 2.0, "peak_bytes": 1},
    ],
    "modelled": {"step_flops": 400},
}


def test_a_benchmarks_rate_is_its_counted_operations_over_its_seconds(tmp_path: Path) -> None:
    file = tmp_path / "gpu-step.json"
    file.write_text(json.dumps(BENCHMARK))
    rate = benchmark_rate(file)
    assert (rate.training, rate.sampling, rate.how) == (200.0, 200.0, "scaled")
    assert "NVIDIA H100" in rate.said
    # Half of the images did not fit: half of the operations took those seconds.
    half = {**BENCHMARK, "rows": [{"name": "add.step", "batch": 4, "seconds": 2.0}]}
    file.write_text(json.dumps(half))
    assert benchmark_rate(file).training == 100.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("{", "Invalid JSON"),
        ("[]", "it should be a file that `python -m benchmarks.gpu_step` wrote"),
        (json.dumps({**BENCHMARK, "modelled": {"step_flops": 0}}), "modelled.step_flops: "),
        (json.dumps({**BENCHMARK, "rows": BENCHMARK["rows"][:1]}), "has no timed row 'add.step'"),  # type: ignore[index]
        (
            json.dumps({**BENCHMARK, "rows": [{"name": "add.step", "batch": 0, "seconds": None}]}),
            "the step did not fit; time smaller batches",
        ),
    ],
)
def test_a_file_that_is_no_benchmark_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "gpu-step.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SpecError, match=r"gpu-step\.json") as caught:
        benchmark_rate(file)
    assert said in str(caught.value)


def test_what_is_not_as_written_is_passed_over(mini: tuple[Scale, Table], tmp_path: Path) -> None:
    _, table = mini
    leave(tmp_path, table, "baseline")
    (tmp_path / "broken/seed0/train").mkdir(parents=True)
    (tmp_path / "broken/seed0/train/train.json").write_text("{")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/score-baseline-seed0.tsv").write_text("s\th:m:s\n12.5\t0:00:12\n")
    (tmp_path / "benchmarks/score-other-seed0.tsv").write_text("s\th:m:s\n17.5\t0:00:17\n")
    (tmp_path / "benchmarks/report.tsv").write_text("s\th:m:s\n-\t-\n")
    measured = read_measured(tmp_path)
    assert list(measured.trainings) == ["baseline"]
    assert measured.jobs == {"score": 15.0}


def test_every_network_of_the_paper_has_a_configuration_here(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise `plan --scale paper` says nothing before 40 GB are downloaded.
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("addbench.cost.shapes.cached_directory", lambda *_: None)
    found, absent = configurations(load_scale(ROOT / "config/paper.yaml"))
    assert absent == []
    assert set(found) == set(PUBLISHED)
    assert all(place == "ViT-g-14" or (ROOT / place).is_dir() for place in found.values())


def test_the_command_says_what_is_known_and_how(
    mini: tuple[Scale, Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, table = mini
    monkeypatch.chdir(copy_settings(tmp_path))
    (tmp_path / "mini").symlink_to(ROOT / "mini")
    for run in table.runs:
        leave(tmp_path / "results/mini", table, run)
    monkeypatch.setattr("addbench.plan.measured_rate", lambda *_: None)  # counting takes seconds
    assert main(["plan", "--runs"]) == 0
    text = capsys.readouterr().out
    assert "scale mini: 22 cells, 17 runs, 1 seed each" in text
    train = next(line.split() for line in text.splitlines() if line.startswith("train "))
    training = table.runs["baseline"].training
    assert train[:3] == ["train", "17", f"{17 * training.steps * training.batch:,}"]
    assert float(train[3]) == pytest.approx(17 * (TRAINING * training.steps + SETUP) / 3600, rel=0.01)
    assert train[4:] == ["measured"]
    assert "teacher_steps-4" in text
    assert "disk: " in text


def test_rivals_trainings_are_counted_and_timed_as_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy_settings(tmp_path))
    (tmp_path / "mini").symlink_to(ROOT / "mini")
    lcm = "{kind: lcm, skip: 20, timestep_scaling: 10.0, huber: 0.001, target_decay: 0.9}"
    for name, steps in (("a_rival", 7), ("b_rival", 11)):
        text = f"label: {name}\nrival: {lcm}\nteacher: sd21\ntraining: {{steps: {steps}}}\nsteps: [1, 4]\n"
        (tmp_path / f"systems/mini/{name}.yaml").write_text(text)
    scale, table = load_scale("config/mini.yaml"), table_of(tmp_path)
    compared = plan_compared(scale, table, "results/mini")
    mine = [rival for rival in compared.rivals if rival.name in ("a_rival", "b_rival")]
    assert sorted(rival.training.steps for rival in mine) == [7, 11], "once for both numbers of steps"
    (tmp_path / "results/mini/systems/a_rival-seed0/train").mkdir(parents=True)
    facts = {"spec_hash": rival_hash(mine[0]), "wall_seconds": 3600.0}
    (tmp_path / "results/mini/systems/a_rival-seed0/train/train.json").write_text(json.dumps(facts))
    monkeypatch.setattr(
        "addbench.plan.configurations", lambda *_: ({}, ["nothing"])
    )  # counting takes seconds
    assert main(["plan"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train_rival "))
    images = sum(rival.training.steps for rival in compared.rivals) * scale.training.batch
    assert line.split()[:4] == ["train_rival", str(len(compared.rivals)), f"{images:,}", "1"]
    assert "1 measured" in line
    assert "unknown" in line
    parameters = {"sd21": (10, 20)}
    whole = storage(scale, table, compared, parameters).students
    assert whole - storage(scale, table, ComparedSystems(), parameters).students == 80 * len(compared.rivals)


@pytest.mark.slow
def test_runs_of_the_same_work_are_counted_once_and_together(
    mini: tuple[Scale, Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    # At the paper's size each count takes many seconds; two processes must say what one says.
    monkeypatch.chdir(ROOT)
    scale, table = mini
    names = (
        "baseline",
        "student_pretraining-random",
        "loss_terms-l-adv-lambda-l-distill-sds",
        "loss_terms-l-adv",
    )
    runs = [table.runs[name] for name in names]
    places, _ = configurations(scale)
    monkeypatch.setattr("addbench.cost.shapes.PROCESSES", 2)
    together, alone = Arithmetic(places), Arithmetic(places)
    together.count_steps(runs)
    assert len(together._steps) == 2
    counted = [together.step(run) for run in runs]
    assert counted[0] == counted[1] == counted[2] > counted[3] > 0
    monkeypatch.setattr("addbench.cost.shapes.PROCESSES", 1)
    assert alone.step(runs[3]) == counted[3]


@pytest.mark.slow
def test_a_table_at_the_papers_size_is_planned_without_its_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one ablation: counting all of them takes minutes."""
    monkeypatch.chdir(copy_settings(tmp_path))
    for file in (tmp_path / "ablations").glob("*.yaml"):
        if file.stem not in ("baseline", "student_pretraining"):
            file.unlink()
    scale = load_scale(ROOT / "config/paper.yaml")
    (tmp_path / "paper.yaml").write_text((ROOT / "config/paper.yaml").read_text().partition("\nstudy:")[0])
    monkeypatch.setattr("addbench.cost.shapes.cached_directory", lambda *_: None)
    assert main(["plan", "--scale", "paper.yaml", "--rate", "100", "--share", "0.5"]) == 0
    text = capsys.readouterr().out
    assert f"{2 * scale.training.steps * scale.training.batch:,}" in text
    assert "50% of 100 TFLOP/s: stated, not measured" in text
    hours = float(next(line.split()[3] for line in text.splitlines() if line.startswith("train ")))
    # ADD-M's step on 128 images is 1.5 to 2.5 PFLOP, by any way of counting.
    assert 2 * 4000 * 1.5e15 / 50e12 / 3600 < hours < 2 * 4000 * 2.5e15 / 50e12 / 3600


@pytest.mark.parametrize("arguments", [("--rate", "0"), ("--share", "0"), ("--share", "1.5")])
def test_a_rate_or_share_that_nothing_can_have_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 1
    assert "--rate should be positive" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "fast"])
def test_a_rate_that_is_no_amount_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--rate", number])
    assert "argument --rate: " in capsys.readouterr().err


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, list[str]], str]:
    """Each stage's row by its name, and all that the command says."""
    assert main(["plan", *arguments]) == 0
    text = capsys.readouterr().out
    lines = [line.split(maxsplit=4) for line in text.splitlines() if line[:1].islower() and "  " in line]
    return {line[0]: line[1:] for line in lines}, text


def test_a_fresh_clone_is_told_what_the_shipped_study_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when the miniature is planned for an A100: two seconds, where it takes an hour of a processor."""
    monkeypatch.chdir(copy_settings(tmp_path))
    (tmp_path / "mini").symlink_to(ROOT / "mini")
    (tmp_path / "replication").symlink_to(ROOT / "replication")
    monkeypatch.setattr("addbench.plan.measured_rate", lambda *_: None)  # counting takes seconds
    rows, text = planned(capsys)
    assert rows["train"][3] == "measured elsewhere"
    assert rows["sample"][3] == "measured elsewhere"
    store = [json.loads(file.read_text()) for file in (ROOT / "replication/mini").glob("*/seed*.json")]
    in_table = [record for record in store if record["run"] in table_of(ROOT).runs]
    seconds = [record["provenance"]["train"]["wall_seconds"] for record in in_table]
    assert 17 * min(seconds) / 3600 < float(rows["train"][2]) < 17 * max(seconds) / 3600
    scores = [record["provenance"]["score_seconds"] for record in in_table]
    assert float(rows["score"][2]) == pytest.approx(17 * sum(scores) / len(scores) / 3600, rel=0.01)
    assert "as the study's runs (replication/) took on AMD EPYC" in text
    assert "A100" not in text
    assert rows["train_rival"][2:] == ["?", "unknown"]


def test_without_any_run_no_gpus_rate_is_taken_for_a_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy_settings(tmp_path))
    (tmp_path / "mini").symlink_to(ROOT / "mini")
    rows, text = planned(capsys)
    assert rows["train"][2:] == ["?", "unknown"]
    assert "give --rate, or plan again after a first run" in text


def test_every_rule_of_the_comparison_is_counted_by_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when the systems count as one job, whose mean of earlier ones is then a tenth of what they take."""
    monkeypatch.chdir(copy_settings(tmp_path))
    shutil.rmtree(tmp_path / "systems/mini")
    (tmp_path / "systems/mini").mkdir()
    (tmp_path / "handed").mkdir()
    np.savez(tmp_path / "s.npz", mu=np.ones(4), sigma=np.eye(4))
    written = {
        "add": "label: ADD\nrun: baseline\nsteps: [1, 2]\n",
        "teacher": "label: T\nnetwork: sd21\nguidance: 2.0\nsteps: [25, 50]\n",
        "images": "label: I\nsteps: [1]\nimages: {parti: handed, coco: handed}\n",
        "statistics": "label: S\nsteps: [1]\nstatistics: {coco: s.npz}\ncount: 4000\n",
    }
    for name, text in written.items():
        (tmp_path / f"systems/mini/{name}.yaml").write_text(text)
    scale = (tmp_path / "config/mini.yaml").read_text().partition("\nstudy:")[0]
    (tmp_path / "config/mini.yaml").write_text(scale + "\n")
    (tmp_path / "results/mini/benchmarks").mkdir(parents=True)
    (tmp_path / "results/mini/benchmarks/system_score-a-1step.tsv").write_text("s\th:m:s\n3600\t1:00:00\n")
    monkeypatch.setattr("addbench.plan.configurations", lambda *_: ({}, ["nothing"]))
    rows, _ = planned(capsys)
    # The baseline by two steps, and the teacher by two numbers; by one step the table samples the baseline.
    assert rows["system_samples"][0] == "3"
    assert rows["system_images"][0] == "2"
    assert rows["system_score"][0] == "4"
    assert rows["system_score"][2] == "4"
    assert rows["system_statistics"][0] == "1"
    assert (rows["data"][0], rows["timing"][0], rows["report"][0]) == ("1", "1", "1")
    assert "ratings" not in rows
