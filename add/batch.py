"""A step's batch: images, captions, timesteps and noise, drawn as functions of (seed, step) alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from add.config.run import Trained
from add.data.images import CaptionedSet, pixels
from add.data.training_set import order_of
from add.distributed import ALONE, Rank

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """One part of a step's batch. Its draws are functions of (seed, step, part) alone, the same for all variants.

    real: (B, 3, H, W) in [-1, 1]; s, t: long (B,), the student's and the teacher's timesteps; noise, noise_t:
    latent noise (B, C, h, w) for each; s, t and the noises do not depend on the variant, so runs are paired.
    rank: which slice of the part this is; `draws` gives the draws of the whole part.
    """

    real: Tensor
    prompts: tuple[str, ...]
    s: Tensor
    t: Tensor
    noise: Tensor
    noise_t: Tensor
    draws: torch.Generator
    rank: Rank = ALONE

    def to(self, device: str) -> Batch:
        """The same with its tensors on the device; `draws` stays a generator of the CPU."""
        return Batch(
            real=self.real.to(device),
            prompts=self.prompts,
            s=self.s.to(device),
            t=self.t.to(device),
            noise=self.noise.to(device),
            noise_t=self.noise_t.to(device),
            draws=self.draws,
            rank=self.rank,
        )


def prefetched(calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of `calls`, in order. While one is in use, a thread makes the next.

    What a call raises is raised in its turn.
    """
    with ThreadPoolExecutor(1) as thread:
        current: Future[T] | None = None
        for call in calls:
            following = thread.submit(call)
            if current is not None:
                yield current.result()
            current = following
        if current is not None:
            yield current.result()


def generator(seed: int, step: int, part: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone, so that resuming needs no stored random state."""
    key = hashlib.sha256(f"{seed}/{step}/{part}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 images (B, H, W, 3) as (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def draw_batch(
    run: Trained,
    data: CaptionedSet,
    resolution: int,
    latent: tuple[int, ...],
    seed: int,
    step: int,
    part: int,
    rank: Rank = ALONE,
) -> Batch:
    """Draw part `part` of the batch of `step` and read the images of this rank's slice, into the CPU's memory.

    latent: shape (C, h, w) of the student's latents. Raises InputError naming a sample that cannot be read.
    """
    settings, form = run.training, run.data.train
    size = settings.batch // settings.accumulate
    order = order_of(form, data, step * settings.batch + part * size, size, seed)
    samples = data.samples(rank.of(order))
    places = torch.rand(size, 2, generator=generator(seed, step, part, "crop"))
    images = pixels(samples, resolution, form.resize_rule, rank.of(places).tolist())
    draws = generator(seed, step, part, "batch")
    weights = torch.tensor(settings.student_timestep_weights)
    chosen = torch.multinomial(weights, size, replacement=True, generator=draws)
    low, high = settings.distillation_timesteps
    caption = rank.of(torch.rand(size, generator=draws)).tolist()
    texts = [(sample.captions, u) for sample, u in zip(samples, caption, strict=True)]
    prompts = tuple(t[int(u * len(t))] for t, u in texts)
    return Batch(
        real=to_tensor(images),
        prompts=prompts,
        s=rank.of(torch.tensor(settings.student_timesteps)[chosen]),
        t=rank.of(torch.randint(low, high + 1, (size,), generator=draws)),
        noise=rank.of(torch.randn(size, *latent, generator=draws)),
        noise_t=rank.of(torch.randn(size, *latent, generator=draws)),
        draws=generator(seed, step, part, "augmentation"),
        rank=rank,
    )
