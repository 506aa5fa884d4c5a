"""Denoising Diffusion GAN (Xiao et al., arXiv 2112.07804) from a diffusion model's weights, as UFOGen (2311.09257).

A few large denoising steps from t to s instead of many small ones: `training.student_timesteps`, each of which goes to
the next lower one, the lowest to the clean latents. Over such a step the true q(x_s | x_t) is no Gaussian; a GAN learns
it. The generator predicts x_0 = G(x_t, t | c), and the fake x_s is drawn from the posterior (section 3.2)

    q(x_s | x_t, x_0) = N((alpha_s beta x_0 + r sigma_s^2 x_t) / sigma_t^2, beta sigma_s^2 / sigma_t^2),
    r = alpha_t / alpha_s, beta = 1 - r^2.

The real x_s is a latent diffused to s, and its x_t is diffused on from it. The discriminator sees x_s, x_t and t, so
that a fake x_s must belong to *its* x_t. Losses (section 3.1): softplus(-D) of the fake for the generator; softplus(D)
of the fake, softplus(-D) of the real and R1 with respect to the real x_s for the discriminator. Sampling draws from the
same posterior, down from pure noise: diffusers' DDPMScheduler with its `fixed_small` variance.

Departures: the generator has no latent z, which no diffusers pipeline would draw, so that x_T and the posterior's noise
are all that is random, as in UFOGen. It begins at the teacher's weights and the discriminator at their half down to the
bottleneck, as in UFOGen; both read the caption. UFOGen's reconstruction loss is left out.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from add.batch import Batch
from add.losses import r1_penalty
from add.models.diffusion import DiffusionNetwork, noise_settings, save_pipeline, unet_output
from add.models.encoder_cache import EncoderCache
from add.noise import NoiseSchedule
from baselines.ddim import estimates, levels
from baselines.method import RivalMethod, adamw, load_teacher, pretrained_student
from baselines.spec import DenoisingDiffusionGanSpec, RivalSpec
from baselines.unet_features import BottleneckHead


def posterior(
    schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, position: Tensor, to: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (B, ...) and standard deviation (B, 1, ..., 1) of q(x_s | x_t, x_0).

    position, to: long (B,), of t and of the lower s as `baselines.ddim` counts them; at the clean 0 it is x_0 itself.
    """
    alpha, sigma = levels(schedule, position, x0.ndim)
    next_alpha, next_sigma = levels(schedule, to, x0.ndim)
    ratio = alpha / next_alpha
    beta = 1 - ratio.square()
    mean = (next_alpha * beta * x0 + ratio * next_sigma.square() * x_t) / sigma.square()
    return mean, next_sigma * beta.sqrt() / sigma


def real_pair(
    schedule: NoiseSchedule, x0: Tensor, noise: Tensor, more: Tensor, position: Tensor, to: Tensor
) -> tuple[Tensor, Tensor]:
    """x_s by `noise` and from it x_t by `more`, each (B, ...): a draw of q(x_s, x_t | x_0). Positions as above."""
    alpha, _ = levels(schedule, position, x0.ndim)
    next_alpha, next_sigma = levels(schedule, to, x0.ndim)
    ratio = alpha / next_alpha
    x_s = next_alpha * x0 + next_sigma * noise
    return x_s, ratio * x_s + (1 - ratio.square()).sqrt() * more


def pair_discriminator(network: DiffusionNetwork) -> Any:
    """A trainable UNet from the teacher's weights that ends at the bottleneck, in one logit (B,).

    Its input (B, 2C, h, w) is x_s and x_t; what reads x_t begins at random. Called as a UNet is, at s.
    """
    unet = pretrained_student(network)
    first = unet.conv_in
    channels = first.in_channels
    wider = nn.Conv2d(2 * channels, first.out_channels, first.kernel_size, padding=first.padding)
    wider.to(network.device)
    weight = torch.cat([first.weight, wider.weight[:, channels:]], 1)
    wider.load_state_dict({"weight": weight, "bias": first.bias})
    unet.conv_in, unet.up_blocks, unet.conv_norm_out = wider, nn.ModuleList(), None
    unet.conv_out = BottleneckHead(unet.config.block_out_channels[-1]).to(network.device)
    return unet


class DenoisingDiffusionGan(RivalMethod):
    """The generator and its discriminator."""

    def __init__(
        self, spec: RivalSpec, settings: DenoisingDiffusionGanSpec, network: DiffusionNetwork, seed: int
    ) -> None:
        super().__init__(spec, network, pretrained_student(network))
        self.settings = settings
        torch.manual_seed(seed)
        self.judge: nn.Module = pair_discriminator(network)
        self.modules["discriminator"] = self.counted["discriminator"] = self.judge
        self.optimisers["discriminator"] = adamw(self.judge, settings.discriminator_optimiser)
        # A position's next lower one; the lowest timestep's is the clean 0.
        positions = [0, *(t + 1 for t in spec.training.student_timesteps)]
        self.following = torch.zeros(len(network.schedule) + 1, dtype=torch.long, device=network.device)
        for to, position in itertools.pairwise(positions):
            self.following[position] = to

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """Both losses with the parameters from the start of the step, then both updates."""
        schedule, text = self.network.schedule, self.text(batch)
        position, to = batch.s + 1, self.following[batch.s + 1]
        real, x_t = real_pair(schedule, self.latents(batch), batch.noise, batch.noise_t, position, to)
        x0, _ = estimates(self.predict(self.student, text), schedule, 1.0)(x_t, batch.s)
        mean, deviation = posterior(schedule, x0, x_t, position, to)
        drawn = torch.randn(mean.shape, generator=batch.draws).to(mean.device)
        fake = mean + deviation * drawn

        def logits(x_s: Tensor) -> Tensor:
            return unet_output(self.judge, torch.cat([x_s, x_t], 1), (to - 1).clamp(min=0), text)

        judged = logits(fake)
        real.requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative, which R1 needs
            of_real = logits(real)
            r1 = r1_penalty([of_real], [real])
            judging = F.softplus(judged).mean() + F.softplus(-of_real).mean()
            judging_loss = judging + self.settings.r1_gamma * r1
            judging_loss.backward(inputs=list(self.judge.parameters()), retain_graph=True)
        values = self.train_student(F.softplus(-judged).mean(), step)
        self.update_module("discriminator", self.judge, self.settings.discriminator_optimiser, step)
        gap = (of_real - judged).mean()
        return {**values, "loss_d": judging.detach(), "r1": r1.detach(), "gap": gap.detach()}

    def save(self, out: Path) -> None:
        """With diffusers' ancestral sampler, at the timesteps of training: it was trained for no other chain."""
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler(
            **noise_settings(self.network),
            variance_type="fixed_small",
            clip_sample=False,
            timestep_spacing="trailing",
            steps_offset=1,
        )
        visited = self.spec.training.student_timesteps[::-1]
        save_pipeline(self.network, self.student, scheduler, {len(visited): visited}, out)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    assert isinstance(spec.rival, DenoisingDiffusionGanSpec)
    return DenoisingDiffusionGan(spec, spec.rival, load_teacher(spec, device, cache), seed)
