"""How does a student that is too large for one GPU live on several? Its parameters, gradients and states are cut.

FSDP: each process keeps a slice of every parameter (a DTensor) and gathers a block's parameters while that block
computes. On disk a sharded student looks like any other: checkpoints hold whole tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from add.parallel import is_sharded


def shard(unet: Any) -> None:
    """Cut the parameters of a diffusers UNet over all processes, in place.

    The units that are gathered at once are those that diffusers names as not to be split, the innermost first.
    Raises ValueError for a network that names none.
    """
    from torch.distributed.fsdp import fully_shard

    units = getattr(unet, "_no_split_modules", None)
    if not units:
        raise ValueError(f"{type(unet).__name__} names no units (_no_split_modules): it cannot be sharded")
    for module in reversed([m for m in unet.modules() if type(m).__name__ in units]):
        fully_shard(module)
    fully_shard(unet)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which each process holds a part. All processes must call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole_tensors(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """`tensors` by name, whole and on the CPU where sharded; empty unless `keep`. All processes must call it."""
    found = {}
    for name, tensor in tensors.items():  # one at a time: not all of a large student fits at once
        entire = whole(tensor).cpu() if is_sharded(tensor) else tensor
        if keep:
            found[name] = entire
    return found


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` on the device, in the strides and, where `like` is sharded, in the slices of `like`.

    Strides: fused optimisers walk through a parameter and its state as they lie in memory.
    """
    if is_sharded(like):
        from torch.distributed.tensor import distribute_tensor

        device = like.device
        return distribute_tensor(tensor.to(device), like.device_mesh, like.placements)  # type: ignore[attr-defined]
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, if it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
