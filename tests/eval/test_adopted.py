"""Real input goes through the same stages: each runs on it, and a part of a set is never taken for the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.config.scale import CocoPromptsSpec, Scale
from add.errors import REFUSED, InputError
from addbench.__main__ import main
from eval.adopted import main as data_stage
from eval.images import decode_image
from eval.metrics.measure import rank_note
from eval.prompts import read_prompts
from eval.stage import MeasureValues, ScoreValues
from tests.support.adopting import NAMES, adopt, workplace
from tests.support.evaluation import picture, shared
from tests.support.training_data import load_images

DATA = ["--scale", "config/coco.yaml", "--out", "data/coco"]


@pytest.fixture
def here(smoke_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return workplace(smoke_directory, tmp_path, monkeypatch)


def baseline_result(scale: Scale, root: Path) -> dict[str, Any]:
    """Train, sample and score the baseline as the workflow does, in this process."""
    from add.train import train
    from eval.reference import make_reference
    from eval.sample import sample_sets
    from eval.score import score_run
    from eval.system import load_system

    table = resolve(scale, load_baseline("ablations/baseline.yaml"), load_ablations("ablations"))
    out = root / "results" / scale.name / "baseline/seed0"
    out.mkdir(parents=True)
    (out / "spec.json").write_text(table.runs["baseline"].model_dump_json())
    train(table.runs["baseline"], 0, out)
    sample_sets(load_system(str(out / "student")), scale.sampling, scale.sampling.steps, out / "samples")
    make_reference(MeasureValues.of(scale), out.parents[1] / "reference")
    return score_run(out, ScoreValues.of(scale), out.parents[1] / "reference").values()


def test_every_stage_takes_it_and_states_the_part(here: Path) -> None:
    assert adopt("--present-only") == 0
    result = baseline_result(load_scale("config/coco.yaml"), here)
    assert [(s["prompts"], s["steps"], s["images"]) for s in result["systems"]] == [
        ("coco", 1, 4), ("parti", 1, 6), ("coco", 4, 4), ("parti", 4, 6),
    ]  # fmt: skip
    assert set(result["systems"][0]["metrics"]) == {"fid", "kid", "cmmd", "clip_score"}
    fid = result["systems"][0]["metrics"]["fid"]
    assert "4 images against 4" in fid["note"]
    assert "rank of at most 3" in fid["note"]
    assert "mean nothing" in result["notice"]
    rules = [protocol["prompts"] for protocol in result["protocols"].values()]
    stated = [(r["subset"]["present"], r["subset"]["listed"]) for r in rules if r["kind"] == "coco"]
    assert stated == [(4, 6)] * 4
    assert not any("subset" in r for r in rules if r["kind"] == "partiprompts")
    reference = json.loads((here / "results/coco/reference/reference.json").read_text())
    assert reference["real"][0]["subset"] == next(r["subset"] for r in rules if r["kind"] == "coco")


def test_a_part_that_grew_shrank_or_is_not_stated_is_another_set(here: Path, capsys) -> None:
    assert adopt("--present-only") == 0
    config = load_scale("config/coco.yaml").sampling.prompts["coco"]
    photograph = here / "mine/val2017" / NAMES[1]
    data = photograph.read_bytes()
    photograph.unlink()
    with pytest.raises(InputError, match=r"holds 3 of the 6 photographs .* the scale states 4"):
        read_prompts(config)
    assert data_stage(DATA) == REFUSED
    for name in NAMES[:2]:
        (here / "mine/val2017" / name).write_bytes(data)
    with pytest.raises(InputError, match=r"holds 5 of the 6 photographs"):
        read_prompts(config)
    (here / "mine/val2017" / NAMES[0]).unlink()
    file = here / "config/coco.yaml"
    file.write_text("".join(line for line in file.open() if "present:" not in line))
    capsys.readouterr()
    assert data_stage(DATA) == REFUSED
    assert (
        f"2 of the 6 photographs that captions_val2017.json lists are missing, the first is {NAMES[0]}"
        in (capsys.readouterr().err)
    )


def test_the_data_stage_remakes_what_the_command_made(here: Path) -> None:
    assert adopt("--present-only") == 0
    files = [here / "data/coco/dataset.json", here / "data/coco/annotations/captions_train.json"]
    before = [(f.read_bytes(), f.stat().st_mtime_ns) for f in files]
    assert data_stage(DATA) == 0
    assert [(f.read_bytes(), f.stat().st_mtime_ns) for f in files] == before, "a new age reruns all"
    for file in files:
        file.unlink()
    assert data_stage(DATA) == 0
    assert [f.read_bytes() for f in files] == [content for content, _ in before]
    listing = json.loads(files[1].read_text())
    assert [i["file_name"] for i in listing["images"]] == NAMES[1:5]
    assert [a["caption"] for a in listing["annotations"][:2]] == [f"{NAMES[1]} one", f"{NAMES[1]} two"]
    assert "4 of the 6" in listing["info"]["description"]


def test_a_whole_set_states_no_part_and_keeps_the_values_it_always_had(here: Path) -> None:
    for name in (NAMES[0], NAMES[5]):
        Image.fromarray(picture(9, 40)).save(here / "mine/val2017" / name)
    assert adopt() == 0
    config = load_scale("config/coco.yaml").sampling.prompts["coco"]
    assert isinstance(config, CocoPromptsSpec)
    assert config.present is None
    assert set(config.model_dump()) == {"kind", "annotations", "caption_rule", "rule_seed", "count"}


def test_what_is_trained_on_is_decoded_as_what_is_measured(tmp_path: Path) -> None:
    image = Image.fromarray(picture(1, 32))
    clear = image.copy()
    clear.putalpha(Image.new("L", image.size, 99))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, odd in (("a.png", clear), ("b.png", deep), ("c.tif", image.convert("CMYK"))):
        odd.save(tmp_path / name)
    image.save(tmp_path / "d.png", exif=turned)
    files = sorted(tmp_path.iterdir())
    pixels = (load_images(files, 32).permute(0, 2, 3, 1).numpy() + 1) * 127.5
    assert np.array_equal(np.rint(pixels), np.stack([np.asarray(decode_image(f)) for f in files]))
    Image.fromarray(np.ones((32, 32), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif.*mode F"):
        load_images([tmp_path / "float.tif"], 32)


def test_a_singular_covariance_is_noted_from_the_rank_on() -> None:
    assert rank_note(1000, 4000, 128) is None
    assert rank_note(129, 4000, 128) is None
    assert "rank of at most 127" in (rank_note(128, 4000, 128) or "")
    assert "rank of at most 49" in (rank_note(1000, 50, 128) or "")


def test_the_real_captions_photographs_and_prompts(here: Path, capsys) -> None:
    folder, prompts = shared("coco"), shared("PartiPrompts.tsv")
    arguments = ["--scale", "smoke", "adopt", "--coco", str(folder), "--prompts", str(prompts)]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "4950 of the 5000 photographs" in err
    assert "the first is 000000000139.jpg" in err
    assert main([*arguments, "--present-only", "--steps", "1", "--captions", "8", "--prompt-count", "6"]) == 0
    facts = json.loads((here / "data/coco/dataset.json").read_text())
    assert (facts["captions"]["images"], facts["captions"]["captions"]) == (5000, 25014)
    assert facts["photographs"]["modes"] == {"L": 1, "RGB": 49}
    scale = load_scale("config/coco.yaml")
    result = baseline_result(scale, here)
    assert {s["prompts"]: s["images"] for s in result["systems"]} == {"coco": 8, "parti": 6}
    rule = next(p["prompts"] for p in result["protocols"].values() if p["prompts"]["kind"] == "coco")
    assert (rule["subset"]["present"], rule["subset"]["listed"], rule["count"]) == (50, 5000, 8)
    assert all(np.isfinite(m["value"]) for s in result["systems"] for m in s["metrics"].values())
