"""An image set is read whole, upright and in order, or it is refused by the name of the file at fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from add.errors import InputError
from eval.images import decode_image, image_folder, named_images, on_disk, read_samples, to_square
from tests.support.evaluation import SIDE, picture, shared, write_pictures, write_samples

PROMPTS = [("1", 'with "quotes", and a comma'), ("2", "with a\nline break"), ("3", "plain ")]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "coco-1step", PROMPTS, 1)


def consume(directory: Path, size: int = 2) -> np.ndarray:
    return np.concatenate(list(read_samples(directory, SIDE).batches(size)))


def test_a_whole_set_comes_in_the_order_of_its_index(samples: Path) -> None:
    opened = read_samples(samples, SIDE)
    assert [(s.prompt_id, s.prompt) for s in opened.samples] == PROMPTS
    assert (len(opened), opened.steps, opened.seconds) == (3, 1, 0.5)
    assert np.array_equal(consume(samples), np.stack([picture(500 + k) for k in range(3)]))
    assert np.array_equal(consume(samples, 1), consume(samples, 3)), "pixels depend on the batch"


def unfinished(d: Path) -> Path:
    (d / "samples.json").unlink()
    return d / "samples.json"


def missing(d: Path) -> Path:
    (d / "000001.png").unlink()
    return d / "000001.png"


def surplus(d: Path) -> Path:
    (d / "000009.png").write_bytes((d / "000001.png").read_bytes())
    return d / "000009.png"


def truncated(d: Path) -> Path:
    data = (d / "000001.png").read_bytes()
    (d / "000001.png").write_bytes(data[: len(data) // 2])
    return d / "000001.png"


def without_end(d: Path) -> Path:
    (d / "000001.png").write_bytes((d / "000001.png").read_bytes()[:-12])
    return d / "000001.png"


def flipped(d: Path) -> Path:
    data = bytearray((d / "000001.png").read_bytes())
    data[len(data) // 2] ^= 1
    (d / "000001.png").write_bytes(data)
    return d / "000001.png"


def empty(d: Path) -> Path:
    (d / "000001.png").write_bytes(b"")
    return d / "000001.png"


def small(d: Path) -> Path:
    Image.fromarray(picture(1, SIDE - 1)).save(d / "000001.png")
    return d / "000001.png"


def grey(d: Path) -> Path:
    Image.fromarray(picture(1)).convert("L").save(d / "000001.png")
    return d / "000001.png"


def jpeg(d: Path) -> Path:
    Image.fromarray(picture(1)).save(d / "000001.png", format="JPEG")
    return d / "000001.png"


def no_index(d: Path) -> Path:
    (d / "index.csv").unlink()
    return d / "index.csv"


def short_index(d: Path) -> Path:
    lines = (d / "index.csv").read_text().splitlines(keepends=True)
    (d / "index.csv").write_text("".join(lines[:-1]))
    return d / "samples.json"


def twice_in_index(d: Path) -> Path:
    text = (d / "index.csv").read_text()
    (d / "index.csv").write_text(text.replace("000002.png", "000000.png"))
    return d / "index.csv"


def outside(d: Path) -> Path:
    text = (d / "index.csv").read_text()
    (d / "index.csv").write_text(text.replace("000002.png", "../000002.png"))
    return d / "index.csv"


def wrong_columns(d: Path) -> Path:
    text = (d / "index.csv").read_text()
    (d / "index.csv").write_text(text.replace("prompt_id", "id"))
    return d / "index.csv"


def wrong_seed(d: Path) -> Path:
    text = (d / "index.csv").read_text()
    (d / "index.csv").write_text(text.replace(",7,1001", ",seven,1001"))
    return d / "index.csv"


def odd_facts(d: Path) -> Path:
    (d / "samples.json").write_text(json.dumps({"steps": 1, "seconds": 1.0}))
    return d / "samples.json"


BREAKS = [
    (unfinished, "did not finish"),
    (missing, "is missing"),
    (surplus, "not in index.csv"),
    (truncated, "cannot be read as an image: "),
    (without_end, "cannot be read as an image: "),
    (flipped, "cannot be read as an image: "),
    (empty, "cannot be read as an image: not an image"),
    (small, "15x15"),
    (grey, "mode L"),
    (jpeg, "is a JPEG"),
    (no_index, "is missing"),
    (short_index, "lists 2 images"),
    (twice_in_index, "listed twice"),
    (outside, "beside the index"),
    (wrong_columns, "columns"),
    (wrong_seed, "not a whole number"),
    (odd_facts, "'count'"),
]


@pytest.mark.parametrize(("damage", "reason"), BREAKS, ids=[b.__name__ for b, _ in BREAKS])
def test_a_set_that_is_not_whole_is_refused_by_name(samples: Path, damage, reason: str) -> None:
    at_fault = damage(samples)
    with pytest.raises(InputError, match=reason) as caught:
        consume(samples)
    assert str(caught.value).startswith(f"{at_fault}: ")
    assert str(at_fault) in str(caught.value)


def test_the_hash_of_a_set_sees_every_pixel(samples: Path) -> None:
    before = read_samples(samples, SIDE).sha256()
    assert before == read_samples(samples, SIDE).sha256()
    small_change = picture(501)
    small_change[0, 0, 0] ^= 1
    Image.fromarray(small_change).save(samples / "000001.png")
    assert read_samples(samples, SIDE).sha256() != before


def gradient() -> Image.Image:
    ramp = np.zeros((8, 12, 3), np.uint8)
    ramp[..., 0] = np.arange(12) * 20
    ramp[..., 1] = np.arange(8)[:, None] * 30
    return Image.fromarray(ramp)


def test_every_mode_becomes_upright_rgb(tmp_path: Path) -> None:
    image = gradient()
    expected = np.asarray(image).astype(int)
    image.convert("L").save(tmp_path / "grey.png")
    assert np.array_equal(
        np.asarray(decode_image(tmp_path / "grey.png")),
        np.repeat(np.asarray(image.convert("L"))[..., None], 3, 2),
    )
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert decode_image(tmp_path / "deep.png").tobytes() == decode_image(tmp_path / "grey.png").tobytes()
    Image.fromarray(deep).save(tmp_path / "named.png", transparency=int(deep[0, 0]))
    shown = np.asarray(decode_image(tmp_path / "named.png"))[..., 0]
    assert (shown[deep == deep[0, 0]] == 255).all(), "the value that a 16-bit PNG calls transparent is white"
    assert np.array_equal(shown[deep != deep[0, 0]], (deep // 257)[deep != deep[0, 0]])
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(np.asarray(decode_image(tmp_path / "cmyk.tif")).astype(int) - expected).max() <= 1
    image.quantize(64).save(tmp_path / "palette.png")
    assert decode_image(tmp_path / "palette.png").mode == "RGB"
    clear = image.copy()
    clear.putalpha(Image.new("L", image.size, 0))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(decode_image(tmp_path / "clear.png")).min() == 255, (
        "what is transparent should be white"
    )
    rotated = Image.Exif()
    rotated[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "turned.png", exif=rotated)
    assert np.array_equal(np.asarray(decode_image(tmp_path / "turned.png")), np.rot90(np.asarray(image), -1))


def test_what_cannot_be_one_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="mode F"):
        decode_image(tmp_path / "float.tif")
    frames = [Image.fromarray(picture(k)) for k in range(2)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames"):
        decode_image(tmp_path / "two.tif")
    gradient().resize((99, 99)).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.jpg.*truncated"):
        decode_image(tmp_path / "cut.jpg")


def test_crop_center_keeps_the_shape_of_things_and_none_keeps_all_of_the_picture() -> None:
    image = gradient()
    centre = to_square(image, 8, "center")
    assert np.array_equal(centre, np.asarray(image)[:, 2:10])
    squashed = to_square(image, 8, "none")
    assert squashed.shape == (8, 8, 3)
    assert squashed[0, 0, 0] < 15
    assert squashed[0, -1, 0] > 205, "the picture's right edge is gone"


def test_a_folder_is_read_sorted_and_strictly(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, range(3))
    (tmp_path / "000000.png").rename(tmp_path / "b.png")
    (tmp_path / ".hidden").touch()
    folder = image_folder(tmp_path, SIDE, "none")
    assert [f.name for f in folder.files] == ["000001.png", "000002.png", "b.png"]
    assert [f.name for f in image_folder(tmp_path, SIDE, "none", 2).files] == names[1:]
    with pytest.raises(InputError, match="4 images are asked for, 3 are there"):
        image_folder(tmp_path, SIDE, "none", 4)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt.*not an image"):
        image_folder(tmp_path, SIDE, "none")
    with pytest.raises(InputError, match="no such directory"):
        image_folder(tmp_path / "absent", SIDE, "none")


def test_listed_images_that_are_missing_are_counted_and_named(tmp_path: Path) -> None:
    folder, annotations = tmp_path / "val", tmp_path / "annotations/captions_val.json"
    names = write_pictures(folder, range(3))
    wanted = [names[2], "x.png", names[0], "y.png"]
    with pytest.raises(InputError, match=r"2 of 4 images are missing: x\.png, y\.png"):
        named_images(folder, wanted, SIDE, "none")
    assert on_disk(annotations, wanted) == (names[0], names[2])
    batch = next(named_images(folder, [names[2], names[0]], SIDE, "none").batches(5))
    assert np.array_equal(batch, np.stack([picture(2), picture(0)]))


def test_the_real_photographs() -> None:
    folder = image_folder(shared("coco/val2017"), 32, "center")
    assert len(folder) == 50
    images = np.concatenate(list(folder.batches(20)))
    assert images.shape == (50, 32, 32, 3)
    assert images.dtype == np.uint8
    assert 60 < images.mean() < 180
