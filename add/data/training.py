"""Which samples does a run train on? Opens any form of training data, and reads a batch of it in seeded order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from add.data.captioned import scan_coco
from add.data.order import sample_indices, windowed_indices
from add.data.samples import CaptionedSet, DataError
from add.spec_data import ImageFolder, ImageSet, Shards, TrainData, Windowed


def scan_training_set(train: TrainData) -> tuple[CaptionedSet, list[str]]:
    """The samples that are whole as far as names tell, and all problems. No image is opened."""
    if isinstance(train, ImageSet):
        return scan_coco(Path(train.images), Path(train.annotations))
    if isinstance(train, ImageFolder):
        from add.data.folder import scan_folder

        return scan_folder(train)
    if isinstance(train, Shards):
        from add.data.shards import scan_shards

        return scan_shards(train)
    from add.data.huggingface import scan_huggingface

    return scan_huggingface(train)


def open_training_set(train: TrainData) -> CaptionedSet:
    """The training set. Raises DataError with all problems that its names and tables of contents show."""
    data, problems = scan_training_set(train)
    if problems:
        raise DataError(problems)
    return data


def order_of(train: TrainData, data: CaptionedSet, first: int, count: int, seed: int) -> Sequence[int]:
    """Indices of samples `first` .. `first + count` of the endless seeded order: a function of its arguments."""
    window = train.window if isinstance(train, Windowed) else None
    if window is None:
        return sample_indices(len(data), first, count, seed)
    return windowed_indices(data.blocks, window, first, count, seed)
