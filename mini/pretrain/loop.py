"""What the miniature's trainers share: schedule, moving average, progress, cards."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from add.weights import weights_hash


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
