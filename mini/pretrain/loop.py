"""What the miniature's trainers share: data in memory, augmented views, schedule, moving average, progress."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from add.models.weights import weights_hash
from mini.render import render
from mini.world import Photographs, Scenes, Split, draw_photographs, draw_scenes


def warm_cosine(step: int, steps: int, warmup: int = 100) -> float:
    """Learning-rate factor: linear warm-up, then cosine decay to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[int], torch.Tensor],
    steps: int,
    lr: float,
    *,
    name: str,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.99),
    clip: float = 1.0,
    after: Callable[[int], None] | None = None,
) -> float:
    """Minimise `loss(step)` with AdamW; returns the CPU seconds used. `after(step)` runs after each update."""
    parameters = list(parameters)
    decay = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    started = time.process_time()
    smooth = 0.0
    with tqdm(range(steps), desc=name, mininterval=10, miniters=20) as bar:
        for step in bar:
            for group in optimiser.param_groups:
                group["lr"] = lr * warm_cosine(step, steps)
            value = loss(step)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            if after is not None:
                after(step)
            smooth += (value.item() - smooth) * (1.0 if step == 0 else 0.02)
            bar.set_postfix_str(f"loss {smooth:.4f}", refresh=False)
    return time.process_time() - started


class Average:
    """Exponential moving average of modules' parameters, to be copied back at the end of training."""

    def __init__(self, *modules: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.live = [p for m in modules for p in m.parameters()]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the live parameters in; the decay ramps up over the first steps."""
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.mean, list[torch.Tensor](self.live), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averaged and the live values (call again to undo)."""
        for live, mean in zip(self.live, self.mean, strict=True):
            kept = live.clone()
            live.copy_(mean)
            mean.copy_(kept)


def write_card(directory: Path, card: dict[str, Any]) -> None:
    """Write CARD.json (recipe, data, steps, quality, hash of the weights) beside the weights."""
    card = {**card, "sha256": weights_hash(directory), "torch": torch.__version__.split("+")[0]}
    (directory / "CARD.json").write_text(json.dumps(card, indent=2, sort_keys=False) + "\n")


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


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image with its own standard deviation in pixels, sigma (N,); 0 leaves it as it is."""
    radius = 3
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = images.shape
    weights = kernel.repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, weights[:, None, None, :], groups=n * c)
    return F.conv2d(flat, weights[:, None, :, None], groups=n * c).reshape(n, c, h, w)


def rotate_colours(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """In a `share` of the images, rotate the colour axes about grey by a random angle."""
    n = len(images)
    angle = torch.rand(n, generator=generator) * 2 * math.pi
    angle = angle * (torch.rand(n, generator=generator) < share)
    # Rodrigues' formula about (1, 1, 1) / sqrt 3
    k = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -k, k], [k, 0.0, -k], [-k, k, 0.0]])
    grey = torch.full((3, 3), 1 / 3)
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    rotation = c * torch.eye(3) + s * cross + (1 - c) * grey
    return torch.einsum("nij,njhw->nihw", rotation, images)


def jitter(images: torch.Tensor, generator: torch.Generator, shift: int = 3) -> torch.Tensor:
    """Random brightness and contrast of each image, and one translation of up to `shift` pixels a batch."""
    n = len(images)
    gain = 1 + 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    offset = 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    dx, dy = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    h, w = images.shape[-2:]
    moved = padded[..., shift + dy : shift + dy + h, shift + dx : shift + dx + w]
    return moved * gain + offset
