"""A scale's training data: the form is chosen by `kind`, and what is not stated is not a value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from add.config.load import load_scale
from add.config.training import CocoSpec, FolderSpec, HuggingFaceSpec, RunDataSpec, ShardsSpec
from add.config.yaml import SpecError
from addbench.workflow import train_options, training_source
from tests.support.specs import copy_settings, edit, table_of

COCO = """    images: data/mini/train                   # ours
    annotations: data/mini/annotations/captions_train.json  # ours
"""


def without_cache(tmp_path: Path) -> Path:
    """A copy of the mini scale that keeps nothing of what encoders make."""
    file = copy_settings(tmp_path) / "config/mini.yaml"
    (line,) = (x for x in file.read_text().splitlines(keepends=True) if x.startswith("  cache:"))
    edit(file, line, "")
    return file


def with_data(tmp_path: Path, text: str, also: str = "") -> Path:
    file = without_cache(tmp_path)
    edit(file, COCO, text + also)
    return file


@pytest.mark.parametrize(
    ("text", "kind", "source"),
    [
        (COCO, CocoSpec, "data/mini/annotations/captions_train.json"),
        ("    kind: folder\n    path: d/x\n", FolderSpec, "d/x"),
        ("    kind: webdataset\n    shards: d/{0..9}.tar\n    window: 8\n", ShardsSpec, "d/0.tar"),
        (
            "    kind: huggingface\n    path: h\n    image_column: i\n    caption_column: c\n",
            HuggingFaceSpec,
            "h",
        ),
    ],
)
def test_each_form_is_read_and_reads_back_from_a_runs_json(
    tmp_path: Path, text: str, kind: type, source: str
):
    with_data(tmp_path, text)
    run = table_of(tmp_path).runs["baseline"]
    assert isinstance(run.data.train, kind)
    assert training_source(run.data.train) == source
    assert RunDataSpec.model_validate_json(run.data.model_dump_json()) == run.data


def test_a_scale_that_states_no_new_key_has_the_values_it_had(tmp_path: Path):
    # Values decide what is run again: a key that appears by itself would repeat every training.
    file = without_cache(tmp_path)
    train = table_of(tmp_path).runs["baseline"].data.model_dump(mode="json")["train"]
    assert train == {
        "kind": "coco",
        "images": "data/mini/train",
        "annotations": "data/mini/annotations/captions_train.json",
    }
    scale = load_scale(file)
    assert list(scale.data.model_dump()) == ["train", "build", "root"]


def test_a_resize_rule_is_a_value_and_a_cache_is_not(tmp_path: Path):
    before = table_of(copy_settings(tmp_path / "a")).runs["baseline"]
    with_data(tmp_path / "b", COCO, "    resize: {crop: random}\n")
    with_data(tmp_path / "c", COCO, "  cache: {directory: cache}\n")
    resized, cached = (table_of(tmp_path / k).runs["baseline"] for k in ("b", "c"))
    assert resized.model_dump() != before.model_dump()
    assert resized.data.train.resize_rule.filter == "bicubic"
    assert cached == before, "having a cache would repeat every training"
    cache = load_scale(tmp_path / "c/config/mini.yaml").data.cache
    assert train_options(cache) == "--cache cache --keep latents text c_text c_img"
    assert train_options(None) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("    kind: foldr\n    path: x\n", "did you mean 'folder'"),
        ("    kind: folder\n    pth: x\n", "unknown key 'data.train.pth'; did you mean 'path'"),
        ("    kind: webdataset\n    shards: x.tar.gz\n", "data.train.shards"),
        (COCO + "    resize: {crop: middle}\n", "data.train.resize.crop: 'middle' is not a choice"),
        (COCO + "    window: 3\n", "unknown key 'data.train.window'"),
        (
            COCO + "    resize: {crop: random}\n  cache: {directory: c}\n",
            "latents and c_img cannot be kept with",
        ),
        (COCO + "  cache: {directory: c, keep: []}\n", "data.cache.keep"),
        (COCO + "  cache: {directory: c, keep: [text, text]}\n", "names something twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, reason: str):
    file = with_data(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_scale(file)
    assert any(reason in problem.message for problem in caught.value.problems), str(caught.value)
    assert all(problem.line > 1 for problem in caught.value.problems)


def test_random_crops_and_a_cache_of_texts_go_together(tmp_path: Path):
    keep = "  cache: {directory: c, keep: [text, c_text]}\n"
    file = with_data(tmp_path, COCO, "    resize: {crop: random}\n" + keep)
    assert json.loads(load_scale(file).data.model_dump_json())["cache"]["keep"] == ["text", "c_text"]
