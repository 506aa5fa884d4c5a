"""Images that were made elsewhere: taken in by a stated rule, or refused with every reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from add.errors import REFUSED, InputError
from eval.handed_in import assigned, main, read_assignment, take_in
from eval.images import read_samples
from eval.prompts import Prompt

SIDE = 16
PROMPTS = tuple(Prompt(str(k), f'prompt {k}, "quoted"') for k in range(4))
FACTS = {"system": "C", "prompts": "parti", "steps": 1}


def picture(seed: int, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, in another order than the prompts, and one of another prompt."""
    made = tmp_path / "images"
    made.mkdir()
    lines = []
    for k, prompt in enumerate(PROMPTS):
        picture(k).save(made / f"{9 - k}.png")
        lines.append({"file": f"{9 - k}.png", "prompt": prompt.prompt, "model": "x"})
    picture(9).save(made / "0.png")
    lines.append({"file": "0.png", "prompt": "of another set", "model": "x"})
    write_index(made / "index.csv", lines)
    return made


def write_index(path: Path, lines: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def taken(folder: Path, out: Path, assignment: Path | None = None) -> Path:
    take_in(folder, assignment, PROMPTS, 7, SIDE, out, FACTS)
    return out


def test_images_become_a_sample_set_in_the_order_of_the_prompts(folder: Path, tmp_path: Path):
    samples = read_samples(taken(folder, tmp_path / "out"), SIDE)
    assert [(s.prompt_id, s.prompt, s.seed) for s in samples.samples] == [
        (p.prompt_id, p.prompt, 7) for p in PROMPTS
    ]
    (pixels,) = samples.batches(4)
    for k in range(4):
        assert (pixels[k] == np.asarray(picture(k))).all()
    facts = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert facts["sampler"]["of other prompts, left out"] == 1
    assert facts["handed_in"] is True


def test_a_text_of_prompts_is_for_the_images_in_the_order_of_their_names(folder: Path, tmp_path: Path):
    lines = ["of another set", *(p.prompt for p in reversed(PROMPTS))]
    text = tmp_path / "prompts.txt"
    text.write_text("\n".join(lines) + "\n")
    by_text = taken(folder, tmp_path / "a", text)
    by_index = taken(folder, tmp_path / "b")
    assert [f.read_bytes() for f in sorted(by_text.glob("*.png"))] == [
        f.read_bytes() for f in sorted(by_index.glob("*.png"))
    ]
    text.write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match=r"has 4 lines, and .* 5 images"):
        read_assignment(folder, text)


def test_numbers_without_zeros_in_front_are_no_order(tmp_path: Path):
    """Breaks when 10.png is taken for the second prompt: all scores would be of other prompts."""
    for k in range(11):
        picture(k).save(tmp_path / f"{k}.png")
    text = tmp_path / "prompts.txt"
    text.write_text("".join(f"prompt {k}\n" for k in range(11)))
    with pytest.raises(InputError, match=r"where 10\.png comes before 2\.png"):
        read_assignment(tmp_path, text)
    for k in range(11):
        (tmp_path / f"{k}.png").rename(tmp_path / f"{k:02d}.png")
    assert read_assignment(tmp_path, text)["prompt 10"] == ["10.png"]


@pytest.mark.parametrize(
    "names", [("img.png", "img1.png"), ("cat-a.png", "cat2.png"), ("1.png", "1b.png", "2.png")]
)
def test_names_that_numbers_order_alike_are_taken(tmp_path: Path, names: tuple[str, ...]):
    for name in names:
        picture(0).save(tmp_path / name)
    text = tmp_path / "prompts.txt"
    text.write_text("".join(f"of {name}\n" for name in names))
    assert read_assignment(tmp_path, text) == {f"of {name}": [name] for name in names}


def test_a_caption_that_the_set_has_twice_has_two_images(folder: Path, tmp_path: Path):
    """Breaks when one image counts for each of them: FID and the Vendi score would be of copies."""
    twice = (*PROMPTS, Prompt("again", PROMPTS[0].prompt, None, None))
    text = [p.prompt for p in twice]
    with pytest.raises(InputError, match=r"names too few images for 1 of 4 .* \(2 wanted, 1 there\)"):
        assigned(folder, None, text)
    lines = [{"file": f"{9 - k}.png", "prompt": p.prompt} for k, p in enumerate(PROMPTS)]
    write_index(folder / "index.csv", [*lines, {"file": "0.png", "prompt": PROMPTS[0].prompt}])
    assert assigned(folder, None, text) == (["9.png", "8.png", "7.png", "6.png", "0.png"], 0)
    take_in(folder, None, twice, 7, SIDE, tmp_path / "out", FACTS)
    (pixels,) = read_samples(tmp_path / "out", SIDE).batches(5)
    assert (pixels[4] == np.asarray(picture(9))).all()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("L", "L to RGB"),
        ("CMYK", "CMYK to RGB"),
        ("P", "P to RGB"),
        ("RGBA", "RGBA to RGB"),
        ("16 bits", "16 bits a channel to 8"),
        ("larger", "32x32 to 16x16"),
    ],
)
def test_what_is_converted_is_listed(
    folder: Path, tmp_path: Path, kind: str, change: str, capsys: pytest.CaptureFixture[str]
):
    name = "9.png"
    if kind == "16 bits":
        deep = np.random.default_rng(0).integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16)
        Image.fromarray(deep).save(folder / name)
    elif kind == "larger":
        picture(0, 32).save(folder / name)
    elif kind == "CMYK":
        name = "9.tif"
        picture(0).convert("CMYK").save(folder / name)
        index = (folder / "index.csv").read_text()
        (folder / "index.csv").write_text(index.replace("9.png", name))
    else:
        picture(0).convert(kind).save(folder / name)
    facts = json.loads((taken(folder, tmp_path / "out") / "samples.json").read_text())
    assert facts["sampler"]["converted"] == {change: 1}
    assert f"{change}: 1 of 4 images: {name}" in capsys.readouterr().err
    read_samples(tmp_path / "out", SIDE)


def test_every_image_that_cannot_be_used_is_named_at_once(folder: Path, tmp_path: Path):
    (folder / "9.png").unlink()
    whole = (folder / "8.png").read_bytes()
    (folder / "8.png").write_bytes(whole[: len(whole) // 2])
    picture(0, 8).save(folder / "7.png")
    Image.new("RGB", (SIDE, SIDE), "red").save(folder / "6.png")
    with pytest.raises(InputError) as error:
        taken(folder, tmp_path / "out")
    problems = error.value.problems
    assert len(problems) == 4, problems
    for problem, (name, reason) in zip(
        problems,
        [
            ("9.png", "cannot be read"),
            ("8.png", "cannot be read"),
            ("7.png", "is 8x8"),
            ("6.png", "one colour"),
        ],
        strict=True,
    ):
        assert name in problem
        assert reason in problem
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_square_are_refused(folder: Path, tmp_path: Path):
    picture(0, 32).crop((0, 0, 32, 20)).save(folder / "9.png")
    with pytest.raises(InputError, match="is 32x20; images to be measured are square"):
        taken(folder, tmp_path / "out")


def test_a_prompt_without_image_or_with_two_is_refused(folder: Path, tmp_path: Path):
    lines = [{"file": f"{9 - k}.png", "prompt": p.prompt} for k, p in enumerate(PROMPTS)]
    write_index(folder / "index.csv", lines[:-1])
    with pytest.raises(
        InputError, match=r"names too few images for 1 of 4 prompts: 'prompt 3.* \(1 wanted, 0 there\)"
    ):
        taken(folder, tmp_path / "out")
    write_index(folder / "index.csv", [*lines, {"file": "0.png", "prompt": PROMPTS[0].prompt}])
    with pytest.raises(
        InputError, match=r"names 2 images for 'prompt 0.*, and the set has that prompt 1 time"
    ):
        taken(folder, tmp_path / "out")
    write_index(folder / "index.csv", [{"file": "0.png", "prompt": p.prompt} for p in PROMPTS])
    with pytest.raises(InputError, match=r"line 3: the file '0\.png' is in line 2 already"):
        taken(folder, tmp_path / "out")
    write_index(folder / "index.csv", [{"file": "../x.png", "prompt": "a"}])
    with pytest.raises(InputError, match=r"line 2: '\.\./x\.png' is not the name of a file"):
        taken(folder, tmp_path / "out")
    write_index(folder / "index.csv", [{"name": "a.png", "prompt": "a"}])
    with pytest.raises(InputError, match="should have one column 'file'"):
        taken(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('0.png,"a cat" x', "line 2: no row of a table"),
        ('0.png,"a cat', "line 2: no row of a table"),
        ("0.png,a cat, on a mat", "line 2: has 3 fields, the header has 2"),
        ("0.png," + "x" * 200_000, "line 2: no row of a table: field larger than field limit"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_number(folder: Path, row: str, reason: str):
    (folder / "index.csv").write_text(f"file,prompt\n{row}\n")
    with pytest.raises(InputError, match=reason):
        read_assignment(folder, None)


def test_the_images_own_folder_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(folder.iterdir())
    command = [
        "--images",
        str(folder),
        "--set",
        "parti",
        "--steps",
        "1",
        "--label",
        "X",
        "--scale",
        "config/smoke.yaml",
    ]
    assert main([*command, "--out", str(folder.parent)]) == REFUSED, (
        "it would be replaced with the images in it"
    )
    assert main([*command, "--out", str(folder)]) == REFUSED
    assert "is the images' own folder" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
    with pytest.raises(SystemExit):
        main([*command[:5], "0", *command[6:], "--out", "elsewhere"])
