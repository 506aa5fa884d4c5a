"""webdataset shards with random access: an index of every tar, and reads by offset.

The webdataset library is not used: it streams, so its order depends on the workers and cannot start in the middle.
Its indexed sibling wids accepts a truncated tar and builds its index again in every process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from add.config.training import ShardsSpec
from add.data.images import (
    IMAGE_SUFFIXES,
    CaptionedSet,
    Sample,
    caption_text,
    captions_of,
    kinds_of,
)
from add.data.reading import json_object
from add.errors import InputError
from add.files import user_cache, write_whole

COLUMNS = 4
"""Columns of an index: offset and size of the image, offset and size of the caption, int64. 32 bytes per sample."""

_VERSION = 2
_BLOCK = 512


@dataclass(frozen=True)
class ShardIndex:
    """One shard: `places` (n, 4) int64 of its samples, in the order of members, and the file's state when indexed.

    left_out: its members that are of no sample, by kind.
    """

    path: Path
    size: int
    mtime: int
    places: NDArray[np.int64]
    left_out: Mapping[str, int] = field(default_factory=dict)


def shard_index(path: Path, caption_suffix: str) -> tuple[ShardIndex, list[str]]:
    """The index of a shard, read from disk or made now, and the shard's problems.

    An index without problems is kept on disk, in a folder `.index` beside the shard or, where that cannot be written,
    in the user's cache. It is valid for the shard's name, size and modification time.
    """
    try:
        state = path.stat()
    except OSError:
        return ShardIndex(path, 0, 0, np.zeros((0, COLUMNS), np.int64)), [f"{path}: no such shard"]
    key = f"{_VERSION}/{path.name}/{state.st_size}/{state.st_mtime_ns}/{caption_suffix}"
    name = f"{path.name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    place = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]
    folders = (path.parent / ".index", user_cache() / "index" / place)
    problems: list[str] = []
    found = next((kept for folder in folders if (kept := _kept(folder / name)) is not None), None)
    if found is None:
        others: list[str] = []
        rows = list(_rows(path, caption_suffix, problems, others))
        found = np.array(rows, np.int64).reshape(-1, COLUMNS), kinds_of(others)
        if not problems:
            places, left_out = found
            text = np.frombuffer(json.dumps(left_out).encode(), np.uint8)
            for folder in folders:  # the first that is writable; without one, it is made again next time
                with suppress(OSError):
                    write_whole(folder / name, save({"places": places, "left_out": text}))
                    break
    return ShardIndex(path, state.st_size, state.st_mtime_ns, *found), problems


def _rows(
    path: Path, caption_suffix: str, problems: list[str], others: list[str]
) -> Iterator[tuple[int, int, int, int]]:
    """The places of the samples that have both image and caption; `others` takes the names of other members."""
    images: dict[str, tuple[str, int, int]] = {}
    captions: dict[str, tuple[str, int, int]] = {}
    faults: list[str] = []
    for member in _members(path, faults):
        folder, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        kind = f".{suffix.lower()}"
        held = images if kind in IMAGE_SUFFIXES else captions if kind == caption_suffix else None
        if held is None or not stem:  # without a stem it is hidden, such as what macOS adds
            others.append(base)
            continue
        if (key := f"{folder}/{stem}") in held:
            problems.append(f"{path}: {member.name}: a second one beside {held[key][0]}")
        held[key] = (member.name, member.offset_data, member.size)
    problems += faults
    if faults:  # what lacks its partner may be what could not be read
        return
    for key, (name, offset, size) in images.items():
        if key in captions:
            yield offset, size, *captions[key][1:]
        else:
            problems.append(f"{path}: {name}: an image without a caption (no {caption_suffix} member)")
    problems += (
        f"{path}: {name}: a caption without an image"
        for key, (name, _, _) in captions.items()
        if key not in images
    )
    if not images and not captions and not problems:
        problems.append(f"{path}: holds no image and no {caption_suffix} member")


def _members(path: Path, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar. Its end mark is checked here: tarfile accepts a tar cut between two members."""
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they would add up to gigabytes
                end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
                if member.issparse() or member.islnk() or member.issym():
                    problems.append(
                        f"{path}: {member.name}: a link or a sparse file; store it as a plain file"
                    )
                elif member.isreg():
                    yield member
    except (tarfile.TarError, OSError) as error:
        problems.append(f"{path}: not a whole, uncompressed tar: {error}")
        return
    with path.open("rb") as stream:
        stream.seek(end)
        if stream.read(_BLOCK) != bytes(_BLOCK):
            problems.append(
                f"{path}: truncated or damaged: no end-of-archive mark after its members (byte {end})"
            )


def _kept(file: Path) -> tuple[NDArray[np.int64], dict[str, int]] | None:
    """The index on disk, or None where it is missing or damaged and must be made again."""
    try:
        tensors = load(file.read_bytes())
        return tensors["places"].reshape(-1, COLUMNS), json.loads(tensors["left_out"].tobytes())
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


_OPEN = 64
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class ShardedImages(CaptionedSet):
    """Samples of tar shards, in the order of shards and members. Memory: 32 bytes per sample.

    shards: their indices. caption_field: a field of JSON members, or None for text members.
    """

    shards: tuple[ShardIndex, ...]
    caption_field: str | None
    _open: Callable[[Path, int, int], BinaryIO] = field(
        default_factory=lambda: lru_cache(_OPEN)(_opened), compare=False, repr=False
    )
    """The last used shards stay open. A reader has its own reference, so dropping one closes nothing in use."""

    @cached_property
    def left_out(self) -> Mapping[str, int]:  # type: ignore[override]
        """The members of no sample, of all shards."""
        return dict(sum((Counter(shard.left_out) for shard in self.shards), Counter[str]()).most_common())

    @property
    def blocks(self) -> Sequence[int]:
        """Number of samples in each shard."""
        return [len(shard.places) for shard in self.shards]

    def sample(self, block: int, row: int) -> Sample:
        """As `CaptionedSet`; a shard that changed since it was indexed is an error, too."""
        shard = self.shards[block]
        image, image_size, caption, caption_size = shard.places[row].tolist()
        file = self._open(shard.path, shard.size, shard.mtime)
        name, data = _member(file, shard.path, image, image_size)
        caption_name, text = _member(file, shard.path, caption, caption_size)
        if self.caption_field is None:
            return Sample(name, data, (caption_text(text, caption_name),))
        content = json_object(text, caption_name)
        if self.caption_field not in content:
            raise InputError(f"{caption_name}: has no field {self.caption_field!r}")
        return Sample(name, data, captions_of(content[self.caption_field], caption_name))


def _member(file: BinaryIO, shard: Path, offset: int, size: int) -> tuple[str, bytes]:
    """Name and bytes of the member whose data begin at `offset`; its header is the block before."""
    raw = os.pread(file.fileno(), tarfile.BLOCKSIZE + size, offset - tarfile.BLOCKSIZE)
    try:
        header = tarfile.TarInfo.frombuf(raw[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise InputError(
            f"{shard}: no member at byte {offset} ({error}); delete {shard.parent}/.index"
        ) from None
    if len(raw) != tarfile.BLOCKSIZE + size:
        raise InputError(f"{shard}: {header.name}: truncated")
    return f"{shard}: {header.name}", raw[tarfile.BLOCKSIZE :]


def _opened(path: Path, size: int, mtime: int) -> BinaryIO:
    """The shard, open for reading. Raises InputError where it changed since it was indexed."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    state = os.fstat(file.fileno())
    if (state.st_size, state.st_mtime_ns) != (size, mtime):
        raise InputError(f"{path}: changed since it was indexed; start again")
    return file


def scan_shards(train: ShardsSpec) -> tuple[ShardedImages, list[str]]:
    """The shards' complete samples and all problems: every member's name is read, no image is opened."""
    paths, problems = shard_paths(train.shards)
    suffix = ".txt" if train.caption_field is None else ".json"
    scans = [shard_index(path, suffix) for path in paths]
    problems += (problem for _, wrong in scans for problem in wrong)
    return ShardedImages(tuple(index for index, _ in scans), train.caption_field), problems


def shard_paths(pattern: str) -> tuple[list[Path], list[str]]:
    """The shards that a pattern names, and the pattern's problems: a wrong range, or no file that matches."""
    named = [Path(name) for name in _expanded(pattern)]
    if any(character in pattern for character in "*?"):
        found = sorted({match for name in named for match in name.parent.glob(name.name)})
        return found, [] if found else [f"{pattern}: no shard matches this pattern"]
    if "{" in _RANGE.sub("", pattern):
        return [], [f"{pattern}: braces hold two numbers, as in {{000000..000123}}"]
    if not named:
        return [], [f"{pattern}: its range is empty; the first number is the smaller one"]
    return named, []


def _expanded(pattern: str) -> list[str]:
    """The pattern with every range replaced by each of its numbers, padded like the range's first number."""
    if (match := _RANGE.search(pattern)) is None:
        return [pattern]
    first, last = match.groups()
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for number in numbers for name in _expanded(f"{before}{number}{after}")]
