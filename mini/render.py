"""Pixels of the built-in world: signed distance fields, shading, shadow, texture, sensor noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mini.world import LAYOUTS, Photographs, Scenes, take

RESOLUTION = 32
_SUPERSAMPLE = 2
_RGB = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.98, 0.55, 0.10),
    "yellow": (0.97, 0.88, 0.12),
    "green": (0.12, 0.66, 0.20),
    "cyan": (0.12, 0.82, 0.86),
    "blue": (0.13, 0.27, 0.90),
    "purple": (0.58, 0.17, 0.74),
    "pink": (0.99, 0.56, 0.75),
}
_BACKGROUND_RGB = ((0.93, 0.94, 0.96), (0.55, 0.56, 0.60), (0.82, 0.71, 0.50), (0.12, 0.13, 0.21))
_RADIUS = (3.9, 6.4)  # pixels, for small and large
_SLOTS = {  # for each layout: centres, and the amplitude of their jitter in x and y, in pixels
    "single": (((16, 16),) * 3, (5.0, 5.0)),
    "row": (((8.3, 16), (23.7, 16), (16, 16)), (0.8, 4.0)),
    "column": (((16, 8.3), (16, 23.7), (16, 16)), (4.0, 0.8)),
    "triple": (((5.8, 16), (16, 16), (26.2, 16)), (0.5, 4.0)),
}


def _distance(shape: NDArray[np.int64], x: NDArray, y: NDArray, r: NDArray) -> NDArray[np.float32]:
    """Signed distance in pixels, negative inside, to the shape of index `shape` (n, 1, 1) and radius r."""
    ax, ay = np.abs(x), np.abs(y)
    circle = np.hypot(x, y) - r
    square = np.maximum(ax, ay) - 0.86 * r
    # apex up, base at 0.8 r below the centre
    triangle = np.maximum(0.87 * ax - 0.5 * y - 0.5 * r, y - 0.8 * r)
    diamond = (ax + ay) * 0.7071 - 0.78 * r
    bar = 0.36 * r
    cross = np.minimum(np.maximum(ax - bar, ay - r), np.maximum(ay - bar, ax - r))
    ring = np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r
    out = np.choose(shape, [circle, square, triangle, diamond, cross, ring])
    return out.astype(np.float32)


def _render_chunk(scenes: Scenes, photos: Photographs) -> NDArray[np.uint8]:
    n, side = len(scenes), RESOLUTION * _SUPERSAMPLE
    axis = (np.arange(side, dtype=np.float32) + 0.5) / _SUPERSAMPLE
    gy, gx = np.meshgrid(axis, axis, indexing="ij")
    gx, gy = gx[None], gy[None]

    def column(values: NDArray) -> NDArray[np.float32]:
        return values.astype(np.float32).reshape(n, 1, 1)

    lx, ly = column(np.cos(photos.light)), column(np.sin(photos.light))
    strength = column(photos.light_strength)
    # background: colour, light falling off across the picture, ripples
    image = np.asarray(_BACKGROUND_RGB, np.float32)[scenes.background][:, None, None, :]
    image = np.broadcast_to(image, (n, side, side, 3)).copy()
    fall = 1 + 0.16 * strength * ((gx - 16) * lx + (gy - 16) * ly) / 16
    ca, sa = column(np.cos(photos.stripe_angle)), column(np.sin(photos.stripe_angle))
    along, across = gx * ca + gy * sa, gy * ca - gx * sa
    frequency = column(photos.stripe_frequency)
    phase = 2 * np.pi * frequency * across + column(photos.stripe_phase)
    ripple = np.sin(phase + 0.6 * np.sin(0.22 * along + column(photos.stripe_phase)))
    ripple = column(photos.stripe_strength) * ripple
    image *= (fall + ripple)[..., None]
    image += 0.25 * ripple[..., None] * (scenes.background == 3)[:, None, None, None]

    layouts = [_SLOTS[name] for name in LAYOUTS]
    slots = np.asarray([s for s, _ in layouts], np.float32)[scenes.layout]  # (n, 3, 2)
    jitter = np.asarray([j for _, j in layouts], np.float32)[scenes.layout][:, None, :]
    centres = slots + jitter * photos.centre.astype(np.float32)
    radius = np.asarray(_RADIUS, np.float32)
    counts = np.array([1, 2, 2, 3])[scenes.layout]
    palette = np.asarray(list(_RGB.values()), np.float32)
    for k in range(3):
        o = min(k, 1)
        shown = column(counts > k)
        r = column(radius[scenes.size[:, o]] + 0.25 * photos.radius)
        x, y = gx - column(centres[:, k, 0]), gy - column(centres[:, k, 1])
        shape = scenes.shape[:, o].reshape(n, 1, 1)
        # shadow: the same shape, away from the light, with a soft edge
        shadow = _distance(shape, x + 1.5 * lx, y + 1.5 * ly, r)
        image *= (1 - 0.38 * strength * shown * np.clip(0.5 - shadow / 2.2, 0, 1))[..., None]
        distance = _distance(shape, x, y, r)
        mask = shown * np.clip(0.5 - distance * _SUPERSAMPLE, 0, 1)
        colour = palette[scenes.colour[:, o]] * (1 + 0.06 * photos.tint[:, :].astype(np.float32))
        shading = 0.90 + 0.20 * strength * (x * lx + y * ly) / r + 0.05 * np.clip(-distance, 0, 2)
        spot = np.exp(-((x - 0.42 * r * lx) ** 2 + (y - 0.42 * r * ly) ** 2) / (0.10 * r * r + 0.3))
        body = colour[:, None, None, :] * shading[..., None] + 0.32 * (strength * spot)[..., None]
        image += mask[..., None] * (body - image)
    image = image.reshape(n, RESOLUTION, _SUPERSAMPLE, RESOLUTION, _SUPERSAMPLE, 3).mean((2, 4))
    for i in range(n):  # a generator for each image: its noise does not depend on its neighbours
        rng = np.random.Generator(np.random.PCG64(int(photos.noise_seed[i])))
        image[i] += np.float32(photos.noise[i]) * rng.standard_normal(image[i].shape, np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def render(scenes: Scenes, photos: Photographs) -> NDArray[np.uint8]:
    """Photographs of scenes as (N, 32, 32, 3) uint8 RGB. Raises ValueError if the two differ in length."""
    if len(scenes) != len(photos):
        raise ValueError(f"{len(scenes)} scenes but {len(photos)} photographs")
    out = np.zeros((len(scenes), RESOLUTION, RESOLUTION, 3), np.uint8)
    for start in range(0, len(scenes), 256):
        index = slice(start, start + 256)
        out[index] = _render_chunk(take(scenes, index), take(photos, index))
    return out
