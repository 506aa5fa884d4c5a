"""Training data: COCO captions and images read strictly, in an order that survives a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from add.config.training import CocoSpec
from add.data.coco import CaptionedImages
from add.data.training_set import open_training_set, sample_indices
from tests.support.training_data import load_images


def write(
    tmp_path: Path, content: dict[str, Any], images: tuple[str, ...] = ("a.png", "b.png")
) -> tuple[Path, Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in images:
        Image.new("RGB", (32, 32), "red").save(folder / name)
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(content))
    return folder, file


def load_coco(folder: Path, file: Path) -> CaptionedImages:
    data = open_training_set(CocoSpec(images=str(folder), annotations=str(file)))
    assert isinstance(data, CaptionedImages)
    return data


def good() -> dict[str, Any]:
    return {
        "images": [{"id": 2, "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"id": 9, "image_id": 1, "caption": "second"},
            {"id": 3, "image_id": 1, "caption": "first"},
            {"id": 5, "image_id": 2, "caption": "other"},
        ],
    }


def test_images_by_id_and_captions_by_annotation_id(tmp_path: Path):
    data = load_coco(*write(tmp_path, good()))
    assert data.images == ("a.png", "b.png")
    assert data.captions == (("first", "second"), ("other",))


def test_a_missing_image_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"1 of 2 images are missing, the first is b\.png"):
        load_coco(*write(tmp_path, good(), images=("a.png",)))


def test_an_image_without_caption_is_refused(tmp_path: Path):
    content = good()
    content["annotations"] = content["annotations"][:2]
    with pytest.raises(ValueError, match="annotations: image 2 has no caption"):
        load_coco(*write(tmp_path, content))


def test_a_caption_of_an_unlisted_image_is_refused(tmp_path: Path):
    content = good()
    content["annotations"].append({"id": 11, "image_id": 77, "caption": "x"})
    with pytest.raises(ValueError, match=r"annotations\[3\]\.image_id: no image has the id 77"):
        load_coco(*write(tmp_path, content))


def test_a_field_that_is_not_there_is_named(tmp_path: Path):
    content = good()
    del content["annotations"][1]["caption"]
    with pytest.raises(ValueError, match=r"annotations\[1\]\.caption: must be of type str, is missing"):
        load_coco(*write(tmp_path, content))


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    folder, file = write(tmp_path, good())
    file.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_coco(folder, file)


def test_every_mode_becomes_rgb_in_range_and_a_truncated_file_is_named(tmp_path: Path):
    for mode, value in (("L", 255), ("RGBA", (255, 255, 255, 255)), ("CMYK", (0, 0, 0, 0))):
        file = tmp_path / f"{mode}.tiff"
        Image.new(mode, (40, 36), value).save(file)
        images = load_images([file], 32)
        assert images.shape == (1, 3, 32, 32)
        torch.testing.assert_close(images, torch.ones(1, 3, 32, 32))
    broken = tmp_path / "broken.png"
    Image.effect_noise((32, 32), 50).save(broken)
    broken.write_bytes(broken.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"broken\.png"):
        load_images([broken], 32)


@given(
    n=st.integers(1, 40),
    first=st.integers(0, 200),
    count=st.integers(1, 60),
    cut=st.integers(0, 60),
    seed=st.integers(0, 9),
)
def test_the_order_does_not_depend_on_where_a_run_was_cut(
    n: int, first: int, count: int, cut: int, seed: int
):
    cut = min(cut, count)
    whole = sample_indices(n, first, count, seed)
    parts = (sample_indices(n, first, cut, seed) if cut else []) + (
        sample_indices(n, first + cut, count - cut, seed) if count > cut else []
    )
    assert whole == parts


@given(n=st.integers(1, 30), seed=st.integers(0, 5))
def test_every_epoch_shows_every_image_once(n: int, seed: int):
    indices = sample_indices(n, 0, 3 * n, seed)
    for epoch in range(3):
        assert sorted(indices[epoch * n : (epoch + 1) * n]) == list(range(n))
