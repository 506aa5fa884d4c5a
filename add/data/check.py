"""Is this training data right, and how much is there? Every problem at once, without training and without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from add.data.samples import DataError, Sample, pixels
from add.data.training import scan_training_set
from add.spec_data import TrainData

OPENED = 256
"""So many samples are opened by default, evenly spread."""

_SIDE = 8


@dataclass(frozen=True)
class DataReport:
    """What was found. Names are complete; of the contents, only of the `opened` samples.

    samples: with image and caption; captions: of those opened; modes: Pillow's, and how often; smaller: opened
    images whose shorter side is below the resolution, so that training enlarges them. problems: all, by file.
    """

    samples: int
    opened: int
    captions: int
    modes: Mapping[str, int]
    smaller: int
    problems: tuple[str, ...]


def check_training_data(train: TrainData, resolution: int, opened: int | None = OPENED) -> DataReport:
    """Verify and count a data set: all names, and the images and captions of `opened` samples (None: of all)."""
    data, problems = scan_training_set(train)
    n = len(data)
    count = n if opened is None else min(n, opened)
    modes: Counter[str] = Counter()
    captions = smaller = 0
    for k in range(count):
        try:
            (sample,) = data.samples([k * n // count])
            captions += len(sample.captions)
            mode, side = _decoded(sample)
        except DataError as error:
            problems += error.problems
            continue
        modes[mode] += 1
        smaller += side < resolution
    return DataReport(n, count, captions, dict(modes.most_common()), smaller, tuple(problems))


def _decoded(sample: Sample) -> tuple[str, int]:
    """Mode and shorter side of an image, which is decoded whole. Raises DataError where it cannot be."""
    import io

    from PIL import Image

    pixels([sample], _SIDE)
    with Image.open(io.BytesIO(sample.image)) as image:
        return image.mode, min(image.size)
