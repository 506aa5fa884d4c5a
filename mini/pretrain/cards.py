"""What a network's card says: linear probes of features, the quality of a teacher's samples, hashes of weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from add.files import write_json
from add.models.weights import weights_hash
from mini.pretrain.classify import (
    GROUPS,
    all_right,
    attribute_hits,
    attribute_labels,
    attribute_loss,
    enlarge,
    label_names,
    nuisance_values,
)
from mini.pretrain.loop import photographs, to_tensor
from mini.world import caption, draw_scenes


@torch.no_grad()
def _features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    parts = []
    for part in images.split(200):
        output = network(enlarge(part))
        last = output.last_hidden_state
        if last.ndim == 3:  # tokens: the class token and a 2x2 map of the patches
            side = int((last.shape[1] - 1) ** 0.5)
            grid = last[:, 1:].transpose(1, 2).reshape(len(part), -1, side, side)
            pooled = last[:, 0]
        else:
            grid, pooled = last, output.pooler_output.flatten(1)
        parts.append(torch.cat([pooled, nn.functional.adaptive_avg_pool2d(grid, 2).flatten(1)], 1))
    return torch.cat(parts)


def linear_probe(network: nn.Module, n: int = 4000) -> dict[str, float]:
    """Accuracy of linear classifiers for each attribute group, and mean R^2 for texture and light.

    They are trained on `n` photographs of the discriminator split and tested on 1000 of the validation split.
    """
    scenes, photos, pictures = photographs("discriminator", 30000)
    test_scenes, test_photos, test_pictures = photographs("val", 1000)
    x, z = _features(network, to_tensor(pictures[:n])), _features(network, to_tensor(test_pictures))
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
        loss = loss + nn.functional.mse_loss(out[:, classes:], values[index])
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


def probe_card(network: nn.Module, untrained: nn.Module) -> dict[str, dict[str, float]]:
    """The card's quality entry: the network's linear probe, beside that of the same architecture untrained."""
    return {"linear_probe": linear_probe(network), "untrained_linear_probe": linear_probe(untrained)}


def add_teacher_quality(directory: Path, oracle_directory: Path, n: int = 1000, steps: int = 25) -> None:
    """Add to a pipeline's card the fraction of its samples in which the oracle finds all attributes right.

    The samples are of the first `n` validation captions, without guidance and with a scale of 2.
    """
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForImageClassification

    from eval.sample import System

    oracle = AutoModelForImageClassification.from_pretrained(oracle_directory, dtype=torch.float32).eval()
    pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenes = draw_scenes("val", n)
    prompts = [caption(scenes, i) for i in range(n)]
    samples = []
    for guidance in (1.0, 2.0):
        system = System("teacher", pipeline, {}, guidance)
        parts = [
            system.images(prompts[i : i + 50], list(range(i, min(i + 50, n))), steps) for i in range(0, n, 50)
        ]
        share = all_right(oracle, to_tensor(np.concatenate(parts)), attribute_labels(scenes))
        sampler = f"DDIM, {steps} steps, trailing"
        samples.append({"sampler": sampler, "guidance": guidance, "images": n, "all_right": share})
    file = directory / "CARD.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    vae_card = json.loads((directory / "vae" / "CARD.json").read_text(encoding="utf-8"))
    card["quality"] = {"vae": vae_card["quality"], "samples": samples}
    write_json(file, card)


_PLACE = re.compile(r'^\s+(?:path|model):\s*"?(?:local-dir:)?(mini/weights/\w+)"?')
_HASH = re.compile(r"^(\s+sha256:\s*)(\S+)(\s*)(#.*)?$")


def pin(text: str, root: Path) -> str:
    """The YAML `text` with each `sha256` that follows a path below mini/weights set; comments stay.

    root: the repository's.
    """
    lines = []
    place = None
    for line in text.splitlines():
        found = _PLACE.match(line)
        if found:
            place = found[1]
        entry = _HASH.match(line)
        if entry and place:
            comment = f"  {entry[4]}" if entry[4] else ""
            line = f"{entry[1]}{weights_hash(root / place)}{comment}"
            place = None
        lines.append(line)
    return "\n".join(lines) + "\n"
