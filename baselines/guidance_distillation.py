"""Guidance distillation, the first stage of Meng et al. (arXiv 2210.03142): the guided teacher in one pass.

At z_t = alpha x + sigma eps, t uniform, the student's estimate of x_0 learns the guided teacher's (eq. 3):

    L = w(t) |x0_student(z_t, c) - x0^w(z_t, c)|^2,    eps^w = eps_null + w (eps_text - eps_null),

with the truncated SNR weight w(t) = max(alpha^2 / sigma^2, 1). It halves the calls of a step and not the steps: it is
sampled by DDIM. Progressive distillation of a guided teacher (baselines/progressive.py) begins with it.

Departures: w is one value (`training.teacher_guidance`), not drawn from an interval, so the UNet needs no embedding
of it; the scale's networks and steps.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from add.batch import Batch
from add.models.encoder_cache import EncoderCache
from add.noise import NoiseSchedule, coefficients, student_input
from baselines.ddim import Estimates, estimates
from baselines.method import DDIM, RivalMethod, load_teacher, pretrained_student, save_sampled_by
from baselines.spec import RivalSpec


def truncated_snr_loss(schedule: NoiseSchedule, x0: Tensor, target: Tensor, t: Tensor) -> Tensor:
    """Mean over all elements of max(alpha_t^2 / sigma_t^2, 1) (x0 - target)^2 (2202.00512, eq. 9). Scalar."""
    alpha, sigma = coefficients(schedule, t, x0.ndim)
    return ((alpha / sigma).square().clamp(min=1) * (x0 - target.detach()).square()).mean()


def guidance_loss(
    schedule: NoiseSchedule, student: Estimates, guided: Estimates, z: Tensor, t: Tensor
) -> Tensor:
    """The loss at z = z_t (B, ...), t long (B,); guided: the teacher's estimates with guidance. Scalar."""
    with torch.no_grad():
        target, _ = guided(z, t)
    return truncated_snr_loss(schedule, student(z, t)[0], target, t)


class GuidanceDistillation(RivalMethod):
    """The student learns the guided teacher at every timestep."""

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """One update at timesteps 0 .. 999, drawn uniformly."""
        network, text = self.network, self.text(batch)
        t = torch.randint(0, len(network.schedule), (len(batch.s),), generator=batch.draws)
        t = t.to(batch.noise.device)
        z = student_input(network.schedule, self.latents(batch), batch.noise, t)
        guidance = self.spec.training.teacher_guidance
        guided = estimates(self.predict(network.unet, text), network.schedule, guidance)
        student = estimates(self.predict(self.student, text), network.schedule, 1.0)
        return self.train_student(guidance_loss(network.schedule, student, guided, z, t), step)

    def save(self, out: Path) -> None:
        """With DDIM, at the settings' numbers of steps."""
        from diffusers import DDIMScheduler

        save_sampled_by(self.network, self.student, DDIMScheduler, self.spec.sampled_steps, out, DDIM)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    network = load_teacher(spec, device, cache)
    return GuidanceDistillation(spec, network, pretrained_student(network))
