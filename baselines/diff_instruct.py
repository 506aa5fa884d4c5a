"""Diff-Instruct (Luo et al., arXiv 2305.18455): a one-step student by the integral KL divergence to the teacher.

The student g_theta takes pure noise to latents x in one step. A second network, begun at the teacher, learns the score
of the student's own noised outputs by denoising (Algorithm 1, line 3). The gradient of the integral KL divergence
(theorem 3.1) is, per sample,

    int w(t) alpha_t (s_fake(x_t) - s_teacher(x_t)) dt dx/dtheta,    s(x_t) = (alpha_t x0(x_t) - x_t) / sigma_t^2,

with w(t) = sigma_t^2, so that it is alpha_t^2 (x0_fake - x0_teacher): away from what is likely under the student, to
what is likely under the guided teacher. No real image is used. At equal outputs of both networks nothing moves.

Departures: t is drawn uniformly from `training.distillation_timesteps`; the fake network is updated `fake_updates`
times for each update of the student, each time with a new batch, which counts as a step.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from add.batch import Batch
from add.config.training import OptimiserSpec
from add.models.diffusion import DiffusionNetwork, save_student, student_x0, unet_output
from add.models.encoder_cache import EncoderCache
from add.models.text import TextConditioning
from add.noise import NoiseSchedule, coefficients, diffuse
from baselines.ddim import Estimates, estimates
from baselines.method import RivalMethod, adamw, load_teacher, pretrained_student
from baselines.spec import DiffInstructSpec, RivalSpec


def kl_direction(
    schedule: NoiseSchedule, fake: Estimates, real: Estimates, x: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """alpha_t^2 (x0_fake - x0_real) (B, ...) at x diffused to t: sigma_t^2 times the gradient of the KL at t."""
    with torch.no_grad():
        x_t = diffuse(schedule, x, noise, t)
        alpha, _ = coefficients(schedule, t, x.ndim)
        return alpha.square() * (fake(x_t, t)[0] - real(x_t, t)[0])


def with_gradient(x: Tensor, direction: Tensor) -> Tensor:
    """A scalar whose gradient with respect to x (B, ...) is `direction` over the number of elements."""
    return (x * direction.detach()).mean()


def denoising_loss(schedule: NoiseSchedule, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Mean square of a network's error in what it predicts: the noise, v or x_0. Scalar."""
    alpha, sigma = coefficients(schedule, t, x0.ndim)
    targets = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x0, "sample": x0}
    return (output - targets[schedule.prediction]).square().mean()


class DiffInstruct(RivalMethod):
    """The student, and the network that knows its score."""

    def __init__(
        self, spec: RivalSpec, network: DiffusionNetwork, fake_optimiser: OptimiserSpec, fake_updates: int
    ) -> None:
        super().__init__(spec, network, pretrained_student(network))
        self.fake_settings, self.fake_updates = fake_optimiser, fake_updates
        self.fake: nn.Module = pretrained_student(network)
        self.modules["fake"] = self.counted["fake"] = self.fake
        self.optimisers["fake"] = adamw(self.fake, fake_optimiser)

    def generate(self, batch: Batch, text: TextConditioning) -> Tensor:
        """The student's latents (B, C, h, w) of pure noise, in one step."""
        last = torch.full_like(batch.s, len(self.network.schedule) - 1)
        nothing = torch.zeros_like(batch.noise)
        return student_x0(self.network, self.student, nothing, batch.noise, last, text)

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """Update the fake network, and with each `fake_updates`-th step the student."""
        text = self.text(batch)
        values: dict[str, Tensor | float] = {}
        turn = (step + 1) % self.fake_updates == 0
        with torch.set_grad_enabled(turn):
            x = self.generate(batch, text)
        if turn:
            loss, values = self.student_loss(x, batch, text)
            values |= self.train_student(loss, step)
        fake_loss, fake_values = self.fake_loss(x.detach(), batch, text)
        module = self.fake_module
        fake_loss.backward(inputs=list(module.parameters()))
        self.update_module("fake", module, self.fake_settings, step)
        return {**values, **fake_values}

    @property
    def fake_module(self) -> nn.Module:
        """What the fake network's optimiser trains."""
        return self.fake

    def scores(self, text: TextConditioning) -> tuple[Estimates, Estimates]:
        """The estimates of the fake network and of the guided teacher."""
        schedule, guidance = self.network.schedule, self.spec.training.teacher_guidance
        fake = estimates(self.predict(self.fake, text), schedule, 1.0)
        return fake, estimates(self.predict(self.network.unet, text), schedule, guidance)

    def student_loss(
        self, x: Tensor, batch: Batch, text: TextConditioning
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A loss of the student's latents with the gradient of the KL divergence, and values to log."""
        schedule = self.network.schedule
        direction = kl_direction(schedule, *self.scores(text), x.detach(), batch.noise_t, batch.t)
        return with_gradient(x, direction), {"direction": direction.square().mean()}

    def fake_loss(
        self, x: Tensor, batch: Batch, text: TextConditioning
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The fake network's denoising loss on the student's latents, at timesteps and noise of its own."""
        t, noise = self.draw(batch)
        schedule = self.network.schedule
        output = unet_output(self.fake, diffuse(schedule, x, noise, t), t, text)
        loss = denoising_loss(schedule, output, x, noise, t)
        return loss, {"loss_fake": loss.detach()}

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) and noise (B, C, h, w) for the fake network's loss."""
        low, high = self.spec.training.distillation_timesteps
        t = torch.randint(low, high + 1, (len(batch.t),), generator=batch.draws)
        noise = torch.randn(batch.noise.shape, generator=batch.draws)
        return t.to(batch.t.device), noise.to(batch.t.device)

    def save(self, out: Path) -> None:
        """As a student of ADD's that samples in one step."""
        save_student(self.network, self.student, [len(self.network.schedule) - 1], out)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    settings = spec.rival
    assert isinstance(settings, DiffInstructSpec)
    network = load_teacher(spec, device, cache)
    return DiffInstruct(spec, network, settings.fake_optimiser, settings.fake_updates)
