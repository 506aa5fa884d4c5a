"""A study as files: blind, reproducible, whole or not at all; and what is refused before anyone votes."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from add.errors import REFUSED, InputError
from eval.preferences.damage import cell_damage
from eval.preferences.key import ATTENTION_CHECK, read_key
from eval.preferences.reader import read_votes, write_votes
from eval.preferences.record import UNKNOWN
from eval.preferences.study.make import main
from eval.preferences.study.page import code, destroyed, png, served_page
from eval.preferences.study.plan import rater_name, read_study
from tests.support.browser import HOSTILE, SYSTEMS, small_study, write_systems
from tests.support.evaluation import picture

Change = Callable[[Path], object]


def chunks(content: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG by type; the bytes of chunks of one type joined."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    found: dict[bytes, bytes] = {}
    position = 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        found[kind] = found.get(kind, b"") + content[position + 8 : position + 8 + length]
        position += length + 12
    return found


def needles(directory: Path) -> list[bytes]:
    """What must not be found: names of systems and of their files, as text and in base64 at each of 3 offsets."""
    plain = [
        *SYSTEMS,
        *(name.split()[0] for name in SYSTEMS),
        ATTENTION_CHECK,
        "samples-",
        ".png,",
        str(directory),
    ]
    encoded = [
        base64.b64encode(b"x" * k + name.encode())[4 if k else 0 : -4] for name in SYSTEMS for k in range(3)
    ]
    return [text.encode() for text in plain] + encoded


def test_no_name_of_a_system_is_anywhere_but_in_the_key(tmp_path: Path) -> None:
    systems = write_systems(tmp_path)
    for k, name in enumerate(SYSTEMS):
        for file in (tmp_path / f"samples-{k}").glob("*.png"):
            info = PngInfo()
            info.add_text("parameters", f"made by {name}")
            info.add_itxt("model", name, zip=True)
            Image.open(file).save(file, pnginfo=info)
    out = tmp_path / "study"
    assert main([*f"--systems {systems} --out {out} --raters 2 --votes-per-pair 9 --seed 4".split()]) == 0
    study = read_study(out)
    key = out / f"{study.study}.key.json"
    assert all(name in key.read_text() for name in SYSTEMS), "the search would find nothing anywhere"
    wanted = needles(tmp_path)
    files = [file for file in out.rglob("*") if file.is_file() and file != key]
    assert len(files) == 1 + 2 + len(study.images())
    contents = {file.relative_to(out).as_posix(): file.read_bytes() for file in files}
    contents["served"] = served_page(study)[0].encode()
    for name, content in contents.items():
        for image in re.findall(rb'<script type="text/plain" id="[a-z-]+">([^<]*)<', content):
            assert base64.b64decode(image) in contents.values(), (
                "a page shows an image that is not the study's"
            )
        if name.endswith(".png"):
            parts = chunks(content)
            assert set(parts) == {b"IHDR", b"IDAT", b"IEND"}
            content += zlib.decompress(parts[b"IDAT"])
        for needle in wanted:
            assert needle not in content, f"{needle!r} is in {name}"
            assert needle not in name.encode()


def test_the_pages_load_nothing_and_hold_prompts_as_data(tmp_path: Path) -> None:
    study, directory = small_study(tmp_path, votes=12)
    page = (directory / "pages" / "rater-01.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page
    assert "connect-src" not in page
    assert "'unsafe" not in page
    assert not re.search(r"https?://|innerHTML|document\.write|eval\(", page)
    assert page.count("<script") == 2 + len(study.images("rater-01"))
    assert "\u2028" not in page
    config = re.search(r'id="config">(.*?)</script>', page)
    assert config is not None
    assert HOSTILE in json.loads(config[1])["prompts"].values()


def test_the_same_input_gives_the_same_bytes_and_other_input_another_study(tmp_path: Path) -> None:
    systems = write_systems(tmp_path)

    def made(out: str, seed: int) -> dict[str, bytes]:
        line = f"--systems {systems} --out {tmp_path / out} --raters 1 --votes-per-pair 3 --seed {seed}"
        assert main(line.split()) == 0
        return {
            f.relative_to(tmp_path / out).as_posix(): f.read_bytes() for f in (tmp_path / out).rglob("*.*")
        }

    first = made("a", 1)
    assert first == made("b", 1)
    assert not {name for name in made("c", 2) if "key" in name or "images" in name} & set(first)
    Image.fromarray(picture(9999)).save(tmp_path / "samples-0" / "000000.png")
    other = read_study(tmp_path / "a").study, (made("d", 1), read_study(tmp_path / "d").study)[1]
    assert len(set(other)) == 2, "other pixels under the same study id"


def test_any_answers_to_a_study_can_be_read_with_its_key(tmp_path: Path) -> None:
    study, directory = small_study(tmp_path, raters=2)
    key = read_key(directory / f"{study.study}.key.json")
    assert set(key.images) == set(study.images())
    time = "2026-01-02T03:04:05.678Z"
    votes = [study.vote(t, name, "a", time) for name, trials in study.lists.items() for t in trials]
    write_votes(tmp_path / "votes.csv", votes)
    read = read_votes(tmp_path / "votes.csv", SYSTEMS, {study.study: key})
    checks = [vote for vote in read if vote.attention_check != "no"]
    assert len(checks) == 4
    for vote in checks:
        damaged = "b" if vote.attention_check == "a" else "a"
        assert getattr(vote, f"system_{damaged}") == ATTENTION_CHECK
        image = f"image_{vote.attention_check}"
        assert getattr(vote, f"image_{damaged}") == f"{getattr(vote, image)}, destroyed"
        assert getattr(vote, image).startswith(getattr(vote, f"system_{vote.attention_check}"))


def test_a_destroyed_image_keeps_no_shape_and_a_png_keeps_every_pixel() -> None:
    pixels = picture(3, 64)
    gone = destroyed(pixels, 1)
    assert gone.shape == pixels.shape
    assert np.array_equal(gone, destroyed(pixels, 1))
    assert abs(np.corrcoef(pixels.ravel(), gone.ravel())[0, 1]) < 0.35
    import io

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9a-zA-Z .e-]{1,9}", fullmatch=True)))
@example("1.0E-05")
@example("May-5")
@example("3.4.2026")
@example("unknown")
def test_the_reader_takes_every_name_that_raters_may_choose(text: str) -> None:
    if (name := rater_name(text)) is not None:
        assert cell_damage(name, is_text=False) is None
        assert name != UNKNOWN
        assert rater_name(name) == name


def test_codes_are_letters_that_depend_on_every_part() -> None:
    codes = {
        code(s, k, *p) for s in (0, 1) for k in ("sys", "img") for p in (("a",), ("b",), ("a", "b"), ("ab",))
    }
    assert len(codes) == 16
    assert all(re.fullmatch(r"(sys|img)-[bcdfghjkmnpqrstvwxz]{12}", each) for each in codes)


def test_larger_images_are_downsampled_to_the_smallest(tmp_path: Path) -> None:
    systems = write_systems(tmp_path)
    for file in (tmp_path / "samples-0").glob("*.png"):
        Image.fromarray(picture(7, 32)).save(file)
    line = f"--systems {systems} --out {tmp_path / 'study'} --raters 1 --votes-per-pair 2 --seed 1"
    assert main(line.split()) == 0
    sizes = {Image.open(file).size for file in (tmp_path / "study" / "images").iterdir()}
    assert sizes == {(16, 16)}


def rewrite(root: Path, old: str, new: str) -> None:
    index = root / "samples-1" / "index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def rename(root: Path, name: str) -> None:
    entries = json.loads((root / "systems.json").read_text())
    entries[1]["name"] = name
    (root / "systems.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda r: (r / "samples-1" / "000003.png").unlink(), "", "samples-1/000003.png: is missing"),
        (
            lambda r: rewrite(r, "parti-0004", "parti-0099"),
            "",
            "has no image for 1 prompts that .*: parti-0004",
        ),
        (lambda r: rewrite(r, "scene, 4 ", "scene, four "), "", "prompt 'parti-0004' is .*four"),
        (lambda r: rewrite(r, "parti-0004", "parti-0005"), "", "'parti-0005' has two images"),
        (lambda r: rewrite(r, "parti-0004", "2026-01-02"), "", "has no image for"),
        (lambda r: rewrite(r, "parti-0004", "3.4.2026"), "", "'3.4.2026' is a date"),
        (lambda r: rename(r, SYSTEMS[0]), "", "name 'Kestrel one step' is there twice"),
        (lambda r: rename(r, "=system"), "", "'=system' starts with '='"),
        (lambda r: rename(r, ATTENTION_CHECK), "", "no system may be called 'attention-check'"),
        (lambda r: (r / "systems.json").write_text('[{"name": "a"}]'), "", "0.samples: Field required"),
        (lambda r: (r / "systems.json").unlink(), "", "systems.json: cannot be read"),
        (lambda r: (r / "samples-1" / "000002.png").write_bytes(b"png"), "", "samples-1/000002.png"),
        (lambda r: (r / "study").mkdir() or (r / "study" / "votes.sqlite3").touch(), "", "may hold answers"),
        (lambda r: None, "--prompts 13", "13 prompts are asked for, 12 have images"),
        (lambda r: None, "--size 17", "images are never enlarged"),
        (lambda r: None, "--trials-per-rater 5", "more than trials_per_rater = 5"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, options: str, message: str
) -> None:
    systems = write_systems(tmp_path)
    change(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    line = f"--systems {systems} --out {tmp_path / 'study'} --raters 1 --votes-per-pair 12 --seed 1 {options}"
    assert main(line.split()) == REFUSED
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ties"), "ties: Field required"),
        (lambda s: s.update(extra=1), "extra: Extra inputs"),
        (lambda s: s["lists"]["rater-01"][1].update(id="t0001"), "a trial's id is there twice"),
        (lambda s: s["lists"]["rater-01"][1].update(prompt_id="x"), "no prompt has the id 'x'"),
        (lambda s: s["lists"]["rater-01"][1].update(image_a="../key"), "image_a: String should match"),
        (lambda s: s["lists"]["rater-01"][1].update(image_a="img-none"), "img-none.png: is missing"),
    ],
)
def test_a_damaged_study_is_refused(tmp_path: Path, change: Callable[..., object], message: str) -> None:
    _, directory = small_study(tmp_path, votes=1)
    content = json.loads((directory / "study.json").read_text())
    change(content)
    (directory / "study.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_study(directory)
