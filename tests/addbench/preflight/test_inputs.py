"""Data, prompts and photographs are looked at before training: each fault by its own message, all at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from add.config.load import load_scale
from add.config.resolve import Table
from add.config.scale import Scale
from addbench.preflight import Findings
from addbench.preflight.inputs import check_inputs
from addbench.preflight.networks import CheckedNetworks
from tests.support.specs import ROOT, changed_scale
from tests.support.training_data import png, write

NOTHING = CheckedNetworks({}, {})


def scale_with(**values: Any) -> tuple[Scale, Table]:
    """The smoke scale over what is in the working directory, with values changed (keys joined by two '_')."""
    return changed_scale("smoke", **{"data__build": None, **values})


def check(**values: Any) -> Findings:
    found = Findings()
    check_inputs(found, *scale_with(**values), NOTHING)
    return found


def lines(found: Findings) -> list[str]:
    return found.problems


@pytest.fixture
def copy(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smoke scale's data without its networks, to be broken."""
    ignored = shutil.ignore_patterns("networks")
    shutil.copytree(smoke / "data", tmp_path / "data", ignore=ignored)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data/smoke"


def test_data_that_are_right_are_counted(copy: Path) -> None:
    found = check()
    assert lines(found) == []
    assert "data.train: 24 images with captions; a run draws 12, each about 0.5 times" in found.facts
    assert "sampling.prompts.coco: 8 prompts of data/smoke/annotations/captions_val.json" in found.facts
    assert "evaluation.reference: 8 photographs in data/smoke/reference" in found.facts


def test_a_caption_without_image_and_an_image_without_caption(copy: Path) -> None:
    file = copy / "annotations/captions_train.json"
    content = json.loads(file.read_text())
    gone = content["images"][3]["file_name"]
    (copy / "train" / gone).unlink()
    orphan = content["images"].pop(0)["id"]
    content["annotations"][-1]["image_id"] = content["images"][-2]["id"]
    file.write_text(json.dumps(content))
    found = lines(check())
    assert any(f"no image has the id {orphan}" in line for line in found)
    assert any("has no caption" in line for line in found)
    assert any(f"images are missing, the first is {gone}" in line for line in found)
    assert all(line.startswith(f"{ROOT}/config/smoke.yaml:") for line in found), "each names the scale's line"


def test_a_missing_shard_of_the_data(copy: Path, tmp_path: Path) -> None:
    images = [png(size=(32, 32))] * 6
    train = write("shards", tmp_path / "shards", images, ["a caption"] * 6).model_dump()
    assert lines(check(data__train=train)) == []
    (tmp_path / "shards/set-001.tar").unlink()
    assert any("set-001.tar" in line for line in lines(check(data__train=train)))


def test_photographs_smaller_than_the_resolution_are_said(copy: Path, tmp_path: Path) -> None:
    train = write("text", tmp_path / "small", [png(size=(16, 16))] * 2, ["a", "b"]).model_dump()
    facts = check(data__train=train).facts
    assert "data.train: 2 of 2 opened are smaller than 32 pixels, and are enlarged" in facts


def test_prompts_photographs_and_reference_that_are_too_few(copy: Path) -> None:
    name = json.loads((copy / "annotations/captions_val.json").read_text())["images"][0]["file_name"]
    (copy / "val" / name).unlink()
    found = lines(
        check(
            sampling__prompts__parti__count=4000,
            evaluation__reference__count=9,
            evaluation__oracle__scenes="data/smoke/none.json",
        )
    )
    assert any("sampling.prompts.parti" in line and "4000 prompts are asked for" in line for line in found)
    assert any(f"the first is {name}" in line and "`present` states a part" in line for line in found)
    assert any("evaluation.reference" in line for line in found)
    assert any("data/smoke/none.json: no such file" in line for line in found)
    assert len(found) == 4, found


def test_latents_of_another_vae_in_the_cache(copy: Path, tmp_path: Path) -> None:
    # Training refuses such a file when it comes to it, which may be hours on.
    torch = pytest.importorskip("torch")
    from add.config.training import CacheSpec
    from add.models.encoder_cache import EncoderCache

    folders = {}
    for seed in range(2):
        torch.manual_seed(seed)
        cache = EncoderCache(CacheSpec(directory=str(tmp_path / f"cache{seed}")))
        vae = torch.nn.Linear(3, 2).requires_grad_(False)
        made = torch.rand(2, 3)
        cache.rows("latents", (vae,), made, lambda x: {"latents": vae(x)})  # noqa: B023
        cache.flush()
        (folders[seed],) = (tmp_path / f"cache{seed}").iterdir()
    stated = {"directory": str(tmp_path / "cache0"), "keep": ("latents",)}
    assert lines(check(data__cache=stated)) == []
    theirs = next(folders[1].iterdir()).rename(folders[0] / "segment-theirs.safetensors")
    (line,) = lines(check(data__cache=stated))
    assert line.startswith(f"{theirs}: holds latents of another VAE")
    theirs.write_bytes(b"cut")
    (line,) = lines(check(data__cache=stated))
    assert "is not a whole cache file" in line
    save_file({"a": np.zeros(1)}, theirs)
    (line,) = lines(check(data__cache=stated))
    assert "holds latents of another VAE" in line


def test_data_that_are_still_to_be_made_are_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = check(data__build="mini.smoke")
    assert lines(found) == []
    assert any("`python -m mini.smoke --out data/smoke` has still to make" in line for line in found.facts)
    assert len(lines(check())) > 3, "without a module that makes it, it is missing"


@pytest.mark.parametrize(("loc", "value"), [
    (("evaluation", "reference", "count"), 1), (("evaluation", "reference", "count"), 2),
    (("sampling", "prompts", "coco", "count"), 1),
])  # fmt: skip
def test_a_number_of_images_that_no_interval_can_be_had_of_is_refused(
    loc: tuple[str, ...], value: int
) -> None:
    """Breaks when a scale passes that ends in a traceback after its training."""
    content = load_scale(ROOT / "config/smoke.yaml").model_dump()
    place = content
    for key in loc[:-1]:
        place = place[key]
    place[loc[-1]] = value
    with pytest.raises(ValidationError, match="greater than or equal to"):
        Scale.model_validate(content)
