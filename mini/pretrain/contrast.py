"""Self-supervised feature networks of the discriminator: InfoNCE between views, no labels, no captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mini.pretrain.cards import probe_card
from mini.pretrain.classify import enlarge, residual_config
from mini.pretrain.loop import batches, fit, jitter, photographs, rotate_colours, to_tensor, write_card


def info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Symmetric InfoNCE between rows of `a` and `b`, (N, D): row i of one should find row i of the other."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    target = torch.arange(len(a))
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def build(hidden: tuple[int, ...]) -> Any:
    """An untrained transformers ResNetModel for 64x64 inputs, one block a stage."""
    from transformers import ResNetModel

    return ResNetModel(residual_config(hidden, (1,) * len(hidden)))


def projector(width: int, out: int = 64) -> nn.Module:
    """The small network between features and InfoNCE, thrown away after training."""
    return nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, out))


def train(
    out: Path,
    *,
    seed: int,
    steps: int,
    hidden: tuple[int, ...],
    instance: bool,
    colour_rotation: float,
    batch: int = 128,
    lr: float = 2e-3,
    n: int = 30000,
) -> None:
    """Train by InfoNCE between two photographs of one scene and, with `instance`, two views of one photograph.

    The first makes the network know what the caption says, the second what tells two pictures of one scene
    apart: texture, light, position. `colour_rotation` is the share of views with rotated colour axes, which
    makes shape necessary (colours alone tell 128 scenes apart).
    """
    torch.manual_seed(seed)
    shots = [to_tensor(photographs("discriminator", n, shot)[2]) for shot in (0, 1)]
    network = build(hidden)
    heads = nn.ModuleDict({"scene": projector(hidden[-1]), "instance": projector(hidden[-1])})
    order = batches(n, batch, steps, seed)
    generator = torch.Generator().manual_seed(seed)

    def view(images: torch.Tensor) -> torch.Tensor:
        return enlarge(rotate_colours(jitter(images, generator), colour_rotation, generator))

    def loss(step: int) -> torch.Tensor:
        index = order[step]
        views = [view(shots[0][index]), view(shots[1][index])]
        if instance:
            views.append(view(shots[0][index]))
        features = network(torch.cat(views)).pooler_output.flatten(1)
        first, second, *again = features.chunk(len(views))
        value = info_nce(heads["scene"](first), heads["scene"](second))
        if again:
            value = value + info_nce(heads["instance"](first), heads["instance"](again[0]))
        return value

    seconds = fit([*network.parameters(), *heads.parameters()], loss, steps, lr, name=str(out))
    network.eval()
    quality = probe_card(network, build(hidden).eval())
    network.half().save_pretrained(out)
    objective = "two photographs of one scene" + (" and two views of one photograph" if instance else "")
    write_card(
        out,
        {
            "network": f"{type(network).__name__} {hidden}, {network.num_parameters()} parameters",
            "recipe": f"InfoNCE between {objective}, colours rotated in {colour_rotation:.0%} of views; "
            f"AdamW {lr} cosine, batch {batch}, seed {seed}",
            "data": f"2 photographs of each of {n} scenes of the world's discriminator split",
            "steps": steps,
            "cpu_seconds": round(seconds),
            "quality": quality,
        },
    )
    print(out, quality, flush=True)
