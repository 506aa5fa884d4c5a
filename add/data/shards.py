"""webdataset shards as a set of which any sample can be read: an index of every tar, and reads by offset.

Not by the webdataset library: it streams, so its order depends on the workers and cannot be entered in the middle;
its indexed sibling wids takes a truncated tar for a whole one and indexes again in every process.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from add.data.samples import DataError, Sample, caption_text, captions_of
from add.data.tar_index import ShardIndex, shard_index
from add.spec_data import Shards

_OPEN = 64
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class ShardedImages:
    """Samples of tar shards, in the order of the shards and their members. Memory: 32 bytes a sample.

    shards: their indices. caption_field: a field of JSON members, or None for text members.
    """

    shards: tuple[ShardIndex, ...]
    caption_field: str | None
    _files: _OpenFiles = field(default_factory=lambda: _OpenFiles(), compare=False, repr=False)

    def __len__(self) -> int:
        return sum(self.blocks)

    @property
    def blocks(self) -> Sequence[int]:
        """The number of samples of each shard."""
        return [len(shard.places) for shard in self.shards]

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`. Raises DataError naming a shard that changed, or a member and its fault."""
        import numpy as np

        ends = np.cumsum(self.blocks)
        shards = np.searchsorted(ends, indices, side="right")
        return [
            self._sample(self.shards[s], int(i - ends[s]) + len(self.shards[s].places))
            for s, i in zip(shards.tolist(), indices, strict=True)
        ]

    def _sample(self, shard: ShardIndex, row: int) -> Sample:
        image, image_size, caption, caption_size = shard.places[row].tolist()
        file = self._files.open(shard)
        name, data = _member(file, shard.path, image, image_size)
        caption_name, text = _member(file, shard.path, caption, caption_size)
        return Sample(name, data, self._captions(text, caption_name))

    def _captions(self, text: bytes, name: str) -> tuple[str, ...]:
        if self.caption_field is None:
            return (caption_text(text, name),)
        try:
            content = json.loads(text)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError([f"{name}: not JSON in UTF-8: {error}"]) from None
        if not isinstance(content, dict) or self.caption_field not in content:
            raise DataError([f"{name}: has no field {self.caption_field!r}"])
        return captions_of(content[self.caption_field], name)


def _member(file: BinaryIO, shard: Path, offset: int, size: int) -> tuple[str, bytes]:
    """Name and bytes of the member whose data begin at `offset`; its header is the block before them."""
    raw = os.pread(file.fileno(), tarfile.BLOCKSIZE + size, offset - tarfile.BLOCKSIZE)
    try:
        header = tarfile.TarInfo.frombuf(raw[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DataError(
            [f"{shard}: no member at byte {offset} ({error}); delete {shard.parent}/.index"]
        ) from None
    if len(raw) != tarfile.BLOCKSIZE + size:
        raise DataError([f"{shard}: {header.name}: truncated"])
    return f"{shard}: {header.name}", raw[tarfile.BLOCKSIZE :]


@dataclass
class _OpenFiles:
    """The shards read last, held open. A reader keeps its own reference, so dropping one closes nothing in use."""

    files: OrderedDict[Path, BinaryIO] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, shard: ShardIndex) -> BinaryIO:
        with self.lock:
            if (file := self.files.get(shard.path)) is None:
                try:
                    file = shard.path.open("rb", buffering=0)
                except OSError as error:
                    raise DataError([f"{shard.path}: cannot be read: {error.strerror}"]) from None
                state = os.fstat(file.fileno())
                if (state.st_size, state.st_mtime_ns) != (shard.size, shard.mtime):
                    raise DataError([f"{shard.path}: changed since it was indexed; start again"])
                self.files[shard.path] = file
            self.files.move_to_end(shard.path)
            while len(self.files) > _OPEN:
                self.files.popitem(last=False)
            return file


def scan_shards(train: Shards) -> tuple[ShardedImages, list[str]]:
    """The shards' whole samples and all problems: every member's name is read, no image is opened."""
    paths, problems = shard_paths(train.shards)
    suffix = ".txt" if train.caption_field is None else ".json"
    indices = []
    for path in paths:
        index, wrong = shard_index(path, suffix)
        indices.append(index)
        problems += wrong
    return ShardedImages(tuple(indices), train.caption_field), problems


def shard_paths(pattern: str) -> tuple[list[Path], list[str]]:
    """The shards that a pattern names, and what is wrong with it: no range, and no file that matches it."""
    named = [Path(name) for name in _expanded(pattern)]
    if any(character in pattern for character in "*?"):
        found = sorted({match for name in named for match in name.parent.glob(name.name)})
        return found, [] if found else [f"{pattern}: no shard matches this pattern"]
    if "{" in _RANGE.sub("", pattern):
        return [], [f"{pattern}: braces hold two numbers, as in {{000000..000123}}"]
    if not named:
        return [], [f"{pattern}: its range is empty; the first number is the smaller one"]
    return named, []


def _expanded(pattern: str) -> Iterator[str]:
    """Every range replaced by each of its numbers, as wide as the range's first."""
    parts = _RANGE.split(pattern)
    ranges = [
        [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        for first, last in zip(parts[1::3], parts[2::3], strict=True)
    ]
    for chosen in itertools.product(*ranges):
        yield "".join(
            text for pair in itertools.zip_longest(parts[0::3], chosen, fillvalue="") for text in pair
        )
