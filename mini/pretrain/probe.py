"""What a frozen network knows: linear probes on its pooled features, beside the same architecture untrained."""

from __future__ import annotations

import torch
from torch import nn

from mini.pretrain.classify import enlarge
from mini.pretrain.data import photographs, to_tensor
from mini.pretrain.targets import GROUPS, attribute_hits, attribute_labels, attribute_loss, nuisance_values


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
    features = torch.cat(parts)
    return features


def linear_probe(network: nn.Module, n: int = 4000) -> dict[str, float]:
    """Held-out accuracy of linear classifiers for each attribute group, and mean R^2 for texture and light.

    Trained on `n` photographs of the discriminator split, tested on 1000 of the validation split.
    """
    scenes, photos, pictures = photographs("discriminator", 30000)
    test_scenes, test_photos, test_pictures = photographs("val", 1000)
    x, z = _features(network, to_tensor(pictures[:n])), _features(network, to_tensor(test_pictures))
    mean, std = x.mean(0), x.std(0) + 1e-4
    x, z = (x - mean) / std, (z - mean) / std
    labels = attribute_labels(scenes)[:n]
    values, truth = nuisance_values(photos)[:n], nuisance_values(test_photos)
    torch.manual_seed(0)
    classes = sum(map(len, GROUPS.values()))
    probe = nn.Linear(x.shape[1], classes + values.shape[1])
    optimiser = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
    for _ in range(400):
        index = torch.randint(n, (512,))
        out = probe(x[index])
        loss = attribute_loss(out[:, :classes], labels[index])
        loss = loss + nn.functional.mse_loss(out[:, classes:], values[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        out = probe(z)
    hits = attribute_hits(out[:, :classes], attribute_labels(test_scenes)).float().mean(0)
    quality = {group: round(float(hits[k]), 3) for k, group in enumerate(GROUPS)}
    r_squared = 1 - (out[:, classes:] - truth).square().mean(0) / truth.var(0)
    quality["texture_and_light_r2"] = round(float(r_squared.mean()), 3)
    return quality


def probe_card(network: nn.Module, untrained: nn.Module) -> dict[str, dict[str, float]]:
    """The card's quality entry: what the network knows, beside the same architecture untrained."""
    return {"linear_probe": linear_probe(network), "untrained_linear_probe": linear_probe(untrained)}
