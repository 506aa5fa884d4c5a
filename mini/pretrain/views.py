"""Augmented views for contrastive training, all (N, 3, H, W) float32 in [-1, 1]."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image with its own standard deviation in pixels, sigma (N,); 0 leaves it as it is."""
    radius = 3
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = images.shape
    weights = kernel.repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, weights[:, None, None, :], groups=n * c)
    return F.conv2d(flat, weights[:, None, :, None], groups=n * c).reshape(n, c, h, w)


def rotate_colours(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """In a `share` of the images, rotate the colour axes about grey by a random angle."""
    n = len(images)
    angle = torch.rand(n, generator=generator) * 2 * math.pi
    angle = angle * (torch.rand(n, generator=generator) < share)
    # Rodrigues' formula about (1, 1, 1) / sqrt 3
    k = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -k, k], [k, 0.0, -k], [-k, k, 0.0]])
    grey = torch.full((3, 3), 1 / 3)
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    rotation = c * torch.eye(3) + s * cross + (1 - c) * grey
    return torch.einsum("nij,njhw->nihw", rotation, images)


def jitter(images: torch.Tensor, generator: torch.Generator, shift: int = 3) -> torch.Tensor:
    """Random brightness and contrast of each image, and one translation of up to `shift` pixels a batch."""
    n = len(images)
    gain = 1 + 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    offset = 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    dx, dy = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    h, w = images.shape[-2:]
    moved = padded[..., shift + dy : shift + dy + h, shift + dx : shift + dx + w]
    return moved * gain + offset
