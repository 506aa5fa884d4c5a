"""A small COCO folder and prompt file of a user, and the command that adopts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from addbench.__main__ import main
from tests.support.evaluation import coco_file, parti_file, picture
from tests.support.specs import copy_settings

ROWS = [(f"prompt {k}", "Animals", "Basic" if k < 2 else "Imagination") for k in range(8)]
NAMES = [f"00000000000{k}.jpg" for k in range(6)]
MODES = ("RGB", "L", "CMYK", "RGB")


def workplace(smoke_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the settings, the smoke scale's networks, and a COCO folder in `mine/`.

    Four of its six listed photographs exist, in several modes; the fourth has a rotated EXIF orientation.
    """
    copy_settings(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/smoke").symlink_to(smoke_directory / "data/smoke")
    coco_file(
        tmp_path / "mine/annotations/captions_val2017.json", {n: [f"{n} one", f"{n} two"] for n in NAMES}
    )
    (tmp_path / "mine/val2017").mkdir()
    for k, (name, mode) in enumerate(zip(NAMES[1:5], MODES, strict=True)):
        exif = Image.Exif()
        exif[0x0112] = 6 if k == 3 else 1
        image = Image.fromarray(picture(k, 48)).crop((0, 0, 48, 40))
        image.convert(mode).save(tmp_path / "mine/val2017" / name, exif=exif)
    parti_file(tmp_path / "mine/PartiPrompts.tsv", ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adopt(*options: str) -> int:
    """The command on the smoke scale and the folder `mine/`."""
    return main(
        ["--scale", "smoke", "adopt", "--coco", "mine", "--prompts", "mine/PartiPrompts.tsv", *options]
    )
