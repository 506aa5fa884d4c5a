"""What is a step's batch? Images, captions, timesteps and noise, drawn as functions of (seed, step) alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from add.config.run import Run
from add.data.coco import to_tensor
from add.data.images import CaptionedSet, pixels
from add.data.training_set import order_of
from add.distributed import WHOLE, Rank
from add.models.encoder_cache import image_keys


@dataclass(frozen=True)
class Batch:
    """One part of a step's batch. Its draws are functions of (seed, step, part) alone, the same for all variants.

    real: (B, 3, H, W) in [-1, 1]; s, t: long (B,), the student's and the teacher's timesteps; noise, noise_t:
    latent noise (B, C, h, w) for each; s, t and the noises do not depend on the variant, so rows are paired.
    share: which slice of the part this is; `draws` is where the whole part's draws come from.
    keys: of the images, for a cache of what encoders make of them; () where there is none.
    """

    real: Tensor
    prompts: tuple[str, ...]
    s: Tensor
    t: Tensor
    noise: Tensor
    noise_t: Tensor
    draws: torch.Generator
    share: Rank = WHOLE
    keys: tuple[bytes, ...] = ()


def generator(seed: int, step: int, part: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone, so that resuming needs no stored random state."""
    key = hashlib.sha256(f"{seed}/{step}/{part}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def draw_batch(
    run: Run,
    data: CaptionedSet,
    resolution: int,
    latent: tuple[int, ...],
    seed: int,
    step: int,
    part: int,
    device: str,
    share: Rank = WHOLE,
    keyed: bool = False,
) -> Batch:
    """Draw part `part` of the batch of `step` and read the images of `share` of it.

    latent: shape (C, h, w) of the student's latents. keyed: with the images' keys, for a cache. Raises InputError
    naming a sample that cannot be read.
    """
    settings, form = run.training, run.data.train
    size = settings.batch // settings.accumulate
    order = order_of(form, data, step * settings.batch + part * size, size, seed)
    samples = data.samples(share.of(order))
    places = torch.rand(size, 2, generator=generator(seed, step, part, "crop"))
    images = pixels(samples, resolution, form.resize_rule, share.of(places).tolist())
    draws = generator(seed, step, part, "batch")
    weights = torch.tensor(settings.student_timestep_weights)
    chosen = torch.multinomial(weights, size, replacement=True, generator=draws)
    low, high = settings.distillation_timesteps
    caption = share.of(torch.rand(size, generator=draws)).tolist()
    texts = [(sample.captions, u) for sample, u in zip(samples, caption, strict=True)]
    prompts = tuple(t[int(u * len(t))] for t, u in texts)
    return Batch(
        real=to_tensor(images).to(device),
        prompts=prompts,
        s=share.of(torch.tensor(settings.student_timesteps)[chosen]).to(device),
        t=share.of(torch.randint(low, high + 1, (size,), generator=draws)).to(device),
        noise=share.of(torch.randn(size, *latent, generator=draws)).to(device),
        noise_t=share.of(torch.randn(size, *latent, generator=draws)).to(device),
        draws=generator(seed, step, part, "augmentation"),
        share=share,
        keys=image_keys(images) if keyed else (),
    )
