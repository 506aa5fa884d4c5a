"""Which samples does a run train on, and in which order? A function of the seed and the sample's number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.config.training import TrainData, WindowedSpec
from add.data.coco import scan_coco
from add.data.folder import scan_folder
from add.data.huggingface import scan_huggingface
from add.data.images import CaptionedSet
from add.data.shards import scan_shards
from add.errors import InputError


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
    order = np.random.default_rng(list(key)).permutation(n)
    order.setflags(write=False)
    return order


_SCANS: dict[str, Callable[[Any], tuple[CaptionedSet, list[str]]]] = {
    "coco": scan_coco,
    "folder": scan_folder,
    "webdataset": scan_shards,
    "huggingface": scan_huggingface,
}


def scan_training_set(train: TrainData) -> tuple[CaptionedSet, list[str]]:
    """The samples that are complete by their names, and all problems. No image is opened."""
    return _SCANS[train.kind](train)


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
