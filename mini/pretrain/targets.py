"""What the world's pictures are classified by: attribute labels and the renderer's nuisance values."""

from __future__ import annotations

import numpy as np
import torch

from mini.world import (
    BACKGROUNDS,
    COLOURS,
    LAYOUTS,
    SHAPES,
    SIZES,
    Photographs,
    Scenes,
)

GROUPS: dict[str, tuple[str, ...]] = {
    "layout": LAYOUTS,
    "background": BACKGROUNDS,
    "shape_0": SHAPES,
    "colour_0": COLOURS,
    "size_0": SIZES,
    "shape_1": (*SHAPES, "none"),
    "colour_1": (*COLOURS, "none"),
    "size_1": (*SIZES, "none"),
}
"""Attribute groups in the order of the oracle's outputs; `_1` is the right or lower object, if another."""

NUISANCES = (
    "light_x",
    "light_y",
    "stripe_cos",
    "stripe_sin",
    "stripe_frequency",
    "stripe_strength",
    "noise",
    "blur",
)


def label_names() -> list[str]:
    """'group:value' for every output of a classifier over GROUPS, in order."""
    return [f"{group}:{value}" for group, values in GROUPS.items() for value in values]


def attribute_labels(scenes: Scenes) -> torch.Tensor:
    """(N, 8) int64 class index of every group; object 1 of `single` and `triple` scenes is 'none'."""
    pair = (scenes.layout == LAYOUTS.index("row")) | (scenes.layout == LAYOUTS.index("column"))
    columns = [scenes.layout, scenes.background]
    columns += [scenes.shape[:, 0], scenes.colour[:, 0], scenes.size[:, 0]]
    for values, names in ((scenes.shape, SHAPES), (scenes.colour, COLOURS), (scenes.size, SIZES)):
        columns.append(np.where(pair, values[:, 1], len(names)))
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64))


def attribute_names(scenes: Scenes, i: int) -> dict[str, str]:
    """The same for scene `i`, by name: {'layout': 'row', 'shape_0': 'circle', ...}."""
    one = Scenes(
        *(getattr(scenes, name)[i : i + 1] for name in ("layout", "background", "shape", "colour", "size"))
    )
    labels = attribute_labels(one)[0].tolist()
    return {group: values[k] for (group, values), k in zip(GROUPS.items(), labels, strict=True)}


def attribute_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over the groups; logits (N, outputs), labels (N, groups)."""
    parts = logits.split([len(values) for values in GROUPS.values()], dim=1)
    losses = [torch.nn.functional.cross_entropy(p, labels[:, k]) for k, p in enumerate(parts)]
    return torch.stack(losses).sum()


def attribute_hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(N, groups) bool: whether the arg-max of each group is the label."""
    parts = logits.split([len(values) for values in GROUPS.values()], dim=1)
    return torch.stack([p.argmax(1) == labels[:, k] for k, p in enumerate(parts)], 1)


def nuisance_values(photos: Photographs) -> torch.Tensor:
    """(N, 7) float32, each about zero mean and unit variance: NUISANCES without the blur, which training adds."""
    s = photos.light_strength / 0.75
    columns = [
        np.cos(photos.light) * s * 1.4,
        np.sin(photos.light) * s * 1.4,
        np.cos(2 * photos.stripe_angle) * 1.4,
        np.sin(2 * photos.stripe_angle) * 1.4,
        (photos.stripe_frequency - 0.185) / 0.032,
        (photos.stripe_strength - 0.065) / 0.0145,
        (photos.noise - 0.010) / 0.0035,
    ]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))
