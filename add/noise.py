"""Forward process, and conversions between what a network predicts, x_0 and the noise.

A variance-preserving process x_t = alpha_t x_0 + sigma_t epsilon with alpha_t^2 + sigma_t^2 = 1, over integer
timesteps 0 .. T-1. Coefficients are stored in float32; arithmetic on half-precision tensors is therefore
done, and returned, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]

ZERO_ALPHA_WITH_EPSILON = (
    "prediction 'epsilon' with alpha = 0 at timestep {t}: x_0 = (x_t - sigma epsilon) / alpha would divide by"
    " zero. Rescaled betas (rescale_betas_zero_snr) need prediction_type 'v_prediction' or 'sample'; for an"
    " epsilon network keep the schedule as it is and feed pure noise at the last timestep (student_input)."
)


def betas_of(config: Mapping[str, Any]) -> Tensor:
    """Return the betas (T,), float64, that a diffusers scheduler config describes, before any rescaling.

    Raises ValueError for an unknown beta_schedule.
    """
    if config.get("trained_betas") is not None:
        return torch.tensor([float(b) for b in config["trained_betas"]], dtype=torch.float64)
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64).square()
    if kind == "squaredcos_cap_v2":
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((grid + 0.008) / 1.008 * math.pi / 2).square()
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    raise ValueError(
        f"scheduler config: beta_schedule {kind!r} is not known;"
        " use linear, scaled_linear or squaredcos_cap_v2"
    )


def rescale_to_zero_snr(alphas: Tensor) -> Tensor:
    """Shift and scale alphas (T,): the last becomes exactly 0, the first stays (arXiv 2305.08891, alg. 1)."""
    first, last = alphas[0].clone(), alphas[-1].clone()
    return (alphas - last) * (first / (first - last))


@dataclass(frozen=True)
class NoiseSchedule:
    """Coefficients of the forward process and what the network that belongs to it predicts.

    alphas, sigmas: float32 (T,), in [0, 1], alpha^2 + sigma^2 = 1. Raises ValueError when they are not, or
    when an epsilon prediction would have to be divided by alpha = 0.
    """

    alphas: Tensor
    sigmas: Tensor
    prediction: Prediction

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction {self.prediction!r} is not one of {', '.join(get_args(Prediction))}"
            )
        if self.alphas.ndim != 1 or self.alphas.shape != self.sigmas.shape:
            raise ValueError(
                f"alphas and sigmas must both have shape (T,), not {tuple(self.alphas.shape)} and"
                f" {tuple(self.sigmas.shape)}"
            )
        error = float((self.alphas.square() + self.sigmas.square() - 1).abs().max())
        if not error < 1e-4:
            raise ValueError(f"not variance preserving: alpha^2 + sigma^2 differs from 1 by {error:.3g}")
        if self.prediction == "epsilon" and not bool((self.alphas > 0).all()):
            raise ValueError(ZERO_ALPHA_WITH_EPSILON.format(t=int(self.alphas.argmin())))

    @classmethod
    def from_scheduler(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Read a diffusers scheduler config; fields that are absent have diffusers' defaults.

        Computed in float64 and stored in float32. Raises ValueError for an unknown beta_schedule or
        prediction_type, and for rescale_betas_zero_snr with an epsilon prediction.
        """
        alphas = (1 - betas_of(config)).cumprod(0).sqrt()
        if config.get("rescale_betas_zero_snr"):
            alphas = rescale_to_zero_snr(alphas)
        sigmas = (1 - alphas.square()).sqrt()
        prediction = cast("Prediction", config.get("prediction_type", "epsilon"))
        return cls(alphas.float(), sigmas.float(), prediction)

    def __len__(self) -> int:
        """T, the number of timesteps."""
        return len(self.alphas)

    def to(self, device: Any) -> NoiseSchedule:
        """Return the same schedule with its coefficients on another device."""
        return NoiseSchedule(self.alphas.to(device), self.sigmas.to(device), self.prediction)


def coefficients(schedule: NoiseSchedule, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """Return alpha_t and sigma_t, float32, for t (B,), each shaped (B, 1, ..., 1) with ndim dimensions."""
    shape = (-1,) + (1,) * (ndim - 1)
    return schedule.alphas.to(t.device)[t].view(shape), schedule.sigmas.to(t.device)[t].view(shape)


def diffuse(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Forward process: x_t = alpha_t x_0 + sigma_t noise. x0, noise (B, ...); t long (B,) in 0 .. T-1."""
    alpha, sigma = coefficients(schedule, t, x0.ndim)
    return alpha * x0 + sigma * noise


def student_input(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Like `diffuse`, but pure noise where t is the last timestep T-1: zero terminal SNR (paper, section 3).

    Only the input changes. The prediction is still decoded with the schedule's own alpha and sigma at T-1
    (`x0_from`), which are not 0 and 1 unless the betas were rescaled: that is what keeps an epsilon network's
    x_0 finite. Sampling starts from pure noise in the same way.
    """
    last = (t == len(schedule) - 1).view((-1,) + (1,) * (x0.ndim - 1))
    return diffuse(schedule, x0, noise, t).where(~last, noise)


def x0_from(schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """x_0 (B, ...) that a network's output (B, ...) at x_t means, by the schedule's prediction type."""
    alpha, sigma = coefficients(schedule, t, x_t.ndim)
    if schedule.prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    if schedule.prediction == "v_prediction":
        return alpha * x_t - sigma * output
    return output


def epsilon_from(schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Noise (B, ...) that a network's output (B, ...) at x_t means, by the schedule's prediction type."""
    alpha, sigma = coefficients(schedule, t, x_t.ndim)
    if schedule.prediction == "epsilon":
        return output
    if schedule.prediction == "v_prediction":
        return alpha * output + sigma * x_t
    return (x_t - alpha * output) / sigma


def ddim_timesteps(t: Tensor, steps: int) -> Tensor:
    """Timesteps long (steps, B) of a chain from t (B,) on: floor(t (k - i) / k), i = 0 .. k-1, at least 1.

    Evenly spaced, and timestep 0 is never visited: there is no noise left to predict there. Raises ValueError
    for steps < 1 and for a t below 1.
    """
    if steps < 1:
        raise ValueError(f"a teacher's chain needs at least one step, not {steps}")
    if bool((t < 1).any()):
        raise ValueError(
            f"timesteps must be 1 or more (t = 0 carries no noise to remove), got {int(t.min())}"
        )
    left = torch.arange(steps, 0, -1, device=t.device)
    return (left[:, None] * t[None, :]).div(steps, rounding_mode="floor").clamp(min=1)


def ddim_step(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t_next: Tensor) -> Tensor:
    """Deterministic DDIM step (eta = 0): x at t_next on the trajectory through the estimates x0 and eps."""
    return diffuse(schedule, x0, eps, t_next)
