"""How do several processes train one student? Each takes a slice of every batch; gradients are averaged.

A student that is too large for one GPU is sharded (FSDP): each process keeps a slice of every parameter (a DTensor)
and gathers a block's parameters while that block computes. On disk a sharded student looks like any other:
checkpoints hold whole tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from add.discriminator import virtual_batches
from add.errors import InputError

BUCKET = 1 << 26
"""Elements averaged in one call: 256 MiB in float32, beside the gradients themselves."""

_T = TypeVar("_T")
_Items = TypeVar("_Items", Tensor, list[int])
_PATIENCE = timedelta(hours=2)  # the first process may download or hash networks while the others wait


@dataclass(frozen=True)
class Rank:
    """Slice `index` of `processes` equal, consecutive slices of every batch. `sharded`: so is the student."""

    index: int = 0
    processes: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress: one does."""
        return self.index == 0

    def of(self, whole: _Items) -> _Items:
        """This process's slice of what belongs to a whole batch, along its first dimension."""
        size = len(whole) // self.processes
        return whole[self.index * size : (self.index + 1) * size]


ALONE = Rank()
"""The rank of the one process of a plain run."""


def join_processes(device: str) -> tuple[Rank, str]:
    """Join the processes that a launcher started; returns the rank of this one and its device.

    Reads the environment that `accelerate launch` and torchrun set; without it there is one process and nothing
    is imported. Raises InputError where `device` names one GPU for several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    if ":" in device:
        raise InputError(f"--device {device}: the launcher gives each process its own; say cuda, or cpu")
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    return Rank(state.process_index, state.num_processes, sharded), str(state.device)


def leave_processes(rank: Rank) -> None:
    """Wait until all have come here, then take the processes apart."""
    if rank.processes > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()


def check_ranks(rank: Rank, part: int, virtual_batch: int | None) -> None:
    """Raise InputError where the processes cannot compute what one process would.

    part: images of a step's part (training.batch over training.accumulate). virtual_batch: of the heads' local
    batch norm, whose groups of samples must not change; None without heads.
    """
    if rank.processes == 1:
        return
    own = part // rank.processes
    if part % rank.processes:
        raise InputError(
            f"{part} images a part (training.batch / training.accumulate) do not split into equal slices for "
            f"{rank.processes} processes"
        )
    if virtual_batch is None:
        return
    groups = _group_sizes(part, virtual_batch)
    if _group_sizes(own, virtual_batch) * rank.processes != groups:
        raise InputError(
            f"{rank.processes} processes with {own} images each would normalise other groups of images than one "
            f"process with {part}: let the slice be a multiple of training.virtual_batch ({virtual_batch})"
        )


def from_first(rank: Rank, make: Callable[[], _T]) -> _T:
    """The result of `make` in the first process, for every process; the others wait and do not call it."""
    if rank.processes == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    found: list[_T | None] = [make() if rank.first else None]
    broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def average_gradients(rank: Rank, module: nn.Module) -> None:
    """Replace each gradient of `module` by its mean over the processes. Sharded ones are means already."""
    if rank.processes > 1:
        _average([p.grad for p in module.parameters() if p.grad is not None and not is_sharded(p)], rank)


def average_values(rank: Rank, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over the processes of scalars that are means over each process's own images."""
    if rank.processes == 1 or not values:
        return dict(values)
    stacked = torch.stack([v.float() for v in values.values()])
    _average([stacked], rank)
    return dict(zip(values, stacked.unbind(), strict=True))


def check_equal(rank: Rank, module: nn.Module, what: str) -> None:
    """Raise RuntimeError where the processes' copies of a module differ in a bit.

    They start from the same values and make the same updates; a machine or library that differs would let them
    drift apart unseen, and each would train another student.
    """
    import torch.distributed as dist

    whole = [p.detach() for p in module.parameters() if not is_sharded(p)]
    if rank.processes == 1 or not whole:
        return
    # Bits as integers: the sum is exact in any order.
    total = torch.stack([p.view(torch.int32).sum(dtype=torch.int64) for p in whole])
    least, most = total.clone(), total.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if not torch.equal(least, most):
        raise RuntimeError(
            f"the processes' copies of the {what} have drifted apart: are their machines and libraries the same?"
        )


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of `tensor`."""
    return hasattr(tensor, "device_mesh")  # a DTensor; torch.distributed.tensor takes a second to import


def _group_sizes(batch: int, virtual_batch: int) -> list[int]:
    return [samples for groups, samples in virtual_batches(batch, virtual_batch) for _ in range(groups)]


def _average(tensors: Sequence[Tensor], rank: Rank) -> None:
    import torch.distributed as dist

    for bucket in _buckets(tensors):
        flat = torch.cat([t.reshape(-1) for t in bucket])
        dist.all_reduce(flat)
        flat /= rank.processes
        parts = flat.split([t.numel() for t in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Consecutive tensors, up to BUCKET elements together."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def shard(unet: Any) -> None:
    """Cut the parameters of a diffusers UNet over all processes, in place.

    FSDP gathers one unit at a time; the units are the modules that diffusers marks as not to be split, innermost first.
    Raises InputError for a network that names none.
    """
    from torch.distributed.fsdp import fully_shard

    units = getattr(unet, "_no_split_modules", None)
    if not units:
        raise InputError(f"{type(unet).__name__} names no units (_no_split_modules): it cannot be sharded")
    for module in reversed([m for m in unet.modules() if type(m).__name__ in units]):
        fully_shard(module)
    # The outermost unit too: a forward pass without a backward pass (pictures) must leave slices for the optimiser.
    fully_shard(unet, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, where each process holds a part of it. All processes must call it."""
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
    """The part of a tensor that this process holds; the whole tensor if it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
