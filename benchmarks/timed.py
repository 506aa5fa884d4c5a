"""What the GPU benchmarks time: the baseline at a real size on networks with random weights; and how they time it."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from add.batch import Batch
from add.config.load import load_baseline, load_scale
from add.config.resolve import resolve
from add.config.run import Run
from add.device import synchronise
from add.models.frozen import FrozenNetworks, load_frozen_networks
from addbench.cost.random_init import build_frozen_networks

Size = Literal["sd21", "sdxl", "tiny"]
FOLDER = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parents[1]
CONFIGURATIONS = ROOT / "config" / "networks"
DIRECTORIES = {"sd21": "sd21-base", "sdxl": "sdxl-base"}
C_TEXT = "ViT-g-14"  # open_clip's name of the paper's c_text
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
RESOLUTION = 512  # the paper's, for SDXL students too
SPEED: dict[str, Any] = {
    "channels_last": True,
    "gradient_checkpointing": ["decoder"],
    "frozen_precision": "bf16",
    "compile": True,
}
"""The performance options that `benchmarks.gpu_step` uses by default."""
MEMORY: dict[str, Any] = {
    "channels_last": True,
    "gradient_checkpointing": ["unet", "decoder", "features"],
    "frozen_precision": "bf16",
    "eight_bit_optimiser": True,
}
"""All performance options that save memory."""


def timed_run(size: Size, batch: int, performance: dict[str, Any] | None, precision: str = "bf16") -> Run:
    """The baseline variant with the networks of `size`; `tiny` is the smoke scale unchanged.

    All settings except the batch are the smoke scale's. Of what a step computes, three differ from `config/paper.yaml`:
    its teacher is guided, which takes a second pass, and it augments and crops what the features see.
    """
    scale = load_scale(ROOT / "config" / "smoke.yaml")
    table = resolve(scale, load_baseline(ROOT / "ablations" / "baseline.yaml"), ())
    values = table.runs["baseline"].model_dump(mode="json")
    values["training"] |= {"batch": batch, "precision": precision, "virtual_batch": min(8, batch)}
    values["training"]["crop_probability"] = 0.0  # as in the plain step: the features see whole images
    if performance is not None:
        values["training"]["performance"] = performance
    if size != "tiny":
        values["training"]["resolution"] = RESOLUTION
        _use_real_networks(values, DIRECTORIES[size])
    return Run.model_validate_json(json.dumps(values))


def configurations(size: Size) -> dict[str, str]:
    """The configurations that `addbench.cost.random_init` needs in addition to the run's own paths."""
    return {} if size == "tiny" else {C_TEXT: C_TEXT}


def networks_of(run: Run, size: Size, device: str) -> FrozenNetworks:
    """The run's frozen networks on `device`: random weights, or the smoke scale's saved ones for `tiny`."""
    if size == "tiny":
        return load_frozen_networks(run, device)
    return build_frozen_networks(run, device, configurations(size))


def random_batch(run: Run, networks: FrozenNetworks, device: str, seed: int = 0) -> Batch:
    """A batch of noise in place of photographs: a step's time does not depend on their content."""
    draw = torch.Generator().manual_seed(seed)
    size, side = run.training.batch, networks.student.resolution
    noise = [torch.randn(size, *networks.student.latent_shape, generator=draw) for _ in range(2)]
    return Batch(
        real=(torch.rand(size, 3, side, side, generator=draw) * 2 - 1).to(device),
        prompts=("a red circle",) * size,
        s=torch.full((size,), 749, device=device),
        t=torch.full((size,), 400, device=device),
        noise=noise[0].to(device),
        noise_t=noise[1].to(device),
        draws=draw,
    )


def _use_real_networks(values: dict[str, Any], pipeline: str) -> None:
    networks, variant = values["networks"], values["variant"]
    student = variant["teacher"] = variant["student"]
    diffusion = networks["diffusion"][student] | {"path": str(CONFIGURATIONS / pipeline), "sha256": None}
    networks["diffusion"] = {student: diffusion}
    features = {"image_size": 224, **IMAGENET, "revision": None, "sha256": None}
    judge = variant["discriminator"]["features"]
    # StyleGAN-T's five layers of a ViT-S, in the paper's default features.
    layers = [0, 3, 6, 9, 12]
    networks["features"] = {
        judge: {"path": str(CONFIGURATIONS / "dinov2-small"), "layers": layers, **features}
    }
    networks["c_img"] = {"path": str(CONFIGURATIONS / "dinov2-large"), **features}
    networks["c_text"] = {"path": C_TEXT, "revision": None, "sha256": None}


def device_name(device: str) -> str:
    """The device's name in results: the GPU's, or the processor's architecture."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()


def free(device: str) -> None:
    """Release the memory and the compiled code of earlier measurements."""
    gc.collect()
    torch._dynamo.reset()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def matrix_rate(device: str, side: int, repeats: int = 20) -> float:
    """Best bf16 FLOP/s of a product of two side x side matrices in `repeats` trials after a warm-up."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for repeat in range(repeats + 3):
        synchronise(device)
        started = time.perf_counter()
        a @ b
        synchronise(device)
        if repeat >= 3:
            best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def time_steps(
    step: Callable[[], object], device: str, warm_up: int, repeats: int
) -> tuple[float, int | None]:
    """Median seconds of `step`, and the largest number of bytes allocated on the device (GPU only)."""
    for _ in range(warm_up):
        step()
    synchronise(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    return statistics.median(seconds), peak
