"""DDIM down to the clean image: positions 0 .. T on a schedule, of which 0 is clean and p > 0 is timestep p - 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from add.losses import Predict, guided_estimates
from add.noise import NoiseSchedule

Estimates = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""x_t (B, ...), t long (B,) to the estimates of x_0 and of the noise, each (B, ...)."""


def estimates(predict: Predict, schedule: NoiseSchedule, guidance: float) -> Estimates:
    """The estimates of a network with guidance."""
    return lambda x, t: guided_estimates(predict, schedule, x, t, guidance)


def grid(length: int, steps: int) -> list[int]:
    """Positions `length` .. 0, steps + 1 of them, evenly spaced as diffusers' spacing `trailing` has them."""
    return [(2 * length * i + steps) // (2 * steps) for i in range(steps, -1, -1)]


def levels(schedule: NoiseSchedule, position: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """alpha and sigma at positions (B,), each (B, 1, ..., 1) with ndim dimensions; 1 and 0 at position 0."""
    t = (position - 1).clamp(min=0)
    clean = position == 0
    alpha = schedule.alphas.to(t.device)[t].masked_fill(clean, 1.0)
    sigma = schedule.sigmas.to(t.device)[t].masked_fill(clean, 0.0)
    shape = (-1,) + (1,) * (ndim - 1)
    return alpha.view(shape), sigma.view(shape)


def ddim(schedule: NoiseSchedule, given: Estimates, x: Tensor, position: Tensor, to: Tensor) -> Tensor:
    """One deterministic step from positions (B,) above 0 to others."""
    x0, eps = given(x, position - 1)
    alpha, sigma = levels(schedule, to, x.ndim)
    return alpha * x0 + sigma * eps


def sample(
    schedule: NoiseSchedule, given: Estimates, noise: Tensor, positions: Sequence[int]
) -> list[Tensor]:
    """x (B, ...) at each of these descending positions, from pure noise at the first."""
    path = [noise]
    for position, to in itertools.pairwise(positions):
        whole = torch.full((len(noise),), position, device=noise.device)
        path.append(ddim(schedule, given, path[-1], whole, torch.full_like(whole, to)))
    return path
