"""Differentiable augmentation of what the discriminator sees: DiffAugment's colour, translation and cutout.

Ranges are those of StyleGAN-T at strength 1 and shrink linearly with it. All draws come from the generator
that is passed; the draws are made on its device, so a CPU generator gives the same augmentation on every
device. A process that has a slice of a batch (`add.distributed`) draws for the whole batch and takes its slice.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from add.distributed import ALONE, Rank

TRANSLATION = 0.125  # of the image's side, each way
CUTOUT = 0.2  # side of the square, of the image's side


def _uniform(images: Tensor, generator: Generator, rank: Rank) -> Tensor:
    """Return one number in [0, 1) a sample, (B, 1, 1, 1), on the images' device."""
    batch = len(images) * rank.processes
    draw = rank.of(torch.rand(batch, 1, 1, 1, generator=generator, device=generator.device))
    return draw.to(images.device, images.dtype)


def _integers(images: Tensor, low: int, high: int, generator: Generator, rank: Rank) -> Tensor:
    """Return one integer in low .. high (inclusive) a sample, (B,), on the images' device."""
    batch = len(images) * rank.processes
    draw = torch.randint(low, high + 1, (batch,), generator=generator, device=generator.device)
    draw = rank.of(draw)
    return draw.to(images.device)


def colour(images: Tensor, strength: float, generator: Generator, rank: Rank = ALONE) -> Tensor:
    """Brightness +- strength / 2, saturation times 1 +- strength, contrast times 1 +- strength / 2."""
    images = images + strength * (_uniform(images, generator, rank) - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 + strength * (2 * _uniform(images, generator, rank) - 1))
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + strength * (_uniform(images, generator, rank) - 0.5))


def translate(images: Tensor, strength: float, generator: Generator, rank: Rank = ALONE) -> Tensor:
    """Shift each sample by up to strength * 0.125 of its side, both ways; what is uncovered becomes 0."""
    height, width = images.shape[-2:]
    most_y, most_x = (round(side * TRANSLATION * strength) for side in (height, width))
    rows = _integers(images, 0, 2 * most_y, generator, rank).tolist()
    columns = _integers(images, 0, 2 * most_x, generator, rank).tolist()
    if most_y == most_x == 0:
        return images
    padded = F.pad(images, (most_x, most_x, most_y, most_y))
    # Slices, not an index: their backward is a copy, exact and deterministic on every device.
    return torch.stack(
        [
            padded[b, :, y : y + height, x : x + width]
            for b, (y, x) in enumerate(zip(rows, columns, strict=True))
        ]
    )


def cutout(images: Tensor, strength: float, generator: Generator, rank: Rank = ALONE) -> Tensor:
    """Set a square with strength * 0.2 of the side to 0 in each sample; its centre is any pixel."""
    height, width = images.shape[-2:]
    inside = []
    for side in (height, width):
        box = round(side * CUTOUT * strength)
        start = _integers(images, 0, side - 1, generator, rank)[:, None] - box // 2
        pixel = torch.arange(side, device=images.device)[None, :]
        inside.append((pixel >= start) & (pixel < start + box))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * (~hole).to(images.dtype)


def augment(images: Tensor, strength: float, generator: Generator, rank: Rank = ALONE) -> Tensor:
    """Augment images (B, 3, H, W) in [-1, 1], each sample by its own draws; differentiable. Same shape.

    strength: 0 (the images themselves, nothing is drawn) to 1 (StyleGAN-T's ranges). Real and generated
    images go through this same function, one call each. Values may leave [-1, 1]. Raises ValueError for a
    strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"augmentation: strength {strength} is not in [0, 1]")
    if strength == 0:
        return images
    images = colour(images, strength, generator, rank)
    images = translate(images, strength, generator, rank)
    return cutout(images, strength, generator, rank)


def random_crop(images: Tensor, size: int, probability: float, generator: Generator) -> Tensor:
    """With the given probability, cut the same random size x size window out of all of images (B, 3, H, W).

    One draw for the batch, as in StyleGAN-T; otherwise, and where no side exceeds the network's input `size`
    (pixels), the images are returned whole and the feature network resizes them. Nothing is drawn when the
    images are not larger or the probability is 0. Raises ValueError for a probability outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"random crop: probability {probability} is not in [0, 1]")
    height, width = images.shape[-2:]
    if min(height, width) <= size or probability == 0:
        return images
    draw = torch.rand(3, generator=generator, device=generator.device).tolist()
    if draw[0] >= probability:
        return images
    top, left = int(draw[1] * (height - size + 1)), int(draw[2] * (width - size + 1))
    return images[..., top : top + size, left : left + size]
