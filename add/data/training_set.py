"""Which samples does a run train on, and in which order? A function of the seed and the sample's number alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from add.config.data import CocoSpec, FolderSpec, ShardsSpec, TrainData, WindowedSpec
from add.data.coco import scan_coco
from add.data.images import CaptionedSet
from add.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sample_indices(n: int, first: int, count: int, seed: int) -> list[int]:
    """Indices of samples `first` .. `first + count` of an endless seeded order: epochs, each a permutation of n.

    A function of its arguments alone, so a resumed run sees the same samples as an unbroken one.
    """
    indices: list[int] = []
    while len(indices) < count:
        epoch, start = divmod(first + len(indices), n)
        order = _permutation(n, (seed, epoch))
        indices += order[start : start + count - len(indices)].tolist()
    return indices


def windowed_indices(blocks: Sequence[int], window: int, first: int, count: int, seed: int) -> list[int]:
    """As `sample_indices`, for samples in blocks: the samples of `window` blocks at a time are shuffled together.

    blocks: their sizes, in order. Each epoch shuffles the blocks and shows every sample once.
    """
    import numpy as np

    sizes = np.asarray(blocks, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    n = int(sizes.sum())
    indices: list[int] = []
    while len(indices) < count:
        epoch, at = divmod(first + len(indices), n)
        order = _permutation(len(sizes), (seed, epoch, 1))
        ends = np.cumsum(sizes[order])[window - 1 :: window].tolist()
        group = int(np.searchsorted(ends, at, side="right"))
        members = order[group * window : (group + 1) * window]
        begin = ends[group - 1] if group else 0
        inside = np.concatenate([np.arange(starts[b], starts[b] + sizes[b]) for b in members])
        shuffled = inside[_permutation(len(inside), (seed, epoch, 2, group))]
        indices += shuffled[at - begin : at - begin + count - len(indices)].tolist()
    return indices


@lru_cache(maxsize=4)
def _permutation(n: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """The permutation of n with this seed; the last few are cached, since every step asks for the same one."""
    import numpy as np

    order = np.random.default_rng(list(key)).permutation(n)
    order.setflags(write=False)
    return order


def scan_training_set(train: TrainData) -> tuple[CaptionedSet, list[str]]:
    """The samples that are complete by their names, and all problems. No image is opened."""
    if isinstance(train, CocoSpec):
        return scan_coco(Path(train.images), Path(train.annotations))
    if isinstance(train, FolderSpec):
        from add.data.folder import scan_folder

        return scan_folder(train)
    if isinstance(train, ShardsSpec):
        from add.data.shards import scan_shards

        return scan_shards(train)
    from add.data.huggingface import scan_huggingface

    return scan_huggingface(train)


def open_training_set(train: TrainData) -> CaptionedSet:
    """The training set. Raises InputError with all problems that `scan_training_set` finds."""
    data, problems = scan_training_set(train)
    if problems:
        raise InputError.of(problems)
    return data


def order_of(train: TrainData, data: CaptionedSet, first: int, count: int, seed: int) -> list[int]:
    """Indices of samples `first` .. `first + count` of the endless seeded order: a function of its arguments."""
    window = train.window if isinstance(train, WindowedSpec) else None
    if window is None:
        return sample_indices(len(data), first, count, seed)
    return windowed_indices(data.blocks, window, first, count, seed)
