"""Rivals at the smoke scale: one example of each method's settings."""

from __future__ import annotations

from typing import Any

from add.config.load import load_scale
from add.config.yaml import SpecError
from baselines.spec import RivalSpec, rival_of
from tests.support.smoke import REPOSITORY

OPTIMISER: dict[str, Any] = {
    "lr": 1e-3,
    "betas": (0.0, 0.99),
    "weight_decay": 0.0,
    "warmup": 1,
    "clip": 10.0,
    "decay": "none",
}
CONSISTENCY: dict[str, Any] = {"skip": 20, "timestep_scaling": 10.0, "huber": 0.001}

RIVALS: dict[str, dict[str, Any]] = {
    "lcm": {**CONSISTENCY, "target_decay": 0.9},
    "lcm_lora": {
        **CONSISTENCY,
        "target_decay": 0.0,
        "rank": 4,
        "alpha": 4.0,
        "targets": ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
    },
    "guidance_distillation": {"sampled": (2, 4)},
    "progressive": {"guidance_share": 0.34, "first": 2, "last": 1, "last_share": 0.5},
    "rectified_flow": {
        "teacher_pairs": 0.34,
        "teacher_steps": 2,
        "reflow": 0.33,
        "own_pairs": 0.165,
        "own_steps": 4,
        "distil": 0.165,
    },
    "diff_instruct": {"fake_optimiser": OPTIMISER, "fake_updates": 2},
    "dmd2": {
        "fake_optimiser": OPTIMISER,
        "fake_updates": 2,
        "adversarial": 0.1,
        "discriminator": 0.1,
    },
    "ladd": {"noise_mean": 1.0, "noise_std": 1.0, "r1_gamma": 1e-4},
    "denoising_diffusion_gan": {"discriminator_optimiser": OPTIMISER, "r1_gamma": 0.01},
    "gan": {
        "discriminator": {
            "features": "vit_s_dinov2",
            "conditioning": ("text",),
            "r1_gamma": 1e-4,
        }
    },
}
"""Settings by method."""


def smoke_rival(method: str, own: dict[str, Any] | None = None, **training: Any) -> RivalSpec:
    """A rival of the smoke scale's sd21 in three steps, with values of its own settings and of training replaced."""
    settings = {"kind": method, **RIVALS[method], **(own or {})}
    return rival_of(
        load_scale(REPOSITORY / "config/smoke.yaml"),
        method,
        {"teacher": "sd21", "rival": settings, "training": {"teacher_guidance": 2.0, **training}},
        lambda loc, message: SpecError(f"rival {method}", 1, message),
    )
