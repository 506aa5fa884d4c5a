"""Missing data stop the workflow before its first job, all at once; what is there builds the paper's whole DAG."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from add.config.load import load_scale
from add.config.scale import Scale
from add.config.yaml import SpecError
from addbench.preflight.inputs import check_inputs_exist
from tests.support.evaluation import coco_file, parti_file
from tests.support.specs import ROOT
from tests.support.training_data import png
from tests.support.workflow import copy_project, workflow_environment

PAPER = ROOT / "config/paper.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leave(root: Path) -> None:
    """Everything that the paper's scale reads besides networks, by name."""
    for folder in ("data/paper/train", "data/coco/annotations", "data/coco/val2017"):
        (root / folder).mkdir(parents=True)
    for number in range(64):
        (root / f"data/paper/train/{number:05d}.tar").touch()
    names = [f"{number:012d}.jpg" for number in range(5000)]
    coco_file(root / "data/coco/annotations/captions_val2017.json", {name: [name] for name in names})
    for name in names[:3]:
        (root / "data/coco/val2017" / name).write_bytes(png())
    parti_file(
        root / "data/PartiPrompts.tsv",
        [(f"tree {k}", "Animals", ("Basic", "Imagination")[k % 2]) for k in range(1632)],
    )


def with_train(**train: Any) -> Scale:
    scale = load_scale(PAPER)
    content = scale.model_dump()
    content["data"]["train"] = train
    changed = Scale.model_validate(content)
    changed.read_from(scale.origin)
    return changed


def messages(scale: Scale) -> list[str]:
    with pytest.raises(SpecError) as caught:
        check_inputs_exist(scale)
    return [str(problem) for problem in caught.value.problems]


def test_all_that_is_missing_is_said_at_once_with_its_line(here: Path) -> None:
    # Snakemake alone would look for the first shard, and sampling for the captions when days of training are over.
    scale = load_scale(PAPER)
    shards, captions, prompts, photographs = messages(scale)
    assert "64 of its 64 shards are missing: 00000.tar, 00001.tar, 00002.tar, ..." in shards
    assert shards.startswith(f"{PAPER}:{scale.origin.line(('data', 'train'))}: ")
    assert "data/coco/annotations/captions_val2017.json: no such file" in captions
    assert "data/PartiPrompts.tsv: no such file" in prompts
    assert "data/coco/val2017: no such file or directory; put it there, or correct what the" in photographs
    leave(here)
    check_inputs_exist(scale)
    (here / "data/paper/train/00007.tar").unlink()
    (line,) = messages(scale)
    assert "1 of its 64 shards are missing: 00007.tar; " in line


def test_fewer_prompts_than_are_asked_for_are_said_before_training(here: Path) -> None:
    """Breaks when only sampling finds out, days later; a scale whose data the project made is no other."""
    leave(here)
    parti_file(here / "data/PartiPrompts.tsv", [("a tree", "Animals", "Basic")])
    (line,) = messages(load_scale(PAPER))
    assert line.startswith(f"{PAPER}:")
    assert "data/PartiPrompts.tsv: " in line
    mini = load_scale(ROOT / "config/mini.yaml")
    coco = mini.sampling.prompts["coco"]
    assert coco.kind == "coco"
    shutil.copytree(here / "data/coco", here / mini.data.root)
    coco_file(here / coco.annotations, {"000000000001.png": ["a tree"]})
    (here / mini.data.root / "dataset.json").touch()
    found = messages(mini)
    assert all(f"{coco.annotations}: " in line for line in found), "what is not there is made"
    assert f"{coco.count}" in found[0]
    remedy = f"delete {mini.data.root}/dataset.json to have the data made again, or correct the scale"
    assert found[0].endswith(remedy)


@pytest.mark.parametrize(
    ("train", "missing"),
    [
        ({"kind": "folder", "path": "pictures"}, ["pictures"]),
        ({"kind": "webdataset", "shards": "x/*.tar"}, ["x/*.tar"]),
        ({"kind": "coco", "images": "a", "annotations": "b.json"}, ["b.json", "a"]),
        (
            {"kind": "huggingface", "path": "set", "image_column": "image", "caption_column": "text"},
            ["set"],
        ),
    ],
)
def test_every_form_of_training_data_is_looked_for(
    here: Path, train: dict[str, Any], missing: list[str]
) -> None:
    leave(here)
    found = messages(with_train(**train))
    assert [line.split(": ")[1] for line in found] == missing


def test_data_that_the_project_makes_need_not_be_there(here: Path) -> None:
    check_inputs_exist(load_scale(ROOT / "config/mini.yaml"))


def dry_run(directory: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run"]
    result = subprocess.run(
        [*command, "--config", "scale=paper", "gpu=1"],
        cwd=directory,
        env=workflow_environment(directory),
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.slow
def test_the_papers_workflow_is_planned_without_its_networks(tmp_path: Path) -> None:
    # Nothing may be downloaded, and no network looked at, to see what would run.
    copy_project(tmp_path)
    code, text = dry_run(tmp_path)
    assert code != 0
    assert "64 of its 64 shards are missing" in text
    assert "data/coco/val2017: no such file or directory" in text
    leave(tmp_path)
    code, text = dry_run(tmp_path)
    assert code == 0, text
    counts = dict(re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE))
    stages = {name: int(counts[name]) for name in ("train", "sample", "score", "reference", "report")}
    assert stages == {"train": 17, "sample": 17, "score": 17, "reference": 1, "report": 1}
    # A fault in a file that is there is said by itself, and not from within a rule.
    (tmp_path / "data/coco/annotations/captions_val2017.json").write_text("{}")
    code, text = dry_run(tmp_path)
    assert code != 0
    assert "captions_val2017.json: images: missing" in text
    assert "in rule" not in text
    assert "identity.py" not in text
