"""`make clean` removes what the project made, and nothing of a user's."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from add.errors import InputError
from add.lock import only_writer
from addbench.clean import clean
from mini.dataset import write_dataset
from tests.support.smoke import REPOSITORY

VOTES = "prompt_id,prompt,system_a,system_b,image_a,image_b,question,winner,rater,rater_kind,shown_left\n"


def put(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(VOTES if file.endswith(".csv") else "{}")


def test_data_of_the_projects_builds_goes_and_a_users_coco_stays(tmp_path: Path):
    write_dataset(tmp_path / "data/mini", train=1, val=1, reference=1, prompts=1)
    put(tmp_path, "data/mini/encoded/text.bin", "data/.mini.partial/train/1.png")
    users = (
        "data/coco/annotations/captions_val2017.json",
        "data/coco/val2017/1.jpg",
        "data/PartiPrompts.tsv",
    )
    put(tmp_path, *users)
    # A scale that was adopted from data/coco under the name coco leaves its two files among the photographs.
    put(tmp_path, "data/coco/annotations/captions_train.json")
    facts = {"scale": "coco", "photographs": {}, "training": {}}
    (tmp_path / "data/coco/dataset.json").write_text(json.dumps(facts))
    kept = clean(tmp_path)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == set(users)
    assert [line for line in kept if "did not make all of annotations, val2017" in line]
    assert [line for line in kept if "PartiPrompts.tsv: no data set" in line]


def test_a_foreign_dataset_json_protects_its_folder(tmp_path: Path):
    put(tmp_path, "data/mine/dataset.json", "data/mine/train/000000000001.png")
    clean(tmp_path)
    assert (tmp_path / "data/mine/train/000000000001.png").exists()


def test_results_go_and_studies_keys_votes_and_what_is_being_written_stay(tmp_path: Path):
    run = "results/mini/baseline/seed0"
    gone = [
        f"{run}/{name}" for name in ("spec.json", "student/model.json", "train/train.json", "result.json")
    ]
    gone += [
        "results/mini/logs/train.log",
        "results/mini/ratings/automatic.csv",
        ".snakemake/locks/0",
        "reports/table.pdf",
    ]
    gone += [
        "reports/mini/table.csv",
        "reports/mini/figures/gap.png",
        "results/smoke/reference/reference.json",
    ]
    stays = [
        "results/mini/study/study-1.key.json",
        "results/mini/study/votes.sqlite3",
        "results/mini/study.made",
    ]
    stays += ["results/smoke/preferences/anna.csv", "results/mini/notes.txt", "reports/table.py"]
    stays += ["results/mini/other/seed0/spec.json", "results/mini/ratings_by_hand/anna.csv"]
    # A copy of a report, somebody's notes, and a model that no run of the workflow left.
    stays += ["reports/before/table.csv", "reports/notes/table.pdf", "results/mine/model/seed1/student/w.bin"]
    put(tmp_path, "config/mini.yaml", "config/smoke.yaml", *gone, *stays)
    with only_writer(tmp_path / "results/mini/other/seed0"):
        kept = "\n".join(clean(tmp_path))
    assert [file for file in gone if (tmp_path / file).exists()] == []
    assert [file for file in stays if not (tmp_path / file).exists()] == []
    assert "study-1.key.json is a study's key" in kept
    assert "anna.csv may hold people's votes" in kept
    assert "writes there; end it first" in kept
    assert "reports/before: a copy of a report" in kept
    assert clean(tmp_path / "results") == []


def test_a_users_files_among_a_stages_stay(tmp_path: Path):
    """Breaks when a folder goes with all that is in it, because the workflow made some of it."""
    run, system = "results/mini/baseline/seed0", "results/mini/systems/sd21"
    gone = [f"{run}/samples/coco-1step/{name}" for name in ("000000.png", "index.csv", "samples.json")]
    gone += [
        f"{run}/{name}" for name in ("spec.json", "train/log.jsonl", "train/pictures/a.png", "student/w.bin")
    ]
    gone += [f"{run}/scores/coco-1step.csv", f"{run}/samples/.coco-1step.lock", "results/mini/logs/train.log"]
    gone += [f"{system}/result-25step.json", f"{system}/samples/coco-25step/000000.png"]
    gone += [
        f"results/mini/{name}" for name in ("reference/.features.safetensors.7.ab.partial", "ratings/.a.lock")
    ]
    gone += [f"{run}/scores/coco-1step.safetensors", "results/mini/systems/.timing.json.lock"]
    gone += ["results/mini/systems/timing.json", "data/pretrain/train-30000-0.npy"]
    gone += [
        "results/mini/other/seed1/spec.json",
        "results/mini/systems/other/samples/.coco-1step.partial/0.png",
    ]
    stays = [
        f"{run}/{name}" for name in ("notes.txt", "train/plot.png", "samples/mine/1.png", "scores/mine.csv")
    ]
    stays += [f"{run}/samples/coco-1step/contact sheet.png", "results/mini/logs/ours/run.txt"]
    stays += [f"{system}/paper.pdf", "results/mini/systems/read.me", "data/pretrain/mine.npy"]
    put(tmp_path, *gone, *stays)
    for name in ("scores/coco-1step.csv", "scores/mine.csv", "samples/coco-1step/index.csv"):
        (tmp_path / run / name).write_text("image,clip_score\n")
    kept = "\n".join(clean(tmp_path))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(stays)
    assert not (tmp_path / "results/mini/other").exists()
    for place in (run, system, "results/mini/logs", "results/mini/systems", "data/pretrain"):
        assert f"{place}: " in kept
    assert "notes.txt, samples, scores, train" in kept


def test_nothing_goes_while_a_snakemake_works(tmp_path: Path):
    put(tmp_path, "Snakefile", "results/mini/logs/a.log")
    with (tmp_path / "Snakefile").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(InputError, match="Snakemake works here"):
            clean(tmp_path)
    assert (tmp_path / "results/mini/logs/a.log").exists()
    clean(tmp_path)
    assert not (tmp_path / "results/mini/logs/a.log").exists()


def test_a_key_among_results_keeps_its_directory(tmp_path: Path):
    put(tmp_path, "results/mini/ratings/study-1.key.json", "results/mini/ratings/ratings.json")
    clean(tmp_path)
    assert (tmp_path / "results/mini/ratings/ratings.json").exists()


def test_it_runs_without_the_environment_and_twice(tmp_path: Path):
    put(tmp_path, "results/mini/logs/a.log")
    command = [sys.executable, "-S", "-m", "addbench.clean"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--help", "--dry-run"])
def test_a_question_about_it_removes_nothing(tmp_path: Path, option: str):
    put(tmp_path, "results/mini/logs/a.log")
    command = [sys.executable, "-m", "addbench.clean", option]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True)
    assert done.returncode == (0 if option == "--help" else 2)
    assert (tmp_path / "results/mini/logs/a.log").exists()


def test_a_data_set_is_not_built_over_a_users_files(tmp_path: Path):
    put(tmp_path, "data/coco/val2017/1.jpg")
    with pytest.raises(InputError, match="holds coco, and is replaced as a whole"):
        write_dataset(tmp_path / "data", train=1, val=1, reference=1, prompts=1)
    assert (tmp_path / "data/coco/val2017/1.jpg").exists()
