"""Every form of training data gives the same samples, and treats images of every kind alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from add.config.training import ResizeSpec, ShardsSpec
from add.data.images import Sample, pixels
from add.data.training_set import open_training_set, order_of
from add.errors import InputError
from tests.support.training_data import FORMS, encoded, png, write, write_tar

CAPTIONS = ["a red one", "schön, „quoted“", "two, with a comma", "four words are here", "a cat"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_samples_that_were_written_in_any_order(tmp_path: Path, form: str):
    images = [png((40 * i, 0, 0)) for i in range(5)]
    data = open_training_set(write(form, tmp_path / "set", images, CAPTIONS))
    assert len(data) == 5
    assert sum(data.blocks) == 5
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 3, 1]):
        found = data.samples(order)
        assert [sample.image for sample in found] == [images[i] for i in order]
        assert [sample.captions for sample in found] == [(CAPTIONS[i],) for i in order]


def test_a_list_of_captions_is_several_captions(tmp_path: Path):
    folder = write("jsonl", tmp_path / "folder", [png()], ["a"])
    (tmp_path / "folder/metadata.jsonl").write_text('{"file_name": "000000.png", "text": ["a", "b"]}')
    write_tar(tmp_path / "set.tar", [("0.png", png()), ("0.json", b'{"caption": ["a", "b"], "url": 1}')])
    shards = ShardsSpec(kind="webdataset", shards=f"{tmp_path}/*.tar", caption_field="caption")
    for train in (folder, shards):
        assert open_training_set(train).samples([0])[0].captions == ("a", "b")


def rotated() -> bytes:
    image = Image.new("RGB", (8, 8), "white")
    image.paste("black", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: its top is at the right
    return encoded(image, "JPEG", exif=exif, quality=100, subsampling=0)


MODES = {
    "grey": encoded(Image.new("L", (8, 8), 128)),
    "CMYK": encoded(Image.new("CMYK", (8, 8), (127, 127, 127, 0)), "JPEG", quality=100),
    "palette": encoded(Image.new("RGB", (8, 8), (128, 128, 128)).quantize()),
    "16 bits": encoded(Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))),
    "transparent": encoded(Image.new("RGBA", (8, 8), (1, 1, 1, 127))),
    "webp": encoded(Image.new("RGB", (8, 8), (128, 128, 128)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_of_every_mode_are_read_alike(tmp_path: Path, form: str):
    data = open_training_set(write(form, tmp_path / "set", [*MODES.values(), rotated()], list("abcdefg")))
    *plain, turned = pixels(data.samples(range(len(data))), 8)
    for name, image in zip(MODES, plain, strict=True):
        assert np.abs(image.astype(int) - 128).max() <= 1, name
    assert turned[:, 4:].max() < 30, (
        "the EXIF orientation was not applied: the dark half belongs at the right"
    )
    assert turned[:, :4].min() > 225


def animated() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])


BROKEN = {
    "truncated": (encoded(Image.effect_noise((32, 32), 50))[:-60], "cannot be read as an image"),
    "animated": (animated(), "holds 2 frames"),
    "float": (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "mode F"),
    "text": (b"no image at all", "cannot be read as an image: not an image"),
    "empty": (b"", "cannot be read as an image"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", BROKEN)
def test_an_image_that_cannot_be_read_whole_is_refused_by_name(tmp_path: Path, form: str, kind: str):
    broken, reason = BROKEN[kind]
    data = open_training_set(write(form, tmp_path / "set", [png(), png(), png(), broken], list("abcd")))
    place = {"saved": "data-00001-of-00002.arrow: row 1", "parquet": "00001.parquet: row 3"}.get(
        form, "000003.png"
    )
    with pytest.raises(InputError, match=reason) as caught:
        pixels(data.samples(range(4)), 8)
    assert place in str(caught.value)


@pytest.mark.parametrize(("raw", "reason"), [(b"caf\xe9", r"not UTF-8 \(byte 3\)"), (b" \n", "empty")])
def test_a_caption_that_is_not_utf8_or_empty_is_refused_by_name(tmp_path: Path, raw: bytes, reason: str):
    folder = write("text", tmp_path / "folder", [png(), png()], ["a", "b"])
    (tmp_path / "folder/000001.txt").write_bytes(raw)
    members = [("000000.png", png()), ("000000.txt", b"a"), ("000001.png", png()), ("000001.txt", raw)]
    write_tar(tmp_path / "set.tar", members)
    for train in (folder, ShardsSpec(kind="webdataset", shards=f"{tmp_path}/set.tar")):
        with pytest.raises(InputError, match=rf"000001\.txt: the caption is {reason}"):
            open_training_set(train).samples([1])


def test_the_resize_rule_is_what_it_says():
    wide = Image.new("RGB", (16, 8), "white")
    wide.paste("black", (0, 0, 4, 8))  # the left quarter, outside the centred square
    sample = Sample("wide", encoded(wide), ())

    def dark(rule: ResizeSpec | None, place: tuple[float, float] = (0.5, 0.5)) -> float:
        return float((pixels([sample], 8, rule, [place]) < 128).mean())

    assert dark(None) == dark(ResizeSpec()) == 0
    assert dark(ResizeSpec(crop="none")) == pytest.approx(0.25)
    assert dark(ResizeSpec(crop="random"), (0.0, 0.5)) == pytest.approx(0.5)
    assert dark(ResizeSpec(crop="random"), (1.0, 0.5)) == 0
    noise = Sample("noise", encoded(Image.effect_noise((20, 20), 80)), ())
    by_filter = [pixels([noise], 8, ResizeSpec(filter=f)) for f in ("bicubic", "lanczos", "bilinear", "box")]
    assert len({image.tobytes() for image in by_filter}) == 4
    assert np.array_equal(by_filter[0], pixels([noise], 8))
    with pytest.raises(ValueError, match="need a place"):
        pixels([noise], 8, ResizeSpec(crop="random"))


@pytest.mark.parametrize("form", ["shards", "parquet"])
@pytest.mark.parametrize("window", [None, 1])
def test_a_restart_in_the_middle_sees_the_same_samples(tmp_path: Path, form: str, window: int | None):
    train = write(form, tmp_path / "set", [png((i, 0, 0)) for i in range(7)], [f"c{i}" for i in range(7)])
    train = train.model_copy(update={"window": window})

    def seen(first: int, count: int) -> list[str]:
        data = open_training_set(train)  # as a new process does
        return [s.captions[0] for s in data.samples(order_of(train, data, first, count, 3))]

    whole = seen(0, 20)
    assert whole == seen(0, 9) + seen(9, 11)
    assert sorted(whole[:7]) == sorted(whole[7:14]) == [f"c{i}" for i in range(7)]
    assert whole[:7] != whole[7:14], "two epochs in one order"
