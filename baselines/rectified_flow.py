"""Rectified flow with reflow and one-step distillation (Liu et al., arXiv 2209.03003; InstaFlow, arXiv 2309.06380).

A rectified flow goes in time r from noise (r = 1) to an image (r = 0) along x_r = r X0 + (1 - r) X1, X0 noise, with
velocity v(x, r) = E[X1 - X0 | x_r]. InstaFlow's recipe, all of it with text and from the diffusion teacher's weights:

1. pairs (X0, X1): the guided teacher takes noise X0 and a caption to X1 by its own ODE;
2. reflow: L = E int |X1 - X0 - v(X_r, r | c)|^2 dr over these pairs, after which paths are nearly straight;
3. pairs (X0, X1) of the reflowed student, by Euler steps; and
4. distillation of the one step X0 + v(X0, 1 | c) towards X1.

The student stays a network of the teacher's kind. A variance-preserving point is the flow's, scaled: z_t = alpha X1 +
sigma X0 = (alpha + sigma) x_r at r = sigma / (alpha + sigma). So an estimate x0 of X1 states the velocity
v = (x0 - x_r) / r, its squared error is ((alpha + sigma) / sigma)^2 |x0 - X1|^2, and an Euler step from r to r' is the
DDIM step between the timesteps that have these r. Training begins at the teacher's own flow exactly, and any diffusers
pipeline samples the student with a DDIMScheduler. (FlowMatchEulerDiscreteScheduler does not run in
StableDiffusionPipeline 0.42: it has no init_noise_sigma.)

Departures: the pairs are drawn in training, in its first steps, and count in its cost; the one step's distance is the
mean square of latents, not LPIPS, for which the miniature has no network; one reflow.
"""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from add.batch import Batch
from add.models.diffusion import DiffusionNetwork
from add.models.encoder_cache import EncoderCache
from add.models.text import TextConditioning
from add.noise import NoiseSchedule, coefficients, student_input
from baselines.ddim import Estimates, estimates, grid, levels, sample
from baselines.method import (
    DDIM,
    Recorded,
    RivalMethod,
    load_teacher,
    pretrained_student,
    save_sampled_by,
)
from baselines.spec import RectifiedFlowSpec, RivalSpec


def flow_times(schedule: NoiseSchedule) -> Tensor:
    """r = sigma / (alpha + sigma) of every timestep, float32 (T,), increasing."""
    return schedule.sigmas / (schedule.alphas + schedule.sigmas)


def timestep_at(schedule: NoiseSchedule, r: Tensor) -> Tensor:
    """The first timestep, long (B,), whose time is at least r (B,), and the last where there is none."""
    return torch.searchsorted(flow_times(schedule), r).clamp(max=len(schedule) - 1)


def euler_positions(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Positions of `steps` equal Euler steps in r, descending to the clean 0 (`baselines.ddim`)."""
    times = torch.linspace(1, 0, steps + 1, device=schedule.alphas.device)[1:-1]
    return [len(schedule), *(timestep_at(schedule, times) + 1).tolist(), 0]


def velocity_loss(schedule: NoiseSchedule, x0: Tensor, image: Tensor, t: Tensor) -> Tensor:
    """Mean over all elements of the squared error of the velocity that x0 (B, ...) states at t. Scalar."""
    alpha, sigma = coefficients(schedule, t, x0.ndim)
    return (((alpha + sigma) / sigma).square() * (x0 - image).square()).mean()


def reflow_loss(
    schedule: NoiseSchedule, student: Estimates, noise: Tensor, image: Tensor, r: Tensor
) -> Tensor:
    """The loss of a batch of pairs (B, ...) at times r (B,) in 0..1. Scalar."""
    t = timestep_at(schedule, r)
    z = student_input(schedule, image, noise, t)
    return velocity_loss(schedule, student(z, t)[0], image, t)


def straightness(schedule: NoiseSchedule, flow: Estimates, noise: Tensor, steps: int) -> float:
    """S = mean over samples and elements of int |(Z_1 - Z_0) - dZ/dr|^2 dr by Euler steps; 0 for straight paths.

    2209.03003, section 3; noise: (B, ...).
    """
    positions = euler_positions(schedule, steps)
    path = []
    for x, position in zip(sample(schedule, flow, noise, positions), positions, strict=True):
        alpha, sigma = levels(schedule, torch.tensor([position]), x.ndim)
        # The first point is pure noise, whatever the schedule says of its last timestep.
        path.append((x / (alpha + sigma) if position < len(schedule) else x, float(sigma / (alpha + sigma))))
    whole = path[-1][0] - path[0][0]
    total = 0.0
    for k, ((x, r), (following, to)) in enumerate(itertools.pairwise(path)):
        span = (1.0 if k == 0 else r) - to
        total += span * float((whole - (following - x) / span).square().mean())
    return total


class RectifiedFlow(RivalMethod):
    """The student, and the pairs that it learns from."""

    def __init__(self, spec: RivalSpec, settings: RectifiedFlowSpec, network: DiffusionNetwork) -> None:
        super().__init__(spec, network, pretrained_student(network))
        self.settings = settings
        self.phases = settings.phases(spec.training.steps)
        rows = max(self.phases[0], self.phases[2]) * spec.training.batch
        pair = torch.zeros(rows, *network.latent_shape, device=network.device)
        parts = {field.name: getattr(self.null, field.name) for field in fields(self.null)}
        text = {k: v.new_zeros(rows, *v.shape[1:]) for k, v in parts.items() if v is not None}
        self.pairs = Recorded({"noise": pair, "image": pair.clone(), **text})
        self.modules["pairs"] = self.pairs

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """Draw a batch of pairs or learn from one, as the phase of `step` does."""
        phase, inside = 0, step
        while inside >= self.phases[phase]:
            inside -= self.phases[phase]
            phase += 1
        if phase in (0, 2):
            self._draw(batch, inside, own=phase == 2)
            return {"phase": float(phase)}
        if inside == 0:
            self.optimisers["student"].state.clear()
        schedule, size = self.network.schedule, len(batch.noise)
        drawn = self.phases[phase - 1] * size
        rows = torch.randint(0, drawn, (size,), generator=batch.draws).to(batch.noise.device)
        chosen = {name: tensor[rows] for name, tensor in self.pairs.named_buffers()}
        noise, image = chosen.pop("noise"), chosen.pop("image")
        student = estimates(self.predict(self.student, TextConditioning(**chosen)), schedule, 1.0)
        if phase == 1:
            r = torch.rand(size, generator=batch.draws).to(batch.noise.device)
            loss = reflow_loss(schedule, student, noise, image, r)
        else:
            last = torch.full_like(rows, len(schedule) - 1)
            loss = (student(noise, last)[0] - image).square().mean()
        return {"phase": float(phase), **self.train_student(loss, inside, self.phases[phase])}

    @torch.no_grad()
    def _draw(self, batch: Batch, number: int, own: bool) -> None:
        """Record the `number`-th batch of pairs, of the guided teacher or of the student (`own`)."""
        schedule, text = self.network.schedule, self.text(batch)
        if own:
            flow = estimates(self.predict(self.student, text), schedule, 1.0)
            positions = euler_positions(schedule, self.settings.own_steps)
        else:
            guidance = self.spec.training.teacher_guidance
            flow = estimates(self.predict(self.network.unet, text), schedule, guidance)
            positions = grid(len(schedule), self.settings.teacher_steps)
        made = {"noise": batch.noise, "image": sample(schedule, flow, batch.noise, positions)[-1]}
        made |= {field.name: getattr(text, field.name) for field in fields(text)}
        size = len(batch.noise)
        for name, tensor in self.pairs.named_buffers():
            tensor[number * size : (number + 1) * size] = made[name]

    def save(self, out: Path) -> None:
        """With DDIM: in one step where it was distilled, otherwise in 1, 2 and 4."""
        from diffusers import DDIMScheduler

        save_sampled_by(self.network, self.student, DDIMScheduler, self.spec.sampled_steps, out, DDIM)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    assert isinstance(spec.rival, RectifiedFlowSpec)
    return RectifiedFlow(spec, spec.rival, load_teacher(spec, device, cache))
