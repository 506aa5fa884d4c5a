"""Features of one set of images by several roads: one decode, and each shared part of two roads done once.

Memory holds one batch of decoded images and one batch of resized ones; features lie in memory-mapped files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from eval.metrics.features import Extractor
from eval.protocols.pixels import Pixels, resizer

if TYPE_CHECKING:
    import torch

    from eval.protocols.plan import Road
    from eval.protocols.sources import Images

Features = NDArray[np.float32]


def features_by_road(
    images: Images, roads: Sequence[Road], extractors: Mapping[str, Extractor], batch: int, directory: Path
) -> dict[Road, Features]:
    """float32 (n, d) a road, in the order of `images`, each in a file of its own below `directory`.

    Raises ImageSetError at a broken image.
    """
    from tqdm import tqdm

    directory.mkdir(parents=True, exist_ok=True)
    found: dict[Road, Features] = {}
    distinct = tuple(dict.fromkeys(roads))
    total = -(-len(images) // batch)
    start = 0
    for decoded in tqdm(images.batches(batch), desc=directory.name, total=total, mininterval=5):
        for picture in dict.fromkeys(road.picture for road in distinct):
            prepared = [picture(image) for image in decoded]
            ahead = [road for road in distinct if road.picture == picture]
            _feed(prepared, ahead, extractors, found, directory, start, len(images))
        start += len(decoded)
    return found


def _feed(
    prepared: Sequence[Pixels],
    roads: Sequence[Road],
    extractors: Mapping[str, Extractor],
    found: dict[Road, Features],
    directory: Path,
    start: int,
    total: int,
) -> None:
    for resize, size in dict.fromkeys((road.resize, extractors[road.extractor].size) for road in roads):
        function = resizer(resize, size)
        pixels = _stacked([function(image) for image in prepared])
        for road in roads:
            extractor = extractors[road.extractor]
            if (road.resize, extractor.size) != (resize, size):
                continue
            rows = extractor.of_pixels(symmetric(pixels) if road.symmetric else pixels)
            if road not in found:
                file = directory / f"{len(found):03d}.npy"
                found[road] = open_memmap(file, "w+", np.float32, (total, rows.shape[1]))
            found[road][start : start + len(prepared)] = rows


def symmetric(pixels: torch.Tensor) -> torch.Tensor:
    """0..255 moved so that Inception's own (x - 128) / 128 gives x / 127.5 - 1, as pytorch-fid has it."""
    return (pixels / 127.5 - 1) * 128 + 128


def _stacked(images: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
