"""The digest of a training set: what reaches training counts, in every form; where it lies and its age do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from add import digests
from add.data.contents import check_samples, data_digest
from add.errors import InputError
from tests.support.training_data import FORMS, png, write

COLOURS = ("red", "green", "blue", "white")
CAPTIONS = tuple(f"a {colour} square" for colour in COLOURS)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_SETTLED", -1e9)


def written(
    form: str, root: Path, colours: tuple[str, ...] = COLOURS, captions: tuple[str, ...] = CAPTIONS
) -> str:
    return data_digest(write(form, root, [png(colour) for colour in colours], captions))


# What `datasets` and pyarrow write holds no time, so the same samples make the same files.
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("shards", "json shards")])
def test_the_place_of_a_set_does_not_count(tmp_path: Path, form: str):
    assert written(form, tmp_path / "here") == written(form, tmp_path / "there")


@pytest.mark.parametrize("form", FORMS)
def test_age_and_files_that_no_sample_uses_do_not_count(tmp_path: Path, form: str):
    train = write(form, tmp_path / "set", [png(colour) for colour in COLOURS], CAPTIONS)
    before = data_digest(train)
    (tmp_path / "set" / ".DS_Store").write_bytes(b"\0")
    for file in (tmp_path / "set").iterdir():
        os.utime(file, (1, 1))
    assert data_digest(train) == before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_an_image_or_caption_changed_in_place_is_another_set(tmp_path: Path, form: str, last: bool):
    k = len(COLOURS) - 1 if last else 0
    before = written(form, tmp_path / "set")
    colours, captions = list(COLOURS), list(CAPTIONS)
    colours[k] = "black"
    other_image = written(form, tmp_path / "set", tuple(colours))
    captions[k] = captions[k].replace("square", "circle")
    other_caption = written(form, tmp_path / "set", captions=tuple(captions))
    assert len({before, other_image, other_caption}) == 3
    assert written(form, tmp_path / "set") == before or "shards" in form


def test_captions_written_otherwise_are_the_same_set(tmp_path: Path):
    train = write("coco", tmp_path / "set", [png(colour) for colour in COLOURS], CAPTIONS)
    before = data_digest(train)
    file = tmp_path / "set.json"
    file.write_text(
        file.read_text().replace('{"images"', '{"info": {"year": 2026}, "images"').replace(", ", ",\n")
    )
    assert data_digest(train) == before


def test_a_set_with_problems_has_no_digest(tmp_path: Path):
    train = write("text", tmp_path / "set", [png(colour) for colour in COLOURS], CAPTIONS)
    (tmp_path / "set" / "000001.txt").unlink()
    with pytest.raises(InputError, match=r"000001\.png: an image without a caption"):
        data_digest(train)


@pytest.mark.parametrize("form", FORMS)
def test_every_sample_is_looked_at_and_every_fault_named(tmp_path: Path, form: str):
    images = [png(colour) for colour in COLOURS]
    images[1], images[3] = images[1][:-20], b"no image"
    train = write(form, tmp_path / "set", images, CAPTIONS)
    with pytest.raises(InputError) as refused:
        check_samples(train, data_digest(train))
    assert len(refused.value.problems) == 2
    if form in ("coco", "text"):
        assert [Path(p.split(":")[0]).name for p in refused.value.problems] == ["000001.png", "000003.png"]


def test_a_set_that_was_whole_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train = write("coco", tmp_path / "set", [png(colour) for colour in COLOURS], CAPTIONS)
    check_samples(train, data_digest(train))
    monkeypatch.setattr("add.data.contents.decoded_rgb", lambda *_: pytest.fail("decoded again"))
    check_samples(train, data_digest(train))


def test_a_set_that_was_mended_is(tmp_path: Path):
    train = write("coco", tmp_path / "set", [png("red"), b"no image"], CAPTIONS[:2])
    with pytest.raises(InputError, match=r"000001\.png"):
        check_samples(train, data_digest(train))
    (tmp_path / "set" / "000001.png").write_bytes(png("blue"))
    check_samples(train, data_digest(train))
