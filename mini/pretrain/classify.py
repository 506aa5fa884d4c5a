"""Supervised networks that only the evaluation sees, the oracle and the FID extractor; linear probes of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from add.batch import to_tensor
from mini.pretrain.loop import Recipe, batches, fit, gaussian_blur, photographs, write_card
from mini.pretrain.vae import reconstruct
from mini.world import BACKGROUNDS, COLOURS, LAYOUTS, SHAPES, SIZES, Photographs, Scenes, take

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
"""Attribute groups in the order of the oracle's outputs; `_1` is the right or lower object if it differs."""
_GROUP_SIZES = [len(values) for values in GROUPS.values()]

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
    """The outputs of a classifier over GROUPS, in order, as 'group:value'."""
    return [f"{group}:{value}" for group, values in GROUPS.items() for value in values]


def attribute_labels(scenes: Scenes) -> torch.Tensor:
    """(N, 8) int64 class index of every group; object 1 of `single` and `triple` scenes is 'none'."""
    pair = np.isin(scenes.layout, (LAYOUTS.index("row"), LAYOUTS.index("column")))
    columns = [scenes.layout, scenes.background]
    columns += [scenes.shape[:, 0], scenes.colour[:, 0], scenes.size[:, 0]]
    for values, names in ((scenes.shape, SHAPES), (scenes.colour, COLOURS), (scenes.size, SIZES)):
        columns.append(np.where(pair, values[:, 1], len(names)))
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64))


def attribute_names(scenes: Scenes, i: int) -> dict[str, str]:
    """The attributes of scene `i` by name: {'layout': 'row', 'shape_0': 'circle', ...}."""
    labels = attribute_labels(take(scenes, slice(i, i + 1)))[0].tolist()
    return {group: values[k] for (group, values), k in zip(GROUPS.items(), labels, strict=True)}


def attribute_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over the groups; logits (N, outputs), labels (N, groups)."""
    return torch.stack([F.cross_entropy(p, labels[:, k]) for k, p in enumerate(_by_group(logits))]).sum()


def attribute_hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(N, groups) bool: whether the arg-max of each group is the label."""
    return torch.stack([p.argmax(1) == labels[:, k] for k, p in enumerate(_by_group(logits))], 1)


def _by_group(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The logits of each group; those of nuisances, which follow, are left out."""
    return logits[:, : sum(_GROUP_SIZES)].split(_GROUP_SIZES, dim=1)


def nuisance_values(photos: Photographs) -> torch.Tensor:
    """(N, 7) float32 of about zero mean and unit variance: NUISANCES without the blur, which training adds."""
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
"""Side in pixels to which a network's input is enlarged, unless told otherwise: a ResNet's stem divides by four."""


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


def enlarge(images: torch.Tensor, side: int = INPUT) -> torch.Tensor:
    """Resize to side x side, bilinearly. Images are in [-1, 1], as a mean and a deviation of 0.5 make them."""
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def build(
    names: list[str], hidden: tuple[int, ...] = (32, 64, 128), depths: tuple[int, ...] = (2, 2, 2)
) -> Any:
    """An untrained ResNetForImageClassification with one output for each name."""
    from transformers import ResNetForImageClassification

    ids = dict(enumerate(names))
    config = residual_config(hidden, depths, id2label=ids, label2id={v: k for k, v in ids.items()})
    return ResNetForImageClassification(config)


@torch.no_grad()
def classified(network: Any, images: torch.Tensor) -> torch.Tensor:
    """The classifier's logits (N, outputs) for `images` (N, 3, H, W)."""
    return torch.cat([network(enlarge(part)).logits for part in images.split(200)])


def all_right(network: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of `images` (N, 3, H, W) in which the classifier finds every attribute of `labels` (N, groups)."""
    hits = attribute_hits(classified(network, images), labels)
    return round(float(hits.all(1).float().mean()), 4)


@dataclass(frozen=True)
class Judges:
    """The folders of the two networks that measure generated images of the validation scenes."""

    oracle: Path
    extractor: Path

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, scenes: Scenes) -> dict[str, float]:
        """The fraction of `images` (N, 3, H, W) with every attribute right, and their FID against 4000 photographs."""
        from transformers import AutoModel, AutoModelForImageClassification

        from eval.metrics.distances import frechet_distance, statistics

        oracle = AutoModelForImageClassification.from_pretrained(self.oracle, dtype=torch.float32).eval()
        extractor = AutoModel.from_pretrained(self.extractor, dtype=torch.float32).eval()
        real = to_tensor(photographs("reference", 4000)[2])
        both = (
            torch.cat([extractor(enlarge(part)).pooler_output.flatten(1) for part in x.split(200)])
            for x in (images, real)
        )
        found, true = (statistics(features.numpy()) for features in both)
        right = all_right(oracle, images, attribute_labels(scenes))
        return {"all_right": right, "fid": round(frechet_distance(found, true), 1)}


def reconstruct_in_turn(vaes: Sequence[Path], images: torch.Tensor) -> torch.Tensor:
    """`images` (N, 3, H, W) through the VAEs saved at `vaes`: image i through VAE number i mod len(vaes)."""
    from diffusers import AutoencoderKL

    out = torch.empty_like(images)
    for k, path in enumerate(vaes):
        vae = AutoencoderKL.from_pretrained(path, torch_dtype=torch.float32).eval()
        out[k :: len(vaes)] = reconstruct(vae, images[k :: len(vaes)])
    return out


def train(recipe: Recipe, *, nuisances: bool, vaes: Sequence[Path] = ()) -> None:
    """Train the oracle (attributes alone) or, with `nuisances`, the FID extractor (renderer's parameters too).

    The oracle also sees blurred and noisy pictures, and half of the time pictures that went through `vaes`, so that it
    judges content and not finish: a small cross that a VAE rounds off is still a cross to people, but an oracle that
    knew only photographs took it for a diamond once in twenty pictures. The extractor must tell how much a picture
    was blurred, so its features keep texture and sharpness.
    """
    torch.manual_seed(recipe.seed)
    scenes, photos, pictures = photographs("evaluation", recipe.n, shot=int(nuisances))
    images, labels, values = to_tensor(pictures), attribute_labels(scenes), nuisance_values(photos)
    classes = len(label_names())
    decoded = reconstruct_in_turn(vaes, images) if vaes else images
    network = build(label_names() + list(NUISANCES) * nuisances)
    batch = recipe.batch

    def loss(index: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        blur = torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < 0.5)
        x = images[index]
        if vaes:
            through = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
            x = torch.where(through, decoded[index], x)
        x = gaussian_blur(x, blur)
        if not nuisances:
            noise = 0.06 * torch.rand(batch, 1, 1, 1, generator=generator)
            x = x + noise * torch.randn(x.shape, generator=generator)
        logits = network(enlarge(x)).logits
        value = attribute_loss(logits, labels[index])
        if nuisances:
            target = torch.cat([values[index], (blur[:, None] - 0.25) / 0.33], 1)
            value = value + 2.0 * F.mse_loss(logits[:, classes:], target)
        return value

    networks = {f"{vae.parent.name}/vae": vae for vae in vaes}
    seconds = fit(recipe, [network], loss, decay=0.99, networks=networks)
    network.train()
    with torch.no_grad():  # batch statistics of the averaged weights
        for index in batches(recipe.n, batch, recipe.steps, recipe.seed)[-50:]:
            network(enlarge(torch.cat([images[index], decoded[index]]) if vaes else images[index]))
    network.eval()
    quality = _quality(network, nuisances, vaes)
    network.half().save_pretrained(recipe.out)
    task = "attributes, " + ("renderer's nuisance values and blur" if nuisances else "under blur and noise")
    if vaes:
        task += ", half of the pictures through " + " or ".join(f"{v.parent.name}'s VAE" for v in vaes)
    write_card(
        recipe.out,
        recipe,
        seconds,
        network="ResNetForImageClassification, basic blocks, 32-64-128, input 64x64",
        how=f"supervised by {task}; {recipe}, moving average .99, seed {recipe.seed}",
        data=f"{recipe.n} photographs of the world's evaluation split",
        quality=quality,
    )


def _quality(network: Any, nuisances: bool, vaes: Sequence[Path]) -> dict[str, Any]:
    """What the trained classifier finds in the validation photographs, as they are and through each VAE."""
    scenes, photos, pictures = photographs("val", 1000)
    images, labels = to_tensor(pictures), attribute_labels(scenes)
    quality: dict[str, Any] = {"all_right": all_right(network, images, labels), "images": len(labels)}
    for vae in vaes:
        shown = reconstruct_in_turn([vae], images)
        quality[f"all_right_through_{vae.parent.name}_vae"] = all_right(network, shown, labels)
    if nuisances:
        truth = nuisance_values(photos)
        found = classified(network, images)[:, len(label_names()) : -1]  # the last is the blur
        error = (found - truth).square().mean(0) / truth.var(0)
        quality["r_squared"] = dict(zip(NUISANCES, (1 - error).round(decimals=3).tolist(), strict=False))
    return quality


@torch.no_grad()
def _features(network: nn.Module, images: torch.Tensor, side: int) -> torch.Tensor:
    parts = []
    for part in images.split(200):
        output = network(enlarge(part, side))
        pooled, quarters = output.pooler_output, F.adaptive_avg_pool2d(output.last_hidden_state, 2)
        parts.append(torch.cat([pooled.flatten(1), quarters.flatten(1)], 1))
    return torch.cat(parts)


def linear_probe(network: nn.Module, side: int, n: int = 4000) -> dict[str, float]:
    """Accuracy of linear classifiers for each attribute group, and mean R^2 for texture and light, of a ResNetModel.

    They are trained on `n` photographs of the discriminator split and tested on 1000 of the validation split.
    """
    scenes, photos, pictures = photographs("discriminator", 30000)
    test_scenes, test_photos, test_pictures = photographs("val", 1000)
    x, z = (_features(network, to_tensor(images), side) for images in (pictures[:n], test_pictures))
    mean, std = x.mean(0), x.std(0) + 1e-4
    x, z = (x - mean) / std, (z - mean) / std
    labels = attribute_labels(scenes)[:n]
    values, truth = nuisance_values(photos)[:n], nuisance_values(test_photos)
    torch.manual_seed(0)
    classes = len(label_names())
    probe = nn.Linear(x.shape[1], classes + values.shape[1])
    optimiser = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
    for _ in range(400):
        index = torch.randint(n, (512,))
        out = probe(x[index])
        loss = attribute_loss(out, labels[index])
        loss = loss + F.mse_loss(out[:, classes:], values[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        out = probe(z)
    hits = attribute_hits(out, attribute_labels(test_scenes)).float().mean(0)
    quality = {group: round(float(hits[k]), 3) for k, group in enumerate(GROUPS)}
    r_squared = 1 - (out[:, classes:] - truth).square().mean(0) / truth.var(0)
    quality["texture_and_light_r2"] = round(float(r_squared.mean()), 3)
    return quality


def probe_card(network: nn.Module, untrained: nn.Module, side: int) -> dict[str, dict[str, float]]:
    """The card's quality entry: the network's linear probe, beside that of the same architecture untrained."""
    return {
        "linear_probe": linear_probe(network, side),
        "untrained_linear_probe": linear_probe(untrained, side),
    }
