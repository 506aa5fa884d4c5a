"""`addbench repair`: what lost files is made again, and nothing else is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from add.errors import InputError
from addbench.__main__ import main
from tests.support.evaluation import write_samples
from tests.support.specs import copy_settings
from tests.support.tiny_pipelines import write_sd

PROMPTS = [("1", "a cat"), ("2", "a dog")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/mini/baseline/seed0 with a student and two sample sets, in a copy of the settings."""
    monkeypatch.chdir(copy_settings(tmp_path))
    run = Path("results/mini/baseline/seed0")
    write_sd(run / "student")
    (run / "student" / "student.json").write_text("{}")
    (run / "train").mkdir()
    (run / "train" / "train.json").write_text("{}")
    for name in ("coco-1step", "parti-1step"):
        (run / "samples" / name).mkdir(parents=True)
        write_samples(run / "samples" / name, PROMPTS, 1)
    return run


def files(run: Path) -> set[Path]:
    return {file for file in run.rglob("*") if file.is_file()}


def test_what_is_whole_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]):
    before = files(run)
    assert main(["repair"]) == 0
    assert files(run) == before
    assert "every student and sample set is whole" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["missing", "empty", "no index"])
def test_a_sample_set_that_lost_a_file_is_unfinished(
    run: Path, capsys: pytest.CaptureFixture[str], damage: str
):
    folder = run / "samples" / "coco-1step"
    lost = folder / "index.csv" if damage == "no index" else sorted(folder.glob("*.png"))[1]
    lost.write_bytes(b"") if damage == "empty" else lost.unlink()
    before = files(run)
    assert main(["repair"]) == 0
    assert before - files(run) == {folder / "samples.json"}
    assert str(lost) in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["unet/*.safetensors", "scheduler/*", "model_index.json", "student.json"])
def test_a_student_that_lost_a_file_is_untrained(run: Path, capsys: pytest.CaptureFixture[str], lost: str):
    for file in (run / "student").glob(lost):
        file.unlink()
    assert main(["repair"]) == 0
    assert not (run / "student").exists()
    assert not (run / "train" / "train.json").exists()
    assert (run / "samples" / "coco-1step" / "samples.json").exists()
    assert str(run / "student" / lost.split("/")[0]) in capsys.readouterr().out


def test_a_rivals_student_that_lost_a_file_is_untrained(run: Path):
    """Breaks when sampling sends its user to a command that does not look there."""
    rival = Path("results/mini/systems/lcm-seed0")
    rival.parent.mkdir()
    shutil.copytree(run, rival)
    (rival / "student/student.json").unlink()
    assert main(["repair"]) == 0
    assert not (rival / "student").exists()
    assert not (rival / "train/train.json").exists()
    assert (run / "student").exists()


def test_a_student_whose_weights_end_early_is_untrained(run: Path, capsys: pytest.CaptureFixture[str]):
    (weights,) = (run / "student" / "vae").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["repair"]) == 0
    assert not (run / "student").exists()
    assert str(weights) in capsys.readouterr().out


def test_a_file_of_another_set_is_left_to_its_owner(run: Path, capsys: pytest.CaptureFixture[str]):
    """Sampling the set again would remove it."""
    (run / "samples" / "coco-1step" / "mine.png").write_bytes(b"a picture of my own")
    before = files(run)
    assert main(["repair"]) == 1
    assert files(run) == before
    assert "mine.png: is not in index.csv" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["vae/*.safetensors", "unet/*.safetensors", "student.json"])
def test_a_student_that_lost_a_file_is_not_sampled(run: Path, lost: str):
    from eval.system import load_system

    for file in (run / "student").glob(lost):
        file.unlink()
    with pytest.raises(InputError, match=rf"student/{lost.split('/')[0]}.*`addbench repair`"):
        load_system(str(run / "student"))
