"""In-memory training data for the miniature's networks: pictures, captions and targets of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mini.render import render
from mini.world import Photographs, Scenes, Split, draw_photographs, draw_scenes

CACHE = Path("data/pretrain")


def photographs(split: Split, n: int, shot: int = 0) -> tuple[Scenes, Photographs, NDArray[np.uint8]]:
    """Scenes, photographs and (n, 32, 32, 3) uint8 pictures of a split; pictures are cached on disk."""
    scenes, photos = draw_scenes(split, n), draw_photographs(split, n, shot=shot)
    file = CACHE / f"{split}-{n}-{shot}.npy"
    if file.exists():
        return scenes, photos, np.load(file)
    pictures = render(scenes, photos)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial.npy")
    np.save(partial, pictures)
    partial.rename(file)
    return scenes, photos, pictures


def to_tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def batches(n: int, batch: int, steps: int, seed: int) -> NDArray[np.int64]:
    """(steps, batch) indices below n: epochs of seeded permutations laid end to end."""
    rng = np.random.default_rng(seed)
    epochs = -(-steps * batch // n)
    order = np.concatenate([rng.permutation(n) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)
