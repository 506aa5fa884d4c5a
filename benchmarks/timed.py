"""Which run do the GPU benchmarks time? The baseline at a real size, its networks made without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from add.batch import Batch
from add.config.load import load_baseline, load_scale
from add.config.resolve import resolve
from add.config.run import Run
from add.models.frozen import FrozenNetworks, load_frozen_networks
from addbench.cost.random_init import build_frozen_networks

Size = Literal["sd21", "sdxl", "tiny"]
ROOT = Path(__file__).resolve().parents[1]
CONFIGURATIONS = ROOT / "config" / "networks"
DIRECTORIES = {"sd21": "sd21-base", "sdxl": "sdxl-base"}
C_TEXT = "ViT-g-14"  # open_clip's name of what c_text is in the paper
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
RESOLUTION = 512  # the paper's, of SDXL students too
SPEED: dict[str, Any] = {
    "channels_last": True,
    "gradient_checkpointing": ["decoder"],
    "frozen_precision": "bf16",
    "compile": True,
}
"""What `benchmarks.gpu_step` sets where nothing else is asked for."""
MEMORY: dict[str, Any] = {
    "channels_last": True,
    "gradient_checkpointing": ["unet", "decoder", "features"],
    "frozen_precision": "bf16",
    "eight_bit_optimiser": True,
}
"""All options that save memory."""


def timed_run(size: Size, batch: int, performance: dict[str, Any] | None, precision: str = "bf16") -> Run:
    """The baseline variant with the networks of `size`; `tiny` is the smoke scale as it is.

    Both players' settings but the batch are the smoke scale's: they do not change what a step computes.
    """
    scale = load_scale(ROOT / "config" / "smoke.yaml")
    table = resolve(scale, load_baseline(ROOT / "ablations" / "baseline.yaml"), ())
    values = table.runs["baseline"].model_dump(mode="json")
    values["training"] |= {"batch": batch, "precision": precision, "virtual_batch": min(8, batch)}
    values["training"]["crop_probability"] = 0.0  # as in the plain step: the network sees whole images
    if performance is not None:
        values["training"]["performance"] = performance
    if size != "tiny":
        values["training"]["resolution"] = RESOLUTION
        _use_real_networks(values, DIRECTORIES[size])
    return Run.model_validate_json(json.dumps(values))


def configurations(size: Size) -> dict[str, str]:
    """What `addbench.cost.random_init` has to know beside the run's own addresses."""
    return {} if size == "tiny" else {C_TEXT: C_TEXT}


def players_of(run: Run, size: Size, device: str) -> FrozenNetworks:
    """The run's frozen networks on `device`, with random weights; of `tiny` the smoke scale's saved ones."""
    if size == "tiny":
        return load_frozen_networks(run, device)
    return build_frozen_networks(run, device, configurations(size))


def random_batch(run: Run, players: FrozenNetworks, device: str, seed: int = 0) -> Batch:
    """A batch of noise in place of photographs: a step's time does not depend on what is in them."""
    draw = torch.Generator().manual_seed(seed)
    size, side = run.training.batch, players.student.resolution
    noise = [torch.randn(size, *players.student.latent_shape, generator=draw) for _ in range(2)]
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
    diffusion = networks["diffusion"][variant["student"]]
    networks["diffusion"] = {
        variant["student"]: diffusion | {"path": str(CONFIGURATIONS / pipeline), "sha256": None}
    }
    variant["teacher"] = variant["student"]
    features = {"image_size": 224, **IMAGENET, "revision": None, "sha256": None}
    judge = variant["discriminator"]["features"]
    # StyleGAN-T's five layers of a ViT-S, in the paper's default features.
    layers = [0, 3, 6, 9, 12]
    networks["features"] = {
        judge: {"path": str(CONFIGURATIONS / "dinov2-small"), "layers": layers, **features}
    }
    networks["c_img"] = {"path": str(CONFIGURATIONS / "dinov2-large"), **features}
    networks["c_text"] = {"path": C_TEXT, "revision": None, "sha256": None}
