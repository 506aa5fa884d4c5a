"""The built-in world: captioned scenes whose ground truth is known.

A *scene* (what the caption says) is one to three coloured shapes on a background. A *photograph* (what the
caption does not say) is light, texture, position jitter and sensor noise. Both are structs of arrays with one
entry per image, so one scene can be photographed more than once. `mini.render` turns them into pixels,
`mini.dataset` writes them as COCO and PartiPrompts files.
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

Split = Literal["train", "discriminator", "evaluation", "val", "reference"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""What each split of the images is for: the diffusion models and VAEs; the discriminator's networks; the evaluation's
networks; the prompts; the FID's reference."""

_BACKGROUND_PHRASE = {"snow": "in the snow", "stone": "on stone", "sand": "on sand", "night": "at night"}
_CHUNK = 2048  # scenes are drawn in chunks of this size, so the first n do not depend on the total
_SCENE_BUCKETS = {"val": (0, 1), "reference": (1, 2)}  # tenths of the space of two-object scenes
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
    two-object caption of `val` or `reference`.
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
    if LAYOUTS[scenes.layout[i]] == "triple":
        return True
    same = all(v[i, 0] == v[i, 1] for v in (scenes.shape, scenes.colour, scenes.size))
    return bool(LAYOUTS[scenes.layout[i]] == "row" and same)


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
