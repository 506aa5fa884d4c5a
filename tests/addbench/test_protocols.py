"""`addbench protocols`: what it prints and writes, what it refuses, and the real COCO files through it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from add.config.load import load_scale
from addbench.__main__ import main
from eval.metrics.protocol import protocol_id
from tests.support.evaluation import shared
from tests.support.protocol_sets import samples
from tests.support.specs import copy_settings, edit

FEW = "legacy_pytorch,legacy_tensorflow,both_half,samples_jpeg_75,captions_random"


@pytest.fixture
def here(smoke_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings, the smoke scale's networks and data, and a sample set for its prompts."""
    copy_settings(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/smoke").symlink_to(smoke_directory / "data/smoke")
    monkeypatch.chdir(tmp_path)
    samples(load_scale("config/smoke.yaml"), tmp_path / "drawn", seed=0)
    return tmp_path


def command(*options: str) -> int:
    return main(["--scale", "smoke", "protocols", "--samples", "drawn", *options])


def test_it_prints_and_writes_every_row_with_its_protocol(here: Path, capsys) -> None:
    assert command("--only", FEW, "--out", "out") == 0
    said = capsys.readouterr().out
    names = ["clean", *FEW.split(",")]
    with Path("out/protocols.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["protocol"] for row in rows] == names
    content = json.loads(Path("out/protocols.json").read_text("utf-8"))
    for row in rows:
        assert f"\n{row['protocol']} " in said
        assert row["why"] in said
        if not row["not_scored"]:
            assert protocol_id(content["by_id"][row["fid_protocol"]]) == row["fid_protocol"]
            assert row["fid_protocol"] in said
    assert "--samples-for captions_random=DIRECTORY" in rows[-1]["not_scored"]
    assert content["provenance"]["versions"]["clean-fid"]
    assert "notice: smoke scale" in said
    assert Path("out/protocols.md").read_text("utf-8").count("\n| ") == len(names) + 2
    assert not list(Path("out").glob(".*")), "partial files are left"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--only", "legacy_pytroch"),
            "no protocol is called 'legacy_pytroch'; did you mean 'legacy_pytorch'",
        ),
        (("--protocols", "config/protocols/absent.yaml"), "absent.yaml:1: cannot be read"),
        (("--reference", "absent"), "addbench protocols: absent: no such directory"),
        (("--samples-for", "other_seed"), "should be PROTOCOL=DIRECTORY"),
        (("--samples-for", "other_seed=a", "--samples-for", "other_seed=b"), "'other_seed' is given twice"),
        (("--samples-for", "other_seed=drawn"), "has seed 0, not 1 as stated"),
        (("--prompts", "parti"), "drawn/index.csv: lists 8 images, set 'parti' has 4 prompts"),
    ],
)
def test_bad_options_are_one_line_and_exit_1(
    options: tuple[str, ...], message: str, here: Path, capsys
) -> None:
    assert command(*options) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not captured.out


def test_other_weights_than_the_scale_names_are_refused(here: Path, capsys) -> None:
    edit(
        here / "config/smoke.yaml",
        "path: data/smoke/networks/eval_extractor",
        "path: data/smoke/networks/none",
    )
    assert command("--only", "legacy_pytorch") == 1
    assert "data/smoke/networks/none: no such directory" in capsys.readouterr().err


def test_validate_reads_the_protocol_files_too(here: Path, capsys) -> None:
    line = edit(here / "config/protocols/standard.yaml", "resize: tensorflow1", "resize: tensorflow2")
    assert main(["--scale", "smoke", "validate"]) == 1
    assert f"standard.yaml:{line}: " in capsys.readouterr().err


def test_the_real_coco_files_and_partiprompts_go_through(here: Path, capsys) -> None:
    """5,000 images and 25,014 captions are read, 50 photographs scored, 50 of 1,632 prompts drawn by `adopt`."""
    coco, parti = shared("coco"), shared("PartiPrompts.tsv")
    adopt = ["--scale", "smoke", "adopt", "--coco", str(coco), "--prompts", str(parti), "--present-only"]
    assert main(adopt) == 0
    assert "5000 images, 25014 captions" in capsys.readouterr().out.replace(",014", "014").replace(
        ",000", "000"
    )
    folder = here / "saved again"
    folder.mkdir()
    for file in sorted((coco / "val2017").iterdir()):
        with Image.open(file) as image:
            image.convert("RGB").save(folder / file.name, quality=40)
    options = ["--samples", str(folder), "--only", "legacy_tensorflow,reference_native,crop_none"]
    assert main(["--scale", "coco", "protocols", *options, "--out", "out"]) == 0
    with Path("out/protocols.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["protocol"]: row for row in csv.DictReader(stream)}
    assert {row["images"] for row in rows.values()} == {"50"}
    assert len({row["fid"] for row in rows.values()}) == 4
    assert float(rows["crop_none"]["fid"]) > float(rows["clean"]["fid"]) > 0
    by_id = json.loads(Path("out/protocols.json").read_text("utf-8"))["by_id"]
    assert by_id[rows["reference_native"]["fid_protocol"]]["image_rule"]["reference_resolution"] == "native"
    assert by_id[rows["clean"]["fid_protocol"]]["reference"]["count"] == 50
