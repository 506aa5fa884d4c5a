"""Latent Consistency Models (Luo et al., arXiv 2310.04378), distilled from a guided latent diffusion teacher.

The student f_theta(x, c, t) maps every point of the teacher's guided ODE to the trajectory's end at timestep 0:

    f(x, t)  = c_skip(t) x + c_out(t) x0_theta(x, t),                                             section 3, eq. 6
    c_skip   = s_d^2 / ((k t)^2 + s_d^2),    c_out = k t / sqrt((k t)^2 + s_d^2),

so that f(x, 0) = x. Two points of one trajectory that lie `skip` timesteps apart must agree (Algorithm 1): from
x_{n+k} = alpha x_0 + sigma eps, one DDIM step of the teacher with guidance w leads to x_n, and

    L = d(f_theta(x_{n+k}, c, t_{n+k}), f_target(x_n, c, t_n)),

with d the pseudo-Huber distance sqrt((a - b)^2 + c^2) - c or the square, mean over elements as in the published code,
and target a moving average of theta.

Departures: w is one value (`training.teacher_guidance`), not drawn from [w_min, w_max], so the UNet needs no
embedding of it; the networks and the number of steps are those of the scale. At the last timestep the student is
given pure noise, from which it is sampled.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from add.batch import Batch
from add.losses import Predict, guided_estimates
from add.models.diffusion import DiffusionNetwork
from add.models.encoder_cache import EncoderCache
from add.noise import NoiseSchedule, ddim_step, student_input, x0_from
from add.train import update_average
from baselines.method import RivalMethod, load_teacher, pretrained_student, save_sampled_by
from baselines.spec import TIMESTEPS, ConsistencySpec, RivalSpec

SIGMA_DATA = 0.5
"""s_d, the standard deviation of the data that the paper and diffusers' LCMScheduler assume."""
Consistency = Callable[[Tensor, Tensor], Tensor]
"""f(x_t, t): (B, ...), long (B,) to (B, ...)."""


def boundary_scalings(t: Tensor, settings: ConsistencySpec, ndim: int) -> tuple[Tensor, Tensor]:
    """c_skip and c_out at t (B,), each (B, 1, ..., 1) with ndim dimensions; 1 and 0 at t = 0."""
    scaled = (t.float() * settings.timestep_scaling).view((-1,) + (1,) * (ndim - 1))
    square = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / square, scaled / square.sqrt()


def consistency_function(predict: Predict, schedule: NoiseSchedule, settings: ConsistencySpec) -> Consistency:
    """f of a network whose raw output, with the conditioning "text", is decoded to x_0 by the schedule."""

    def f(x: Tensor, t: Tensor) -> Tensor:
        skip, out = boundary_scalings(t, settings, x.ndim)
        return skip * x + out * x0_from(schedule, predict(x, t, "text"), x, t)

    return f


def teacher_step(
    teacher: Predict, schedule: NoiseSchedule, x: Tensor, t: Tensor, t_next: Tensor, guidance: float
) -> Tensor:
    """One DDIM step of the guided teacher from t down to t_next (section 4.2 and 4.3)."""
    x0, eps = guided_estimates(teacher, schedule, x, t, guidance)
    return ddim_step(schedule, x0, eps, t_next)


def distance(a: Tensor, b: Tensor, huber: float | None) -> Tensor:
    """Mean over all elements of the square, or of the pseudo-Huber distance with this c. Scalar."""
    square = (a - b).square()
    return square.mean() if huber is None else ((square + huber**2).sqrt() - huber).mean()


def consistency_loss(
    student: Consistency,
    target: Consistency,
    solve: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    settings: ConsistencySpec,
) -> Tensor:
    """The loss at x = x_{t} (B, ...), t long (B,). solve(x, t, t_next): x at t_next on the teacher's ODE. Scalar."""
    t_next = (t - settings.skip).clamp(min=0)
    with torch.no_grad():
        goal = target(solve(x, t, t_next), t_next)
    return distance(student(x, t), goal, settings.huber)


class LatentConsistency(RivalMethod):
    """The student with the moving average that its targets come from."""

    def __init__(
        self, spec: RivalSpec, settings: ConsistencySpec, network: DiffusionNetwork, student: nn.Module
    ) -> None:
        super().__init__(spec, network, student)
        self.settings = settings
        self.target = student
        if settings.target_decay > 0:
            self.target = copy.deepcopy(student).requires_grad_(False)
            self.modules["target"] = self.counted["target"] = self.target

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """One update at timesteps skip - 1, 2 skip - 1, ..., 999, drawn uniformly."""
        network, settings, text = self.network, self.settings, self.text(batch)
        number = torch.randint(1, TIMESTEPS // settings.skip + 1, (len(batch.s),), generator=batch.draws)
        t = (number * settings.skip - 1).to(batch.noise.device)
        x = student_input(network.schedule, self.latents(batch), batch.noise, t)
        teacher = self.predict(network.unet, text)

        def solve(x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
            guidance = self.spec.training.teacher_guidance
            return teacher_step(teacher, network.schedule, x, t, t_next, guidance)

        student, target = (
            consistency_function(self.predict(unet, text), network.schedule, settings)
            for unet in (self.student, self.target)
        )
        values = self.train_student(consistency_loss(student, target, solve, x, t, settings), step)
        if self.target is not self.student:
            update_average(list(self.target.parameters()), self.student, settings.target_decay)
        return values

    def save(self, out: Path) -> None:
        """With diffusers' LCMScheduler, which has the same boundary terms; 1, 2 and 4 steps."""
        self.save_unet(self.student, out)

    def save_unet(self, unet: nn.Module, out: Path) -> None:
        """Save a UNet as this method samples it."""
        from diffusers import LCMScheduler

        own = TIMESTEPS // self.settings.skip
        save_sampled_by(
            self.network,
            unet,
            LCMScheduler,
            self.spec.sampled_steps,
            out,
            {
                "original_inference_steps": own,
                "timestep_scaling": self.settings.timestep_scaling,
                "clip_sample": False,
                "set_alpha_to_one": True,
                "steps_offset": 1,
            },
        )


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    network = load_teacher(spec, device, cache)
    assert isinstance(spec.rival, ConsistencySpec)
    return LatentConsistency(spec, spec.rival, network, pretrained_student(network))
