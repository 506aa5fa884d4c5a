"""LADD, latent adversarial diffusion distillation (Sauer et al., arXiv 2403.12015): ADD without leaving the latents.

The student predicts x_0 as ADD's does, from real latents noised to one of `training.student_timesteps`. Prediction and
real latents are noised again to a level that is logit-normal (section 3; SD3's flow time r = sigma / (alpha + sigma)),
and the frozen teacher's own features of both, of every block of its UNet with the caption, go to ADD's heads, which are
conditioned by projection. Nothing is decoded, no feature network beside the teacher is needed, and there is no
distillation loss. Losses: the hinge of ADD's eq. 2 and 3, with R1 on the heads' inputs.

Departures: real images instead of the teacher's synthetic ones; a UNet's blocks instead of a transformer's; heads are
told the caption by the mean of its embedded tokens, and the noise level by the features alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from add.batch import Batch
from add.discriminator import Discriminator
from add.losses import hinge_discriminator, hinge_generator, logit_gaps, r1_penalty
from add.models.diffusion import DiffusionNetwork, save_student, student_x0, unet_output
from add.models.encoder_cache import EncoderCache
from add.models.features import FeatureShape
from add.models.text import TextConditioning
from add.noise import NoiseSchedule, diffuse
from baselines.method import RivalMethod, adamw, load_teacher, pretrained_student
from baselines.rectified_flow import timestep_at
from baselines.spec import LaddSpec, RivalSpec
from baselines.unet_features import blocks, captured


def logit_normal_timesteps(
    schedule: NoiseSchedule, settings: LaddSpec, n: int, draws: torch.Generator
) -> Tensor:
    """Timesteps long (n,) whose flow time has a normal logit."""
    r = torch.sigmoid(settings.noise_mean + settings.noise_std * torch.randn(n, generator=draws))
    return timestep_at(schedule, r.to(schedule.alphas.device))


class LatentAdversarial(RivalMethod):
    """The student and the heads on its teacher's features."""

    def __init__(self, spec: RivalSpec, settings: LaddSpec, network: DiffusionNetwork, seed: int) -> None:
        super().__init__(spec, network, pretrained_student(network))
        self.settings = settings
        nothing = torch.zeros(1, *network.latent_shape, device=network.device)
        with torch.no_grad():
            maps = self.features(nothing, torch.zeros_like(nothing[:, 0, 0, 0], dtype=torch.long), self.null)
        torch.manual_seed(seed)
        shapes = [FeatureShape(m.shape[1], tuple(m.shape[2:])) for m in maps]
        width, group = spec.training.head_width, spec.training.virtual_batch
        dims = {"text": self.null.embeddings.shape[-1]}
        self.heads = Discriminator(shapes, dims, width, group).to(network.device)
        self.modules["heads"] = self.heads
        self.optimisers["heads"] = adamw(self.heads, spec.training.head_optimiser)

    def features(self, x_t: Tensor, t: Tensor, text: TextConditioning) -> list[Tensor]:
        """The teacher's maps (B, C_k, h_k, w_k) of noised latents."""
        with captured(blocks(self.network.unet)) as found:
            unet_output(self.network.unet, x_t, t, text)
        return found

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """Both losses with the parameters from the start of the step, then both updates."""
        network, text, latents = self.network, self.text(batch), self.latents(batch)
        x = student_x0(network, self.student, latents, batch.noise, batch.s, text)
        t = logit_normal_timesteps(network.schedule, self.settings, len(x), batch.draws).to(x.device)
        told = {"text": text.embeddings.mean(1)}
        fake = self.features(diffuse(network.schedule, x, batch.noise_t, t), t, text)
        with torch.no_grad():
            real = self.features(diffuse(network.schedule, latents, batch.noise_t, t), t, text)
        inputs = [f.detach().requires_grad_(True) for f in real]
        real_logits, fake_logits = self.heads(inputs, told), self.heads([f.detach() for f in fake], told)
        hinge, r1 = hinge_discriminator(real_logits, fake_logits), r1_penalty(real_logits, inputs)
        adversarial = hinge_generator(self.heads(fake, told))
        values = self.train_student(adversarial, step)
        (hinge + self.settings.r1_gamma * r1).backward(inputs=list(self.heads.parameters()))
        self.update_module("heads", self.heads, self.spec.training.head_optimiser, step)
        gap = logit_gaps(real_logits, fake_logits).mean()
        return {**values, "loss_d": hinge.detach(), "r1": r1.detach(), "gap": gap}

    def save(self, out: Path) -> None:
        """As ADD's student, at the same timesteps."""
        save_student(self.network, self.student, self.spec.training.student_timesteps, out)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    assert isinstance(spec.rival, LaddSpec)
    return LatentAdversarial(spec, spec.rival, load_teacher(spec, device, cache), seed)
