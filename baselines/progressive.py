"""Progressive distillation (Salimans and Ho, arXiv 2202.00512), of a guided teacher as in Meng et al. (2210.03142).

A student of N steps learns to do in one DDIM step what its teacher does in two (Algorithm 2). From z_t, t = i / N, the
teacher goes over t - 1/2N to z'' at t'' = t - 1/N; the x_0 with which one DDIM step leads from z_t to z'' is

    x~ = (z'' - (sigma''/sigma_t) z_t) / (alpha'' - (sigma''/sigma_t) alpha_t),

and L = max(SNR(t), 1) |x0_student(z_t) - x~|^2 (eq. 9). Then the student becomes the teacher and N is halved, down to
`last`. A stage begins with a fresh optimiser and anneals its own rate. Guidance is distilled first, for a share of the
steps (baselines/guidance_distillation.py); without that share, the first stage's teacher is guided itself.

Departures: timesteps are the schedule's 1000, not continuous; what the networks predict is the scale's (v in the
miniature, as in the paper); one guidance w; a few halvings from `first` steps, not from 1024, as the scale's budget is.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from add.batch import Batch
from add.models.diffusion import DiffusionNetwork
from add.models.encoder_cache import EncoderCache
from add.noise import NoiseSchedule, student_input
from baselines.ddim import Estimates, ddim, estimates, grid, levels
from baselines.guidance_distillation import guidance_loss, truncated_snr_loss
from baselines.method import DDIM, RivalMethod, load_teacher, pretrained_student, save_sampled_by
from baselines.spec import ProgressiveSpec, RivalSpec


def two_step_target(
    schedule: NoiseSchedule, teacher: Estimates, z: Tensor, position: Tensor, middle: Tensor, to: Tensor
) -> Tensor:
    """x~ (B, ...): with it, one DDIM step from z at `position` reaches what two teacher steps over `middle` reach."""
    with torch.no_grad():
        end = ddim(schedule, teacher, ddim(schedule, teacher, z, position, middle), middle, to)
    alpha, sigma = levels(schedule, position, z.ndim)
    next_alpha, next_sigma = levels(schedule, to, z.ndim)
    ratio = next_sigma / sigma
    return (end - ratio * z) / (next_alpha - ratio * alpha)


class ProgressiveDistillation(RivalMethod):
    """The student and, from the second stage on, the teacher that it was at the last stage's end."""

    def __init__(self, spec: RivalSpec, settings: ProgressiveSpec, network: DiffusionNetwork) -> None:
        super().__init__(spec, network, pretrained_student(network))
        self.settings = settings
        self.stages = settings.stages(spec.training.steps)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.modules["teacher"] = self.counted["own_teacher"] = self.teacher

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """One update of the stage that `step` is in."""
        network, text, schedule = self.network, self.text(batch), self.network.schedule
        stage, inside = 0, step
        while inside >= self.stages[stage][1]:
            inside -= self.stages[stage][1]
            stage += 1
        if stage > 0 and inside == 0:
            self.teacher.load_state_dict(self.student.state_dict())
            self.optimisers["student"].state.clear()
        steps, length = self.stages[stage]
        unet = network.unet if stage == 0 else self.teacher
        guidance = self.spec.training.teacher_guidance if stage == 0 else 1.0
        teacher = estimates(self.predict(unet, text), schedule, guidance)
        student = estimates(self.predict(self.student, text), schedule, 1.0)
        latents = self.latents(batch)
        if steps is None:
            t = torch.randint(0, len(schedule), (len(latents),), generator=batch.draws).to(latents.device)
            loss = guidance_loss(
                schedule, student, teacher, student_input(schedule, latents, batch.noise, t), t
            )
        else:
            # Of 2N + 1 positions, descending, the student visits every second.
            positions = torch.tensor(grid(len(schedule), 2 * steps), device=latents.device)
            start = 2 * torch.randint(0, steps, (len(latents),), generator=batch.draws).to(latents.device)
            position, middle, to = (positions[start + k] for k in range(3))
            z = student_input(schedule, latents, batch.noise, position - 1)
            target = two_step_target(schedule, teacher, z, position, middle, to)
            loss = truncated_snr_loss(schedule, student(z, position - 1)[0], target, position - 1)
        return {"student_steps": float(steps or 0), **self.train_student(loss, inside, length)}

    def save(self, out: Path) -> None:
        """With DDIM, at the last stage's number of steps: it was trained for no other."""
        from diffusers import DDIMScheduler

        save_sampled_by(self.network, self.student, DDIMScheduler, self.spec.sampled_steps, out, DDIM)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    assert isinstance(spec.rival, ProgressiveSpec)
    return ProgressiveDistillation(spec, spec.rival, load_teacher(spec, device, cache))
