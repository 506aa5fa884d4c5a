"""Which bytes does a training set hold? One digest over its images and captions, in the order of its samples."""

from __future__ import annotations

from pathlib import Path

from add.config.training import CocoSpec, HuggingFaceSpec, ShardsSpec, TrainData
from add.data.coco import CaptionedImages
from add.data.huggingface import dataset_files
from add.data.images import CaptionedSet, Sample, decoded_rgb, decoders
from add.data.shards import shard_paths
from add.data.training_set import open_training_set
from add.digests import State, digest_of, file_digests, file_state, remembered
from add.errors import InputError
from add.files import files_below


def data_digest(train: TrainData) -> str:
    """sha256 (64 hex) of the samples' encoded images and captions; for shards and tables, of the whole files.

    Where the files lie, their times, and files that no sample uses do not count. A set that did not change since the
    last time is not read again. Raises InputError with every problem of the set.
    """
    if isinstance(train, ShardsSpec):
        return _whole_files(*shard_paths(train.shards))
    if isinstance(train, HuggingFaceSpec):
        return _whole_files(*dataset_files(Path(train.path), train.split))
    folder = train.images if isinstance(train, CocoSpec) else train.path
    states = _states(Path(folder))
    if isinstance(train, CocoSpec) and (state := file_state(Path(train.annotations))):
        states["annotations"] = state
    what = f"training set {Path.cwd()} {train.model_dump_json()}"
    return remembered(what, states, lambda: _samples(train))


def check_samples(train: TrainData, digest: str) -> None:
    """Decode every image and read every caption, once for each `data_digest`: a fault would end training later.

    Raises InputError with every sample that cannot be used.
    """
    remembered(
        f"every sample of {digest} is whole, by rule {_RULE}", {}, lambda: _decode(open_training_set(train))
    )


def _decode(data: CaptionedSet) -> str:
    from tqdm import tqdm

    problems: list[str] = []
    with decoders() as pool:
        for start in tqdm(range(0, len(data), _BLOCK), "checking images", disable=len(data) < 10 * _BLOCK):
            samples: list[Sample] = []
            for i in range(start, min(start + _BLOCK, len(data))):
                try:
                    samples += data.samples([i])
                except InputError as error:
                    problems += error.problems
            problems += filter(None, pool.map(_fault, samples))
    if problems:
        raise InputError.of(problems)
    return "whole"


def _fault(sample: Sample) -> str | None:
    try:
        decoded_rgb(sample.image, sample.name)
    except InputError as error:
        return str(error)
    return None


_RULE = 2
"""Counts the versions of what a sample must be. 2: no half or control characters in a caption."""

_BLOCK = 512
"""Samples that are in memory at a time, encoded."""


def _whole_files(files: list[Path], problems: list[str]) -> str:
    if problems:
        raise InputError.of(problems)
    return digest_of(file_digests(files))


def _samples(train: TrainData) -> str:
    data = open_training_set(train)
    if not isinstance(data, CaptionedImages):
        raise TypeError(f"{type(data).__name__} is no set of files")
    images = [data.root / name for name in data.images]
    if data.captions is not None:
        return digest_of([file_digests(images), data.captions])
    return digest_of([file_digests(images), file_digests(image.with_suffix(".txt") for image in images)])


def _states(root: Path) -> dict[str, State]:
    """The states of all files below a folder but hidden ones, by relative name."""
    names = (name for name in files_below(root) if not name.rpartition("/")[2].startswith("."))
    return {name: state for name in names if (state := file_state(root / name))}
