"""How do several processes train one student? Each takes its share of every batch; gradients are averaged.

`accelerate launch` (or torchrun) starts the processes; a plain `python -m add.train` is the one that takes all.
Every process draws the whole batch's random numbers, which cost next to nothing, and takes its own slice, so that
the union over the processes is what one process would have drawn.

Gradients are averaged by an all-reduce once an optimiser step rather than by wrapping in
DistributedDataParallel: the heads are called three times a step, once frozen and once for R1's gradient of a
gradient, which DDP's hooks do not allow, and the student's loss runs through them without training them. What DDP
would add, communication during the backward pass, is a small part of a step that decodes and looks at images.
A UNet too large for that is sharded instead (`add.sharding`), which averages in the backward pass by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn

from add.discriminator import virtual_batches

BUCKET = 1 << 26
"""Elements that are averaged at once: 256 MiB in float32 beside the gradients themselves."""

_T = TypeVar("_T")
_Items = TypeVar("_Items", Tensor, tuple[str, ...], Sequence[int])
_PATIENCE = timedelta(hours=2)  # the first process may download or hash networks while the others wait


@dataclass(frozen=True)
class Share:
    """Slice `rank` of `processes` equal, consecutive slices of every batch; `sharded`: so is the student."""

    rank: int = 0
    processes: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress: one does."""
        return self.rank == 0

    def of(self, whole: _Items) -> _Items:
        """This process's slice of what belongs to a whole batch, along its first dimension."""
        size = len(whole) // self.processes
        return whole[self.rank * size : (self.rank + 1) * size]


WHOLE = Share()
"""The share of the one process of a plain run."""


def join_processes(device: str) -> tuple[Share, str]:
    """Join the processes that a launcher started; the share of this one, and its device.

    Reads the environment that `accelerate launch` and torchrun set; without it there is one process and nothing
    is imported. Raises ValueError where `device` names one GPU for several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return WHOLE, device
    if ":" in device:
        raise ValueError(f"--device {device}: the launcher gives each process its own; say cuda, or cpu")
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    return Share(state.process_index, state.num_processes, sharded), str(state.device)


def leave_processes(share: Share) -> None:
    """Wait until all have come here, then take the processes apart."""
    if share.processes > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()


def check_share(share: Share, part: int, virtual_batch: int | None) -> None:
    """Raise ValueError where the processes cannot compute what one process would.

    part: images of a step's part (training.batch over training.accumulate). virtual_batch: of the heads' local
    batch norm, whose groups of samples must be the same ones; None without heads.
    """
    if share.processes == 1:
        return
    own = part // share.processes
    if part % share.processes:
        raise ValueError(
            f"{part} images a part (training.batch / training.accumulate) do not split into equal shares for "
            f"{share.processes} processes"
        )
    if virtual_batch is None:
        return
    groups = _group_sizes(part, virtual_batch)
    if _group_sizes(own, virtual_batch) * share.processes != groups:
        raise ValueError(
            f"{share.processes} processes with {own} images each would normalise other groups of images than one "
            f"process with {part}: let the share be a multiple of training.virtual_batch ({virtual_batch})"
        )


def from_first(share: Share, make: Callable[[], _T]) -> _T:
    """What `make` gives in the first process, in all of them; the others wait and do not call it."""
    if share.processes == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    found: list[_T | None] = [make() if share.first else None]
    broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def average_gradients(share: Share, module: nn.Module) -> None:
    """Replace each gradient of `module` by its mean over the processes. Sharded ones are means already."""
    if share.processes > 1:
        _average([p.grad for p in module.parameters() if p.grad is not None and not is_sharded(p)], share)


def average_values(share: Share, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over the processes of scalars that are means over each process's own images."""
    if share.processes == 1 or not values:
        return dict(values)
    stacked = torch.stack([v.float() for v in values.values()])
    _average([stacked], share)
    return dict(zip(values, stacked.unbind(), strict=True))


def check_equal(share: Share, module: nn.Module, what: str) -> None:
    """Raise RuntimeError where the processes' copies of a module differ in a bit.

    They start from the same values and make the same updates; a machine or library that differs would let them
    drift apart unseen, and each would train another student.
    """
    import torch.distributed as dist

    whole = [p.detach() for p in module.parameters() if not is_sharded(p)]
    if share.processes == 1 or not whole:
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


def _average(tensors: Sequence[Tensor], share: Share) -> None:
    import torch.distributed as dist

    for bucket in _buckets(tensors):
        flat = torch.cat([t.reshape(-1) for t in bucket])
        dist.all_reduce(flat)
        flat /= share.processes
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
