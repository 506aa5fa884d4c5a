"""The files of systems: what they may say, where images and results lie, what decides them."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from zlib import compress

import numpy as np
import pytest
from PIL import Image
from snakemake.exceptions import WorkflowError

from add.config.load import load_baseline, load_scale
from add.config.scale import TimingSpec
from add.config.system import load_systems
from add.config.yaml import SpecError
from add.errors import InputError
from addbench.__main__ import main
from addbench.preflight import Findings, wanted_networks
from addbench.preflight.systems import check_systems
from addbench.project import load_project
from addbench.systems import PlannedSystem
from addbench.workflow import (
    ComparedSystems,
    ablations_folder,
    plan_compared,
    report_folder,
    report_study,
    whole_machine,
)
from eval.prompts import read_prompts
from eval.timing import read_systems
from reports.study import packed, unpacked
from tests.support.specs import copy_settings, table_of

STUDENT = "label: A\nrun: baseline\nsteps: [1, 2]\n"
PIPELINE = "label: B\npipeline: somewhere/sd\nsteps: [25]\nguidance: 2.0\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(copy_settings(tmp_path))
    return tmp_path


def write(root: Path, **files: str) -> Path:
    folder = root / "some"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def plan(root: Path) -> ComparedSystems:
    return plan_compared(load_scale(root / "config/mini.yaml"), table_of(root, "mini"), "results/mini")


def planned(root: Path, label: str) -> PlannedSystem:
    return next(system for system in plan(root).systems if system.label == label)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STUDENT + "guidance: 2.0\n", "a student has no `guidance`; leave it out"),
        (STUDENT.replace("[1, 2]", "[3]"), "a student is sampled by 1, 2 or 4 steps, not 3"),
        (STUDENT.replace("[1, 2]", "[2, 1]"), "steps: should be strictly increasing"),
        (STUDENT.replace("label: A", "label: unknown"), "has a special meaning"),
        (STUDENT.replace("label: A", 'label: "A\\u00a0B"'), r"label: holds U\+00A0 \(NO-BREAK SPACE\)"),
        (STUDENT + "network: sd21\n", "is both a run and a network"),
        (PIPELINE.replace("guidance: 2.0\n", ""), "a pipeline needs `guidance`"),
        (PIPELINE + "timesteps: [999]\n", r"`timesteps` lists 1, but `steps` is \[25\]"),
        (PIPELINE + "prompts: {parti: a.txt}\n", "a pipeline has no `prompts`"),
        (PIPELINE + "schedule: DDIMScheduler\n", "unknown key 'schedule'; did you mean 'scheduler'"),
        (PIPELINE + "dtype: half\n", "'half' is not a choice"),
        ("label: C\nsteps: [1]\n", "needs one of `run`, `rival`, `network`, `pipeline`, `images` and `stat"),
        ("label: S\nstatistics: {coco: a.npz}\nsteps: [1]\n", "statistics need the `count`"),
        ("label: S\nstatistics: {coco: a.npz}\ncount: 5\nsteps: [1, 4]\n", "and one number of steps"),
        (
            PIPELINE.replace("25", "1") + "timesteps: [9]\nspacing: leading\n",
            r"one\.yaml:5: .*leave `spacing` out",
        ),
        (PIPELINE.replace("25", "2") + "timesteps: [1, 999]\n", r"one\.yaml:5: .*go down, from noise"),
        (PIPELINE + "count: 5\n", "a pipeline has no `count`"),
        (STUDENT + "adapter: a/b\n", "a student has no `adapter`"),
        (PIPELINE + "unet: {pth: a/b}\n", r"unknown key 'unet.pth'; did you mean 'path'"),
        (PIPELINE + "unet: [a]\n", "unet: should be"),
        (PIPELINE + "then: [{path: a/b, guidance: 1.0}]\n", r"missing key 'then\[0\].steps'"),
        (PIPELINE + "then: [{path: a/b, steps: 2, guidance: 1.0, strength: 2.0}]\n", r"then\[0\].strength"),
        (PIPELINE + "then: []\n", "then: "),
        ("label: C\nsteps: [1]\npublished: [{steps: 1, source: x}]\n", "gives no figure"),
        ("label: C\nsteps: [1]\npublished: [{steps: 2, source: x, fid: 9.0}]\n", "by 2 steps, which `steps`"),
        ("label: R\nrival: {kind: gan}\nsteps: [1]\n", "a rival needs its `teacher` and `training`"),
        ("label: C\nsteps: [1, 4]\nimages: {parti: a}\n", "by one number of steps"),
        (
            "label: C\nsteps: [1]\nimages: {parti: a}\nprompts: {coco: b.txt}\n",
            "`prompts` names coco, of which",
        ),
    ],
)
def test_what_a_file_may_not_say_is_refused_with_its_name(tmp_path: Path, text: str, message: str):
    folder = write(tmp_path, one=text)
    with pytest.raises(SpecError, match=message) as error:
        load_systems(folder)
    assert error.value.problems[0].file.endswith("some/one.yaml")


def test_two_files_of_one_label_or_one_system_are_refused(tmp_path: Path):
    folder = write(tmp_path, one=STUDENT, two=STUDENT.replace("[1, 2]", "[4]"))
    with pytest.raises(SpecError, match=r"'A' is already the label of .*one\.yaml"):
        load_systems(folder)
    write(tmp_path, two=STUDENT.replace("label: A", "label: Z"))
    with pytest.raises(SpecError, match=r"is the same system as .*one\.yaml"):
        load_systems(folder)


@pytest.mark.parametrize("name", ["Two.yaml", "a b.yaml", "a.yml"])
def test_a_file_whose_name_cannot_name_results_is_refused(tmp_path: Path, name: str):
    (write(tmp_path, one=STUDENT) / name).write_text(PIPELINE)
    with pytest.raises(SpecError, match="rename it to lower-case letters"):
        load_systems(tmp_path / "some")


def test_names_that_lead_nowhere_are_refused_with_line_and_nearest(root: Path):
    folder = root / "systems" / "mini"
    (folder / "a.yaml").write_text("label: A\nrun: baselin\nsteps: [1]\n")
    (folder / "b.yaml").write_text("label: B\nnetwork: sd22\nsteps: [1]\nguidance: 1.0\n")
    (folder / "c.yaml").write_text("label: C\nsteps: [1]\nimages: {party: results}\n")
    with pytest.raises(SpecError) as error:
        plan(root)
    said = [str(problem) for problem in error.value.problems]
    assert any("a.yaml:2" in s and "no run 'baselin'; did you mean 'baseline'" in s for s in said), said
    assert any("b.yaml:2" in s and "networks.diffusion has no 'sd22'; did you mean 'sd21'" in s for s in said)
    assert any("c.yaml:3" in s and "no set 'party'" in s for s in said)
    assert any("c.yaml:3" in s and "there is no folder results" in s for s in said)


def test_what_a_file_names_is_refused_with_its_line(root: Path):
    folder = root / "systems" / "mini"
    (root / "nothing").mkdir()
    (folder / "a.yaml").write_text("label: A\nsteps: [1]\nguidance: 1.0\npipeline: nothing\n")
    with pytest.raises(SpecError, match=r"a\.yaml:4: pipeline: nothing: holds no"):
        plan(root)
    (folder / "a.yaml").write_text("label: A\nsteps: [1]\nimages: {parti: config/mini.yaml}\n")
    with pytest.raises(SpecError, match=r"a\.yaml:3: images\.parti: there is no folder config/mini\.yaml"):
        plan(root)


def test_what_sampling_would_refuse_is_found_before_training(root: Path):
    """`addbench check`: a sampler that does not exist, images that are not there, a file that is no statistics."""
    folder = root / "systems" / "mini"
    network = "label: N\nnetwork: sd21\nguidance: 1.0\n"
    (folder / "n.yaml").write_text(network + "steps: [1, 2000]\nscheduler: EulerDiscretScheduler\n")
    (root / "handed").mkdir()
    (root / "handed/index.csv").write_text("file,prompt\na.png,nobody asked for this\n")
    (folder / "i.yaml").write_text("label: I\nsteps: [1]\nimages: {parti: handed}\n")
    (folder / "s.yaml").write_text("label: S\nsteps: [1]\nstatistics: {coco: config/mini.yaml}\ncount: 9\n")
    scale, found = load_scale(root / "config/mini.yaml"), Findings()
    (root / "data/mini").mkdir(parents=True)
    (root / "data/mini/dataset.json").touch()
    schedule = root / scale.networks.diffusion["sd21"].path / "scheduler"
    schedule.mkdir(parents=True)
    (schedule / "scheduler_config.json").write_text('{"num_train_timesteps": 1000}')
    asked = scale.sampling.prompts["parti"]
    assert asked.kind == "partiprompts"
    (root / asked.file).write_text(
        "Prompt\tCategory\tChallenge\ndog\tAnimals\tBasic\n"
        + "".join(f"cat {k}\tAnimals\tImagination\n" for k in range(asked.count))
    )
    check_systems(found, scale, load_systems(folder), 60)
    said = "\n".join(found.problems)
    for message in (
        r"n\.yaml:5: scheduler: diffusers .* has no EulerDiscretScheduler; did you mean 'EulerDiscreteScheduler'",
        r"n\.yaml:4: steps: 2000 are more than the 1000 timesteps",
        r"i\.yaml:3: images\.parti: handed/index\.csv: names too few images for 100 of 100 prompts: 'cat \d+'",
        r"s\.yaml:3: statistics\.coco: .*is not a \.npz",
    ):
        assert re.search(message, said), said
    assert len(found.problems) == 4, said


def test_what_is_handed_in_is_opened_before_training(root: Path):
    """Breaks when an image or statistics that the stage refuses pass `addbench check`."""
    folder, handed = root / "systems" / "mini", root / "handed"
    scale = load_scale(root / "config/mini.yaml")
    side, asked = scale.evaluation.resolution, scale.sampling.prompts["coco"]
    assert asked.kind == "coco"
    images = [{"id": k, "file_name": f"{k:012d}.png"} for k in range(asked.count + 1)]
    captions = [{"id": k, "image_id": k, "caption": f"a cat {k}"} for k in range(asked.count + 1)]
    annotations = root / asked.annotations
    annotations.parent.mkdir(parents=True)
    annotations.write_text(json.dumps({"images": images, "annotations": captions}))
    (root / "data/mini/dataset.json").touch()
    handed.mkdir()
    drawn = read_prompts(asked)
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    names = [f"{k:06d}.png" for k in range(len(drawn))]
    for name in names:
        Image.fromarray(noise).save(handed / name)
    lines = [f"{name},{prompt.prompt}" for name, prompt in zip(names, drawn, strict=True)]
    (handed / "index.csv").write_text("\n".join(["file,prompt", *lines]) + "\n")
    (folder / "i.yaml").write_text("label: I\nsteps: [1]\nimages: {coco: handed}\n")
    for name, value in {"nan": np.nan, "other": 1.0, "whole": 1.0}.items():
        np.savez(root / f"{name}.npz", mu=np.full(4, value), sigma=np.eye(4))
    written = {"nan": ("coco", asked.count), "other": ("coco", 9), "whole": ("parti", asked.count)}
    for name, (prompts, count) in written.items():
        text = f"label: {name}\nsteps: [1]\nstatistics: {{{prompts}: {name}.npz}}\ncount: {count}\n"
        (folder / f"{name}.yaml").write_text(text)

    def look(seconds: float) -> Findings:
        found = Findings()
        check_systems(found, scale, load_systems(folder), seconds)
        return found

    said = "\n".join(look(60).problems)
    for message in (
        r"nan\.yaml:3: statistics\.coco: nan\.npz: mu has 4 values that are not finite",
        rf"other\.yaml:3: .*is of 9 images, and of 'coco' by 1 step\(s\) {asked.count} are measured",
        r"whole\.yaml:3: .*FID needs a prompt set of kind coco, which 'parti' is not",
    ):
        assert re.search(message, said), said
    assert "i.yaml" not in said
    Image.fromarray(noise[: side // 2]).save(handed / names[3])
    Image.fromarray(np.zeros_like(noise)).save(handed / names[4])
    said = "\n".join(look(60).problems)
    assert (
        f"2 of {len(drawn)} images cannot be used, such as handed/{names[3]}: is {side}x{side // 2}" in said
    )
    (root / "data/mini/dataset.json").unlink()
    early = look(60)
    assert "i.yaml" not in "\n".join(early.problems), "the prompts that are made may not take these images"
    assert "the images in handed, until the prompts are made" in early.left
    (root / "data/mini/dataset.json").touch()
    late = look(0)
    assert "i.yaml" not in "\n".join(late.problems)
    assert late.left == [
        f"{len(drawn):,} of {len(drawn):,} images in handed: opening them takes too long; `addbench check --hash` does"
    ]


def test_a_table_of_many_seeds_still_fits_into_a_command(root: Path):
    """Breaks when the report of 64 seeds fails after all of them were trained: a command's word has 128 kB at most."""
    scale, table = load_scale(root / "config/mini.yaml"), table_of(root, "mini")
    training = scale.training.model_copy(update={"seeds": tuple(range(400))})
    scale = scale.model_copy(update={"training": training})
    compared = plan_compared(scale, table, "results/mini")
    study = report_study(scale, load_baseline(root / "ablations/baseline.yaml"), table, compared)
    assert len(json.dumps(asdict(study))) > 4 * 2**17
    assert len(packed(study)) < 2**17
    assert unpacked(packed(study)) == study


@pytest.mark.parametrize(
    "text", ["{}", "ablations/baseline.yaml", "", "eJyrrgUAAXUA-Q==", b64encode(compress(b"{}")).decode()]
)
def test_a_report_of_something_else_is_refused(text: str):
    with pytest.raises(InputError, match="--study"):
        unpacked(text)


@pytest.mark.parametrize(
    ("folder", "report"),
    [
        ("ablations", "reports/mini"),
        ("./ablations/", "reports/mini"),
        ("ablations/ours", "reports/mini-ours"),
        ("mine", "reports/mini-mine"),
    ],
)
def test_another_folder_of_ablations_has_a_report_of_its_own(root: Path, folder: str, report: str):
    scale = load_scale(root / "config/mini.yaml")
    for written in (folder, str(Path(folder).resolve())):
        assert report_folder(scale, ablations_folder(written)) == report


def test_no_two_folders_of_ablations_have_one_report(root: Path):
    """Breaks when two folders take turns in one folder of reports/, or one in that of `make replication`."""
    for name in ("ours", "a/b", "a-b"):
        (root / "ablations" / name).mkdir(parents=True, exist_ok=True)
    scale = load_scale(root / "config/mini.yaml")
    paths = ["ablations/ours", "ours", "../ours", "more/ours", "a/b", "a-b", "ablations/a/b", "ablations/a-b"]
    paths += ["ablations/replication", "ablations/ours-replication", "x y", "x_y"]
    found = [report_folder(scale, ablations_folder(path)) for path in paths]
    assert len(set(found)) == len(found)
    assert not any(each.endswith("replication") for each in found)


def test_votes_are_not_on_the_images_of_a_table_that_keeps_its_runs_apart(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    """Breaks when people's votes on one student count as votes on another of the same label."""
    shutil.copytree(root / "ablations", root / "own")
    text = (root / "own/baseline.yaml").read_text()
    (root / "own/baseline.yaml").write_text(text.replace("teacher_steps: 1 ", "teacher_steps: 2 "))
    assert load_project("mini").compared().study.systems
    assert not load_project("mini", Path("own")).compared().study.systems
    assert "no ratings: people's votes are on images of the project's table" in capsys.readouterr().err


def test_a_folder_that_the_workflow_would_take_for_a_wildcard_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match=r"has no \{"):
        ablations_folder("more/{ours")
    with pytest.raises(SystemExit):
        main(["list", "--ablations", "more/{ours}"])
    assert "a folder's name has no { or }; rename it" in capsys.readouterr().err


def another(folder: str, values: str, name: str = "loss_terms", label: str = "L_distill") -> None:
    """A folder of ablations with one row of these values."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    row = f"  - label: '{label}'\n    set: {{{values}}}\n"
    Path(folder, f"{name}.yaml").write_text(f"part: z\nquestion: Which?\nrows:\n{row}")


def test_a_folder_with_another_run_of_a_name_keeps_its_results_apart(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    """Breaks when a table trains over the runs of another, or a row that is the table's trains again."""
    monkeypatch.chdir(root)

    def results(folder: str) -> str:
        return load_project("mini", ablations_folder(folder)).results.as_posix()

    assert results("ablations") == results("ablations/ours") == "results/mini"
    another("new", "loss.adversarial: 0.5", name="new_question")
    assert results("new") == "results/mini", "the baseline is the table's"
    another("same", "loss.adversarial: 0")
    assert results("same") == "results/mini", "the row is the table's, however it was written"
    another("more/same", "loss.adversarial: 0.5")
    assert re.fullmatch(r"results/mini-more-same-[0-9a-f]{6}", results("more/same"))
    another("own", "loss.adversarial: 0.5", name="new_question")
    baseline = Path("ablations/baseline.yaml").read_text()
    Path("own/baseline.yaml").write_text(baseline)
    assert results("own") == "results/mini"
    Path("own/baseline.yaml").write_text(baseline.replace("teacher_steps: 1", "teacher_steps: 4"))
    assert results("own") == "results/mini-own"
    alike = ["own", "../own", "ablations/own", "o wn", "a/b", "a-b", "."]
    for folder in alike[1:]:
        another(folder, "teacher_steps: 2", name="teacher_steps", label="4")
    named = [results(folder) for folder in alike]
    assert len(set(named)) == len(alike), "two folders of one name"
    assert all(re.fullmatch(r"results/mini-[A-Za-z0-9._-]+", name) for name in named), named
    text = Path("ablations/loss_terms.yaml").read_text()
    Path("ablations/loss_terms.yaml").write_text(text.replace("loss.adversarial: 0.0", "student: sdxxl"))
    assert results("more/same") == "results/mini", "a row that the scale cannot train has no runs"
    Path("ablations/loss_terms.yaml").write_text("part: [")
    with pytest.raises(SpecError, match="loss_terms"):
        results("more/same")


def claim(rows: str, than: str, **more: str) -> str:
    keys = {"claim": "One is better", "metric": "fid", "relation": "better"} | more
    lines = [f"{key}: {value}" for key, value in keys.items()]
    return "findings:\n  - " + "\n    ".join([*lines, f"rows: ['{rows}']", f"than: ['{than}']"]) + "\n"


def test_a_claim_by_yaml_alone_is_the_reports(root: Path):
    file = root / "systems/mini/add.yaml"
    text = file.read_text().partition("findings:")[0]
    file.write_text(text + claim("ADD, 4 steps", "SDXL teacher, 25 steps", margin="0.1"))
    scale, table = load_scale(root / "config/mini.yaml"), table_of(root, "mini")
    baseline = load_baseline(root / "ablations/baseline.yaml")
    findings = report_study(scale, baseline, table, plan(root)).findings
    assert len(findings) == len(table.findings) + 1
    (asked,) = [finding for finding in findings if finding.steps is None]
    assert (asked.rows, asked.others) == (("ADD, 4 steps",), ("SDXL teacher, 25 steps",))
    assert asked.place.endswith("add.yaml:6")
    assert asked.margin == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (claim("A, 1 step", "B, 25 step"), "than: no file has the system 'B, 25 step'; did you mean 'B, 25"),
        (claim("A, 4 steps", "B, 25 steps"), "rows: no file has the system 'A, 4 steps'"),
        (claim("A, 1 step", "A, 1 step"), "than: 'A, 1 step' would be compared with itself"),
        (claim("A, 1 step", "P, 1 step"), "than: of 'P, 1 step' there are published figures alone"),
        (claim("A, 1 step", "B, 25 steps", relation="best"), "'best' is not a choice"),
        (claim("A, 1 step", "B, 25 steps", steps="1"), r"unknown key 'findings\[0\].steps'"),
    ],
)
def test_a_claim_about_no_system_is_refused_with_its_line(tmp_path: Path, text: str, message: str):
    published = "label: P\nsteps: [1]\npublished: [{steps: 1, source: x, fid: 9.0}]\n"
    folder = write(tmp_path, one=STUDENT + text, two=PIPELINE, three=published)
    with pytest.raises(SpecError, match=rf"one\.yaml:\d+: .*{message}") as error:
        load_systems(folder)
    lines = [int(str(problem).split(":")[1]) for problem in error.value.problems]
    assert all(line > 3 for line in lines)


def test_a_rivals_settings_are_refused_with_the_file(root: Path):
    file = root / "systems/mini/r.yaml"
    rival = "{kind: lcm, skip: 20, timestep_scaling: 10.0, huber: 0.001, target_decay: 0.9}"
    text = f"label: R\nrival: {rival}\nteacher: sd21\ntraining: {{steps: 7}}\nsteps: [1]\n"
    file.write_text(text)
    system = planned(root, "R, 1 step")
    assert (system.wildcard, system.trained_seed) == ("r-seed0", 0)
    assert json.loads(system.rival or "")["training"]["steps"] == 7
    file.write_text(text.replace("skip: 20", "skip: 30"))
    with pytest.raises(SpecError, match=r"r\.yaml:2: rival\.skip: 30 does not divide the schedule's 1000"):
        plan(root)
    file.write_text(text.replace("steps: 7", "stepz: 7"))
    with pytest.raises(SpecError, match=r"r\.yaml:4: unknown key 'training\.stepz'; did you mean 'steps'"):
        plan(root)
    file.write_text(text.replace("teacher: sd21", "teacher: sd22"))
    with pytest.raises(SpecError, match=r"r\.yaml:3: .*no diffusion network 'sd22'; did you mean 'sd21'"):
        plan(root)
    file.write_text(text.replace("{steps: 7}", "{steps: 7, device: cuda}"))
    with pytest.raises(SpecError, match=r"r\.yaml:4: training\.device is the scale's alone"):
        plan(root)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("diff_instruct", "steps: [1]", "steps: [1, 4]", "diff_instruct with .* is sampled by 1, not 4"),
        ("progressive", "\nsteps: [1]", "\nsteps: [1, 2]", "is sampled by 1, not 2"),
        ("progressive", "steps: 290", "steps: 3", "3 steps in shares .* leave a stage none"),
        ("lcm", "steps: [1, 4]", "steps: [1, 4, 8]", "is sampled by 1, 2, 4, not 8"),
        ("lcm", "skip: 100", "skip: 500", "is sampled by 1, 2, not 4"),
        ("guidance_distillation", "steps: [4]", "steps: [5]", "is sampled by 1, 2, 4, 8, 25, not 5"),
        ("denoising_diffusion_gan", "steps: [4]", "steps: [1]", "is sampled by 4, not 1"),
    ],
)
def test_a_rival_that_could_not_be_sampled_is_refused_before_it_is_trained(
    root: Path, name: str, old: str, new: str, message: str
):
    file = root / f"systems/mini/{name}.yaml"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with pytest.raises(SpecError, match=rf"{name}\.yaml:\d+: .*{message}"):
        plan(root)


def test_a_new_pipeline_of_four_lines_is_sampled_and_scored_by_the_rules(root: Path):
    (root / "systems/mini/b.yaml").write_text(PIPELINE + "scheduler: DDIMScheduler\n")
    system = planned(root, "B, 25 steps")
    assert (system.own, system.sets, system.trained_seed) == (True, ("coco", "parti", "diversity"), None)
    assert system.result == "results/mini/systems/b/result-25step.json"
    assert plan(root).by_wildcards(SimpleNamespace(system="b", steps="25")) == system
    source = json.loads(system.source_text)
    assert (source["path"], source["scheduler"], source["guidance"]) == ("somewhere/sd", "DDIMScheduler", 2.0)


def test_a_sampler_decides_the_images_and_a_label_does_not(root: Path):
    file = root / "systems/mini/b.yaml"
    file.write_text(PIPELINE)
    before = planned(root, "B, 25 steps").deciding
    file.write_text(
        PIPELINE.replace("label: B", "label: Z") + "published: [{steps: 25, source: x, fid: 9.0}]\n"
    )
    assert planned(root, "Z, 25 steps").deciding == before
    for change in ("spacing: leading\n", "scheduler: DDIMScheduler\n", "dtype: float16\n"):
        file.write_text(PIPELINE + change)
        assert planned(root, "B, 25 steps").deciding != before


def test_parts_of_a_pipeline_reach_the_sampler_and_decide_by_their_weights(root: Path):
    file = root / "systems/mini/b.yaml"
    file.write_text(PIPELINE + "adapter: a/lora\nunet: {path: a/unet, sha256: " + "a" * 64 + "}\n")
    system = planned(root, "B, 25 steps")
    source = json.loads(system.source_text)
    assert (source["adapter"]["path"], source["unet"]["path"]) == ("a/lora", "a/unet")
    file.write_text(file.read_text().replace("a/unet", "b/unet"))
    assert planned(root, "B, 25 steps").deciding == system.deciding, "an address is no identity"
    file.write_text(file.read_text().replace("a" * 64, "b" * 64))
    assert planned(root, "B, 25 steps").deciding != system.deciding
    file.write_text(PIPELINE + "then: [{path: a/up, steps: 5, guidance: 4.0, noise_level: 20}]\n")
    stage = planned(root, "B, 25 steps")
    assert json.loads(stage.source_text)["then"][0]["noise_level"] == 20
    file.write_text(file.read_text().replace("steps: 5", "steps: 6"))
    assert planned(root, "B, 25 steps").deciding != stage.deciding
    scale = load_scale(root / "config/mini.yaml")
    wanted = {each.name: each.path for each in wanted_networks(scale, load_systems("systems/mini"))}
    assert wanted["systems/mini/b.yaml: then[0]"] == "a/up"


def test_handed_in_images_decide_by_their_bytes(root: Path, tmp_path: Path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"1")
    (root / "systems/mini/c.yaml").write_text(f"label: C\nsteps: [1]\nimages: {{parti: {images}}}\n")
    first = planned(root, "C, 1 step")
    assert (first.sets, first.source) == (("parti",), None)
    (images / "a.png").write_bytes(b"22")
    second = planned(root, "C, 1 step").deciding
    assert second != first.deciding
    for text in ("file,prompt\na.png,one\n", "file,prompt\na.png,two\n"):
        (images / "index.csv").write_text(text)  # which image is whose decides as much
        assert (before := second) != (second := planned(root, "C, 1 step").deciding), before
    assert plan(root).wildcards("handed in") == "c"


def test_a_students_other_steps_lie_beside_its_run(root: Path):
    one, two = planned(root, "ADD, 1 step"), planned(root, "ADD, 2 steps")
    assert (one.own, one.result) == (False, "results/mini/baseline/seed0/result.json")
    assert (two.own, two.folder) == (True, "results/mini/systems/add-seed0")
    assert two.trainings == ["results/mini/baseline/seed0/train/train.json"]
    trained = plan(root).decided(lambda wildcards: f"{wildcards.run} {wildcards.seed}")
    assert "baseline 0" in trained(SimpleNamespace(system="add-seed0", steps="2"))


def test_every_system_that_a_pipeline_draws_is_timed_once_as_it_is_sampled(root: Path, tmp_path: Path):
    """Breaks when a training seed is timed twice, a sampler is lost, or eval.timing cannot read the list."""
    for file in (root / "systems/mini").glob("*.yaml"):
        file.unlink()
    (root / "systems/mini/a.yaml").write_text(STUDENT)
    (root / "systems/mini/b.yaml").write_text(PIPELINE + "scheduler: DDIMScheduler\nspacing: trailing\n")
    (root / "systems/mini/c.yaml").write_text(f"label: C\nsteps: [1]\nimages: {{parti: {tmp_path}}}\n")
    (root / "systems/mini/d.yaml").write_text(
        "label: D\nsteps: [1]\npublished: [{steps: 1, source: x, fid: 9.0}]\n"
    )
    scale = load_scale(root / "config/mini.yaml")
    how = TimingSpec(batches=(1,), warm_up=0, repeats=1, longest=1.0)
    training = scale.training.model_copy(update={"seeds": (3, 4)})
    scale = scale.model_copy(update={"study": None, "timing": how, "training": training})
    found = plan_compared(scale, table_of(root, "mini"), "results/mini")
    assert found.times == "results/mini/systems/timing.json"
    one, two, pipeline = read_systems(found.timed_entries)
    assert (one.path, one.label, one.steps) == ("results/mini/baseline/seed3/student", "A, 1 step", 1)
    assert two.key == one.key, "one pipeline is loaded once"
    assert (pipeline.scheduler, pipeline.spacing, pipeline.guidance) == ("DDIMScheduler", "trailing", 2.0)
    without = scale.model_copy(update={"timing": None})
    assert plan_compared(without, table_of(root, "mini"), "results/mini").times == ""


def test_a_job_that_runs_alone_takes_all_cores_that_the_workflow_has():
    class Cluster:
        @property
        def cores(self) -> int:
            raise WorkflowError("--cores")

    assert whole_machine(SimpleNamespace(cores=7), 1) == 7
    assert whole_machine(Cluster(), 3) == 3


def test_statistics_are_a_system_without_images(root: Path, tmp_path: Path):
    """Breaks when its images are looked for, or a file with other numbers scores nothing anew."""
    file = tmp_path / "there.npz"
    file.write_bytes(b"1")
    text = f"label: S\nstatistics: {{coco: {file}}}\ncount: 1000\nsteps: [1]\n"
    (root / "systems/mini/s.yaml").write_text(text)
    system = planned(root, "S, 1 step")
    assert (system.own, system.sets, system.every_sample) == (True, (), [])
    assert system.statistics == f"--statistics {file} --set coco --count 1000"
    found = plan(root)
    assert found.wildcards("statistics") == "s"
    assert not any("s" in found.wildcards(kind).split("|") for kind in ("sampled", "handed in", "images"))
    assert system.label not in [each.label for each in found.timed]
    file.write_bytes(b"2")
    assert planned(root, "S, 1 step").deciding != system.deciding
    (root / "systems/mini/s.yaml").write_text(text.replace("there", "gone").replace("coco", "cocoa"))
    with pytest.raises(SpecError) as error:
        plan(root)
    said = [str(problem) for problem in error.value.problems]
    assert any("s.yaml:2" in s and "no set 'cocoa'; did you mean 'coco'" in s for s in said), said
    assert any("there is no file" in s and "gone.npz" in s for s in said), said


def test_what_the_paper_scale_loads_from_the_hub_names_its_commit(root: Path):
    """A branch moves, and the figures beside it would be another network's."""
    wanted = wanted_networks(load_scale(root / "config/paper.yaml"), load_systems("systems/paper"))
    unpinned = {each.path for each in wanted if each.revision is None and not each.path.startswith("data/")}
    # Of these no public code pins a commit, and their files say so.
    assert unpinned == {
        "amused/amused-512",
        "XCLiu/instaflow_0_9B_from_sd_1_5",
        "latent-consistency/lcm-sdxl",
    }
