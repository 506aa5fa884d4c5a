"""How are parameters updated? AdamW, clipping, the learning rate of a step, the student's average (EMA)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from add.config.training import OptimiserSpec
from add.distributed import is_sharded, local, whole
from add.errors import InputError


def make_optimiser(
    module: nn.Module, settings: OptimiserSpec, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """AdamW over all parameters of `module`, in one fused kernel instead of hundreds of small ones.

    eight_bit: both moments of tensors above 4096 elements in 8 bits each, by bitsandbytes. Raises InputError where
    that is not installed, and for a sharded module, whose slices it does not know.
    """
    shared = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if not eight_bit:
        return torch.optim.AdamW(module.parameters(), fused=True, **shared)  # type: ignore[arg-type]
    if any(is_sharded(p) for p in module.parameters()):
        raise InputError(
            "training.performance.eight_bit_optimiser does not know sharded parameters: "
            "launch without --use_fsdp, or set it to false"
        )
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise InputError(
            "training.performance.eight_bit_optimiser needs bitsandbytes, which is not installed: "
            "pip install bitsandbytes, or set it to false"
        ) from None
    optimiser: torch.optim.Optimizer = AdamW8bit(module.parameters(), **shared)
    return optimiser


def update(
    optimiser: torch.optim.Optimizer, module: nn.Module, settings: OptimiserSpec, step: int, steps: int
) -> dict[str, float]:
    """Clip, set the rate of `step` (linear warm-up, then constant or cosine), update; returns values to log."""
    rate = settings.lr * min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate
    limit = settings.clip if settings.clip is not None else math.inf
    norm = nn.utils.clip_grad_norm_(module.parameters(), limit)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return {"lr": rate, "grad_norm": float(whole(norm))}


@torch.no_grad()
def update_average(average: Sequence[Tensor], module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * parameters, in place."""
    torch._foreach_lerp_([local(a) for a in average], [local(p) for p in module.parameters()], 1 - decay)
