"""A one-step text-conditioned GAN without diffusion pretraining, in the place of StyleGAN-T (arXiv 2301.09515).

The generator has the teacher's architecture with weights drawn anew. It takes noise and a caption to latents in one
step, and the (pretrained, frozen) decoder takes these to an image. It is trained by ADD's discriminator alone: heads on
frozen features, hinge loss, R1, with the conditions that its settings state (`image` is c_img of a real image of the
caption, which the generator does not see). This is ADD without its pretrained start and without
its teacher, at the one timestep 999 where nothing of a real image is in the input.

Departures: the generator is a UNet from noise of the latents' shape, not a style-based one from a vector; it generates
latents; StyleGAN-T's CLIP loss, truncation and path regularisation are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from add.batch import Batch
from add.config.run import LossSpec, Run, Variant
from add.models.diffusion import save_student, trainable_unet
from add.models.encoder_cache import EncoderCache
from add.models.frozen import load_frozen_networks, make_heads
from add.step import losses
from baselines.method import RivalMethod, adamw
from baselines.spec import TIMESTEPS, GanSpec, RivalSpec


def run_of(spec: RivalSpec) -> Run:
    """The run of ADD that this is."""
    assert isinstance(spec.rival, GanSpec)
    variant = Variant(
        student=spec.teacher,
        teacher=spec.teacher,
        student_init="random",
        discriminator=spec.rival.discriminator,
        loss=LossSpec(adversarial=1.0, distillation="none", distillation_weight=0.0, space="pixel"),
        teacher_steps=1,
    )
    return Run(
        name=spec.name, variant=variant, training=spec.training, networks=spec.networks, data=spec.data
    )


class PlainGan(RivalMethod):
    """The generator and ADD's heads."""

    def __init__(self, spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> None:
        self.run = run_of(spec)
        self.networks = load_frozen_networks(self.run, device, cache)
        network = self.networks.student
        generator: Any = trainable_unet(network, "random", seed)
        super().__init__(spec, network, generator)
        self.counted |= {
            name: getattr(module, "model", module) for name, module in self.networks.side_networks.items()
        }
        heads = make_heads(self.run, self.networks, network.resolution, seed)
        assert heads is not None
        self.heads = self.modules["heads"] = heads
        self.optimisers["heads"] = adamw(heads, spec.training.head_optimiser)

    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """ADD's update at the last timestep."""
        batch = replace(batch, s=torch.full_like(batch.s, TIMESTEPS - 1))
        loss, head_loss, values = losses(self.run, self.networks, self.student, self.heads, batch)
        assert head_loss is not None
        head_loss.backward(inputs=list(self.heads.parameters()), retain_graph=True)
        rates = self.train_student(loss, step)
        self.update_module("heads", self.heads, self.spec.training.head_optimiser, step)
        return {**values, **rates}

    def save(self, out: Path) -> None:
        """As a student of ADD's that samples in one step."""
        save_student(self.network, self.student, [TIMESTEPS - 1], out)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    return PlainGan(spec, seed, device, cache)
