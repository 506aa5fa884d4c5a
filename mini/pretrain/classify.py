"""Supervised networks that only the evaluation sees: the oracle and the FID extractor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mini.pretrain.loop import Average, batches, fit, gaussian_blur, photographs, to_tensor, write_card
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


INPUT = 64
"""Side in pixels to which every feature network's input is enlarged: a ResNet's stem divides by four."""


def residual_config(hidden: tuple[int, ...], depths: tuple[int, ...], **more: Any) -> Any:
    """A transformers ResNetConfig of basic blocks, three stages: maps of 16x16, 8x8 and 4x4 from 64x64."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=hidden[0],
        hidden_sizes=list(hidden),
        depths=list(depths),
        layer_type="basic",
        hidden_act="relu",
        **more,
    )


def enlarge(images: torch.Tensor) -> torch.Tensor:
    """Bilinear to INPUT x INPUT; a mean of 0.5 and deviation of 0.5 maps [0, 1] to the [-1, 1] used here."""
    return F.interpolate(images, size=(INPUT, INPUT), mode="bilinear", align_corners=False)


def build(
    names: list[str], hidden: tuple[int, ...] = (32, 64, 128), depths: tuple[int, ...] = (2, 2, 2)
) -> Any:
    """An untrained ResNetForImageClassification with one output a name."""
    from transformers import ResNetForImageClassification

    ids = dict(enumerate(names))
    config = residual_config(hidden, depths, id2label=ids, label2id={v: k for k, v in ids.items()})
    return ResNetForImageClassification(config)


@torch.no_grad()
def reconstruct(vaes: Sequence[Path], images: torch.Tensor) -> torch.Tensor:
    """`images` (N, 3, H, W) through the VAEs at `vaes` in turn: image i through the (i mod number)-th."""
    from diffusers import AutoencoderKL

    out = torch.empty_like(images)
    for k, path in enumerate(vaes):
        vae = AutoencoderKL.from_pretrained(path, torch_dtype=torch.float32).eval()
        part = images[k :: len(vaes)].split(200)
        out[k :: len(vaes)] = torch.cat([vae.decode(vae.encode(p).latent_dist.mode()).sample for p in part])
    return out.clamp_(-1, 1)


def all_right(network: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of `images` (N, 3, H, W) in which the classifier finds every attribute of `labels` (N, groups)."""
    classes = len(label_names())
    with torch.no_grad():
        logits = torch.cat([network(enlarge(p)).logits for p in images.split(200)])
    return round(float(attribute_hits(logits[:, :classes], labels).all(1).float().mean()), 4)


def train(
    out: Path,
    *,
    seed: int,
    steps: int,
    nuisances: bool,
    vaes: Sequence[Path] = (),
    batch: int = 64,
    lr: float = 2e-3,
    n: int = 30000,
) -> None:
    """Train the oracle (attributes alone) or, with `nuisances`, the FID extractor (attributes and the renderer's).

    The oracle sees blurred and noisy pictures too, and half of the time pictures that went through `vaes`, so
    that it judges content and not finish: a small cross that a VAE rounds off is still a cross to people, but
    was a diamond, once in twenty pictures, to an oracle that knew photographs alone. The extractor must tell
    how much a picture was blurred: its features keep texture and sharpness.
    """
    torch.manual_seed(seed)
    shot = 1 if nuisances else 0
    scenes, photos, pictures = photographs("evaluation", n, shot)
    images, labels, values = to_tensor(pictures), attribute_labels(scenes), nuisance_values(photos)
    test_scenes, test_photos, test_pictures = photographs("val", 1000)
    test_images, test_labels = to_tensor(test_pictures), attribute_labels(test_scenes)
    names = label_names() + (list(NUISANCES) if nuisances else [])
    classes = len(label_names())
    decoded = reconstruct(vaes, images) if vaes else images
    network = build(names)
    average = Average(network, decay=0.99)
    order = batches(n, batch, steps, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> torch.Tensor:
        index = order[step]
        blur = torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < 0.5)
        pictures = images[index]
        if vaes:
            through = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
            pictures = torch.where(through, decoded[index], pictures)
        x = gaussian_blur(pictures, blur)
        if not nuisances:
            x = x + 0.06 * torch.rand(batch, 1, 1, 1, generator=generator) * torch.randn(
                x.shape, generator=generator
            )
        logits = network(enlarge(x)).logits
        value = attribute_loss(logits[:, :classes], labels[index])
        if nuisances:
            target = torch.cat([values[index], (blur[:, None] - 0.25) / 0.33], 1)
            value = value + 2.0 * F.mse_loss(logits[:, classes:], target)
        return value

    seconds = fit(network.parameters(), loss, steps, lr, name=str(out), after=average.update)
    average.swap()
    network.train()
    with torch.no_grad():  # batch statistics of the averaged weights
        for index in order[-50:]:
            network(enlarge(torch.cat([images[index], decoded[index]]) if vaes else images[index]))
    network.eval()
    quality: dict[str, Any] = {
        "all_right": all_right(network, test_images, test_labels),
        "images": len(test_labels),
    }
    for vae in vaes:
        shown = reconstruct([vae], test_images)
        quality |= {f"all_right_through_{vae.parent.name}_vae": all_right(network, shown, test_labels)}
    if nuisances:
        truth = nuisance_values(test_photos)
        with torch.no_grad():
            logits = torch.cat([network(enlarge(p)).logits for p in test_images.split(200)])
        error = (logits[:, classes:-1] - truth).square().mean(0) / truth.var(0)
        quality["r_squared"] = dict(zip(NUISANCES, (1 - error).round(decimals=3).tolist(), strict=False))
    network.half().save_pretrained(out)
    task = (
        "attributes, renderer's nuisance values and blur" if nuisances else "attributes, under blur and noise"
    ) + (", half of the pictures through " + " or ".join(f"{v.parent.name}'s VAE" for v in vaes)) * bool(vaes)
    write_card(
        out,
        {
            "network": "ResNetForImageClassification, basic blocks, 32-64-128, input 64x64",
            "recipe": f"supervised by {task}; AdamW {lr} cosine, batch {batch}, moving average .99, seed {seed}",
            "data": f"{n} photographs of the world's evaluation split",
            "steps": steps,
            "cpu_seconds": round(seconds),
            "quality": quality,
        },
    )
    print(out, quality, flush=True)
