"""DMD2, improved distribution matching distillation (Yin et al., arXiv 2405.14867), of a one-step student.

Three changes to DMD: no regression loss, hence no pairs from the teacher; two time scales, `fake_updates` updates of
the fake score network for each of the student; and a GAN on real images, whose discriminator is a head on the
bottleneck of the fake network at noised latents (sections 4.1 to 4.3). The student's direction at x_t, per sample, is
DMD's (2311.18828, eq. 7 and 8) without the factor alpha_t,

    (x0_fake - x0_teacher) / mean |x - x0_teacher|,

and softplus(-D(x_t)) is added with weight `adversarial`. The fake network minimises its denoising loss plus
`discriminator` times softplus(D(x_t)) + softplus(-D(real_t)).

Departures: alpha_t, which eq. 4, 5, 7 and 8 together put before that ratio, is left out, so that late timesteps count
as much as early ones; a student of one step, so no backward simulation; the head is one convolution, norm and mean; the
scale's networks and steps. The rest is baselines/diff_instruct.py's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from add.batch import Batch
from add.models.diffusion import DiffusionNetwork, unet_output
from add.models.encoder_cache import EncoderCache
from add.models.text import TextConditioning
from add.noise import NoiseSchedule, diffuse
from baselines.ddim import Estimates
from baselines.diff_instruct import DiffInstruct, denoising_loss, with_gradient
from baselines.method import RivalMethod, adamw, load_teacher
from baselines.spec import Dmd2Spec, RivalSpec
from baselines.unet_features import BottleneckHead, captured


def matching_direction(
    schedule: NoiseSchedule, fake: Estimates, real: Estimates, x: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """(x0_fake - x0_real) / mean |x - x0_real| (B, ...) at x diffused to t, the mean over a sample's elements."""
    with torch.no_grad():
        x_t = diffuse(schedule, x, noise, t)
        goal = real(x_t, t)[0]
        scale = (x - goal).abs().flatten(1).mean(1).clamp(min=1e-6)
        return (fake(x_t, t)[0] - goal) / scale.view((-1,) + (1,) * (x.ndim - 1))


class DistributionMatching(DiffInstruct):
    """The student, and the fake network with its head."""

    def __init__(self, spec: RivalSpec, settings: Dmd2Spec, network: DiffusionNetwork, seed: int) -> None:
        super().__init__(spec, network, settings.fake_optimiser, settings.fake_updates)
        self.settings = settings
        torch.manual_seed(seed)
        self.head = BottleneckHead(network.unet.config.block_out_channels[-1]).to(network.device)
        self.modules["head"] = self.head
        self.judge = nn.ModuleDict({"fake": self.fake, "head": self.head})
        self.optimisers["fake"] = adamw(self.judge, settings.fake_optimiser)

    @property
    def fake_module(self) -> nn.Module:
        """The fake network and its head."""
        return self.judge

    def student_loss(
        self, x: Tensor, batch: Batch, text: TextConditioning
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Distribution matching and the adversarial loss of the student's latents, and values to log."""
        schedule = self.network.schedule
        direction = matching_direction(schedule, *self.scores(text), x.detach(), batch.noise_t, batch.t)
        _, logits = self.judged(diffuse(schedule, x, batch.noise_t, batch.t), batch.t, text)
        adversarial = F.softplus(-logits).mean()
        values: dict[str, Tensor | float] = {
            "direction": direction.square().mean(),
            "loss_g_adv": adversarial.detach(),
        }
        return with_gradient(x, direction) + self.settings.adversarial * adversarial, values

    def judged(self, x_t: Tensor, t: Tensor, text: TextConditioning) -> tuple[Tensor, Tensor]:
        """The fake network's output (B, C, h, w) and its head's logits (B,)."""
        with captured([self.fake.get_submodule("mid_block")]) as found:
            output = unet_output(self.fake, x_t, t, text)
        return output, self.head(found[0])

    def fake_loss(
        self, x: Tensor, batch: Batch, text: TextConditioning
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Denoising of the student's latents, and telling them from those of real images, at the same noise."""
        schedule = self.network.schedule
        t, noise = self.draw(batch)
        output, generated = self.judged(diffuse(schedule, x, noise, t), t, text)
        _, real = self.judged(diffuse(schedule, self.latents(batch), noise, t), t, text)
        denoising = denoising_loss(schedule, output, x, noise, t)
        judging = F.softplus(generated).mean() + F.softplus(-real).mean()
        values: dict[str, Tensor | float] = {"loss_fake": denoising.detach(), "loss_d": judging.detach()}
        values["gap"] = (real - generated).mean().detach()
        return denoising + self.settings.discriminator * judging, values


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    assert isinstance(spec.rival, Dmd2Spec)
    return DistributionMatching(spec, spec.rival, load_teacher(spec, device, cache), seed)
