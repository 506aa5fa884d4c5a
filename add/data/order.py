"""In which order are samples seen? A function of the seed and the sample's number alone, so a restart sees the same.

Shuffling all samples of an epoch holds one permutation: 8 bytes a sample, 80 MB for ten million. Shuffling in
windows of blocks holds one permutation of the blocks and one window's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sample_indices(n: int, first: int, count: int, seed: int) -> list[int]:
    """Indices of samples `first` .. `first + count` of an endless seeded order: epochs of permutations of n.

    A function of its arguments alone, so a resumed run sees what the unbroken one would have seen.
    """
    indices: list[int] = []
    while len(indices) < count:
        epoch, start = divmod(first + len(indices), n)
        order = _permutation(n, (seed, epoch))
        indices += order[start : start + count - len(indices)].tolist()
    return indices


def windowed_indices(blocks: Sequence[int], window: int, first: int, count: int, seed: int) -> list[int]:
    """The same where samples lie in blocks: `window` blocks at a time are read, their samples shuffled together.

    blocks: the size of each, in their order. Each epoch shuffles the blocks, and shows every sample once.
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
    """The permutation of n that `key` names; the last few are kept, since every step asks for the same."""
    import numpy as np

    order = np.random.default_rng(list(key)).permutation(n)
    order.setflags(write=False)
    return order
