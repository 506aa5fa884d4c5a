"""What a UNet computes inside, and what judges it: for discriminators on diffusion features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def blocks(unet: Any) -> list[nn.Module]:
    """The blocks down, in the middle and up, in order."""
    return [*unet.down_blocks, unet.mid_block, *unet.up_blocks]


@contextmanager
def captured(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that gets the modules' output maps (B, C, h, w), with their graph, as they compute inside the block."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class BottleneckHead(nn.Module):
    """One logit (B,) of a bottleneck's map (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, channels)
        self.logit = nn.Linear(channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B,)."""
        h = F.silu(self.norm(self.convolution(features)))
        logits: Tensor = self.logit(h.mean((2, 3)))[:, 0]
        return logits
