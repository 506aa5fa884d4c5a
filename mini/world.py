"""The built-in world: captioned scenes whose ground truth is known, and their pixels.

A *scene* (what the caption says) is one to three coloured shapes on a background. A *photograph* (what the
caption does not say) is light, texture, position jitter and sensor noise. Both are structs of arrays with one
entry per image, so one scene can be photographed more than once. `render` makes the pixels by signed distance fields,
shading, shadow, texture and sensor noise. `mini.dataset` writes COCO and PartiPrompts files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
BACKGROUNDS = ("snow", "stone", "sand", "night")
LAYOUTS = ("single", "row", "column", "triple")
"""`row` and `column` hold two objects (left then right, top then bottom); `triple` holds three alike in a row."""

Split = Literal["train", "discriminator", "evaluation", "val", "reference", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""What each split of the images is for: the diffusion models and VAEs; the discriminator's networks; the evaluation's
networks; what trainers are measured on; the FID's reference; the prompts, by whose pictures no setting was chosen."""

_BACKGROUND_PHRASE = {"snow": "in the snow", "stone": "on stone", "sand": "on sand", "night": "at night"}
_CHUNK = 2048  # scenes are drawn in chunks of this size, so the first n do not depend on the total
_SCENE_BUCKETS = {
    "val": (0, 1),
    "test": (0, 1),
    "reference": (1, 2),
}  # tenths of the space of two-object scenes
_PARTS = TypeVar("_PARTS", "Scenes", "Photographs")


@dataclass(frozen=True)
class Scenes:
    """What the captions say. Object 0 is the left or upper one; in `single` and `triple`, object 1 repeats it.

    layout, background: (N,) int64 indices into LAYOUTS and BACKGROUNDS.
    shape, colour, size: (N, 2) int64 indices into SHAPES, COLOURS and SIZES.
    """

    layout: NDArray[np.int64]
    background: NDArray[np.int64]
    shape: NDArray[np.int64]
    colour: NDArray[np.int64]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.layout)


@dataclass(frozen=True)
class Photographs:
    """What the captions do not say, as (N,) float64; `centre` is (N, 3, 2), the objects' jitter from -1 to 1.

    light: direction that the light comes from, in radians. light_strength: 0.5 to 1. stripe_angle, stripe_phase:
    radians. stripe_frequency: cycles per pixel. stripe_strength, noise: in units of the pixel range.
    radius: -1 to 1, a quarter pixel each way. tint: (N, 3), -1 to 1 for each channel. noise_seed: int64.
    """

    light: NDArray[np.float64]
    light_strength: NDArray[np.float64]
    stripe_angle: NDArray[np.float64]
    stripe_frequency: NDArray[np.float64]
    stripe_phase: NDArray[np.float64]
    stripe_strength: NDArray[np.float64]
    noise: NDArray[np.float64]
    radius: NDArray[np.float64]
    centre: NDArray[np.float64]
    tint: NDArray[np.float64]
    noise_seed: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.light)


def take(parts: _PARTS, index: NDArray[np.int64] | slice) -> _PARTS:
    """The entries of `parts` at `index`, in that order."""
    return type(parts)(**{f.name: getattr(parts, f.name)[index] for f in fields(parts)})


def _join(parts: list[_PARTS], n: int) -> _PARTS:
    kind = type(parts[0])
    return kind(**{f.name: np.concatenate([getattr(p, f.name) for p in parts])[:n] for f in fields(kind)})


def _rng(split: str, purpose: str, chunk: int) -> np.random.Generator:
    key = hashlib.sha256(f"{split}/{purpose}/{chunk}/0".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))


def scene_key(scenes: Scenes) -> NDArray[np.int64]:
    """One int64 per scene, (N,): equal if and only if the scenes have the same captions."""
    key = scenes.layout * len(BACKGROUNDS) + scenes.background
    for k in (0, 1):
        for values, names in ((scenes.shape, SHAPES), (scenes.colour, COLOURS), (scenes.size, SIZES)):
            key = key * len(names) + values[:, k]
    return key


def _draw_scenes(rng: np.random.Generator, n: int) -> Scenes:
    # 0 single, 1 row and 2 column of different objects, 3 two alike, 4 three alike
    kind = rng.choice(5, n, p=(0.25, 0.275, 0.275, 0.1, 0.1))
    shape = rng.integers(len(SHAPES), size=(n, 2))
    colour = rng.integers(len(COLOURS), size=(n, 2))
    size = rng.integers(len(SIZES), size=(n, 2))
    background = rng.integers(len(BACKGROUNDS), size=n)
    clash = (shape[:, 0] == shape[:, 1]) & (colour[:, 0] == colour[:, 1])
    other = rng.integers(1, len(COLOURS), size=int(clash.sum()))
    colour[clash, 1] = (colour[clash, 1] + other) % len(COLOURS)
    alike = (kind == 0) | (kind >= 3)
    for values in (shape, colour, size):
        values[alike, 1] = values[alike, 0]
    size[kind == 4] = 0  # three large ones do not fit
    layout = np.array([0, 1, 2, 1, 3])[kind]
    return Scenes(layout, background, shape, colour, size)


def draw_scenes(split: Split, n: int) -> Scenes:
    """The first `n` scenes of a split. Raises ValueError for an unknown split.

    A hash of the scene divides scenes with two different objects among the splits, so no network is trained on a
    two-object caption of `val`, `test` or `reference`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the world has {', '.join(SPLITS)}")
    low, high = _SCENE_BUCKETS.get(split, (2, 10))
    # the same fraction of all other scenes is kept, so that the layouts keep their frequencies
    fraction = (high - low) / 10
    parts: list[Scenes] = []
    chunk = 0
    while sum(map(len, parts)) < n:
        scenes = _draw_scenes(_rng(split, "scene", chunk), _CHUNK)
        # Knuth's multiplicative hash; its upper bits decide
        bucket = (((scene_key(scenes) * 2654435761) & 0xFFFFFFFF) >> 16) % 10
        alike = (scenes.shape[:, 0] == scenes.shape[:, 1]) & (scenes.colour[:, 0] == scenes.colour[:, 1])
        kept = _rng(split, "keep", chunk).random(_CHUNK) < fraction
        mine = np.where(alike, kept, (bucket >= low) & (bucket < high))
        parts.append(take(scenes, np.flatnonzero(mine)))
        chunk += 1
    return _join(parts, n)


def _draw_photographs(rng: np.random.Generator, n: int) -> Photographs:
    return Photographs(
        light=rng.uniform(0, 2 * np.pi, n),
        light_strength=rng.uniform(0.5, 1.0, n),
        stripe_angle=rng.uniform(0, np.pi, n),
        stripe_frequency=rng.uniform(0.13, 0.24, n),
        stripe_phase=rng.uniform(0, 2 * np.pi, n),
        stripe_strength=rng.uniform(0.04, 0.09, n),
        noise=rng.uniform(0.004, 0.016, n),
        radius=rng.uniform(-1, 1, n),
        centre=rng.uniform(-1, 1, (n, 3, 2)),
        tint=rng.uniform(-1, 1, (n, 3)),
        noise_seed=rng.integers(2**31, size=n),
    )


def draw_photographs(split: Split, n: int, shot: int = 0) -> Photographs:
    """Light, texture, jitter and noise for the first `n` scenes of a split; `shot` numbers a scene's photographs."""
    chunks = range(-(-n // _CHUNK))
    return _join([_draw_photographs(_rng(split, f"photo{shot}", c), _CHUNK) for c in chunks], n)


def _object_phrase(scenes: Scenes, i: int, k: int, count: str = "a", plural: str = "") -> str:
    size, colour, shape = SIZES[scenes.size[i, k]], COLOURS[scenes.colour[i, k]], SHAPES[scenes.shape[i, k]]
    plural = "es" if plural and shape == "cross" else plural
    return f"{count} {size} {colour} {shape}{plural}"


def is_alike(scenes: Scenes, i: int) -> bool:
    """Whether scene `i` shows two or three equal objects."""
    same = all(v[i, 0] == v[i, 1] for v in (scenes.shape, scenes.colour, scenes.size))
    return same and LAYOUTS[scenes.layout[i]] in ("row", "triple")


def caption(scenes: Scenes, i: int) -> str:
    """The caption of scene `i`. It names the left or upper object first."""
    return captions(scenes, i)[0]


def captions(scenes: Scenes, i: int) -> tuple[str, ...]:
    """The caption of scene `i` and, for two different objects, a paraphrase that starts from the other one.

    The image-text networks learn both. Data sets and prompts have only the first.
    """
    place = _BACKGROUND_PHRASE[BACKGROUNDS[scenes.background[i]]]
    layout = LAYOUTS[scenes.layout[i]]
    if is_alike(scenes, i):
        return (f"{_object_phrase(scenes, i, 0, 'three' if layout == 'triple' else 'two', 's')} {place}",)
    first = _object_phrase(scenes, i, 0)
    if layout == "single":
        return (f"{first} {place}",)
    second = _object_phrase(scenes, i, 1)
    there, back = ("left of", "right of") if layout == "row" else ("above", "below")
    return (f"{first} {there} {second} {place}", f"{second} {back} {first} {place}")


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
