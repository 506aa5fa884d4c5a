"""The benchmark of the step: its plain step is the same step, and its program runs where there is no GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from add.models.diffusion import trainable_unet
from add.models.frozen import make_heads
from add.step import losses
from benchmarks import gpu_step, latency
from benchmarks.gpu_step import plain_losses
from benchmarks.timed import MEMORY, configurations, networks_of, random_batch, timed_run


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_plain_step_has_the_losses_of_the_step(smoke: Path, guidance: float) -> None:
    # Beside another computation, "times as fast" would mean nothing.
    run = timed_run("tiny", 4, None, precision="float32")
    training = run.training.model_copy(update={"teacher_guidance": guidance})
    run = run.model_copy(update={"training": training})
    networks = networks_of(run, "tiny", "cpu")
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, networks.student.resolution, 0)
    assert heads is not None
    heads.eval()  # spectral norm's vectors stand still
    batch = random_batch(run, networks, "cpu")
    plain, ours = plain_losses(run, networks, unet, heads, batch), losses(run, networks, unet, heads, batch)
    torch.testing.assert_close(plain[0], ours[0])
    torch.testing.assert_close(plain[1], ours[1])


def test_the_benchmark_runs_and_says_how_it_was_run(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--size", "tiny", "--batch", "2", "--repeats", "1", "--no-compile", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["gpu_step", *given, "--out", str(tmp_path)])
    gpu_step.main()
    content = json.loads((tmp_path / "gpu-step-tiny-batch2.json").read_text())
    assert content["command"].startswith("python -m benchmarks.gpu_step --size tiny --batch 2")
    plain, ours = content["rows"]
    assert plain["batch"] == ours["batch"] == 2
    assert plain["flops_per_image"] > 0
    assert content["times_plain"] == pytest.approx(ours["images_per_second"] / plain["images_per_second"])
    assert ours["share"] == pytest.approx(
        plain["flops_per_image"] * ours["images_per_second"] / content["matrix_rate"]
    )
    assert content["modelled"]["step_flops"] == pytest.approx(2 * plain["flops_per_image"], rel=1.0)
    assert set(content["latency"]) == {"1", "25", "50"}
    text = (tmp_path / "gpu-step-tiny-batch2.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "| plain |" in text


def test_latency_runs_by_itself(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--size", "tiny", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["latency", *given])
    latency.main()
    content = json.loads((tmp_path / "latency-tiny.json").read_text())
    assert content == json.loads(capsys.readouterr().out)
    assert content["command"].startswith("python -m benchmarks.latency --size tiny")
    seconds = content["seconds"]
    assert seconds.keys() == {"1", "25", "50"}
    # One repeat on a busy machine: 25 and 50 steps need not be in order.
    assert 0 < seconds["1"] < min(seconds["25"], seconds["50"])


def test_what_does_not_fit_is_tried_with_half_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def figures(run: object, size: str, device: str, repeats: int, *, plain: bool) -> tuple[float, None, int]:
        tried.append(run.training.batch)  # type: ignore[attr-defined]
        if tried[-1] > 2:
            raise torch.cuda.OutOfMemoryError
        return 0.5, None, 10

    monkeypatch.setattr(gpu_step, "step_figures", figures)
    row = gpu_step.row("tiny", 8, None, "cpu", 1)
    assert tried == [8, 4, 2]
    assert row["images_per_second"] == 4.0


def test_real_sizes_are_the_papers(smoke: Path) -> None:
    run = timed_run("sdxl", 8, MEMORY)
    assert run.training.resolution == 512
    assert run.training.performance is not None
    networks = networks_of(run, "sdxl", "meta")
    assert sum(p.numel() for p in networks.student.unet.parameters()) == pytest.approx(2567.46e6, rel=1e-4)
    assert len(networks.student.text.encoders) == 2
    assert networks.features is not None
    assert len(networks.features.layers) == 5
    assert configurations("sdxl")
