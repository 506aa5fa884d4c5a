"""webdataset shards with random access: an index of every tar, and reads by offset.

The webdataset library is not used: it streams, so its order depends on the workers and cannot start in the middle.
Its indexed sibling wids accepts a truncated tar and builds its index again in every process.
"""

from __future__ import annotations

import hashlib
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
from typing import TYPE_CHECKING, BinaryIO

from add.config.data import ShardsSpec
from add.data.images import IMAGE_SUFFIXES, Sample, caption_text, captions_of
from add.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


COLUMNS = 4
"""Columns of an index: offset and size of the image, offset and size of the caption, int64. 32 bytes per sample."""

_VERSION = 1
_BLOCK = 512


@dataclass(frozen=True)
class ShardIndex:
    """One shard: `places` (n, 4) int64 of its samples, in the order of members, and the file's state when indexed."""

    path: Path
    size: int
    mtime: int
    places: NDArray[np.int64]


def shard_index(path: Path, caption_suffix: str) -> tuple[ShardIndex, list[str]]:
    """The index of a shard, read from disk or made now, and the shard's problems.

    An index without problems is kept on disk, in a folder `.index` beside the shard or, where that cannot be written,
    in the user's cache. It is valid for the shard's name, size and modification time.
    """
    import numpy as np

    try:
        state = path.stat()
    except OSError:
        return ShardIndex(path, 0, 0, np.zeros((0, COLUMNS), np.int64)), [f"{path}: no such shard"]
    key = f"{_VERSION}/{path.name}/{state.st_size}/{state.st_mtime_ns}/{caption_suffix}"
    name = f"{path.name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    folders = (path.parent / ".index", _user_cache(path))
    problems: list[str] = []
    places = next((kept for folder in folders if (kept := _kept(folder / name)) is not None), None)
    if places is None:
        rows = list(_rows(path, caption_suffix, problems))
        places = np.array(rows, np.int64).reshape(-1, COLUMNS)
        if not problems:
            _keep(folders, name, places)
    return ShardIndex(path, state.st_size, state.st_mtime_ns, places), problems


def _rows(path: Path, caption_suffix: str, problems: list[str]) -> Iterator[tuple[int, int, int, int]]:
    """The places of the samples that have both image and caption."""
    images: dict[str, tuple[str, int, int]] = {}
    captions: dict[str, tuple[str, int, int]] = {}
    faults: list[str] = []
    for member in _members(path, faults):
        folder, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem:
            continue  # hidden, such as what macOS adds
        kind = f".{suffix.lower()}"
        held = images if kind in IMAGE_SUFFIXES else captions if kind == caption_suffix else None
        if held is None:
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


def _user_cache(path: Path) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "addbench" / "index" / hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]


def _kept(file: Path) -> NDArray[np.int64] | None:
    """The index on disk, or None where it is missing or damaged and must be made again."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(file.read_bytes())["places"].reshape(-1, COLUMNS)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _keep(folders: tuple[Path, ...], name: str, places: NDArray[np.int64]) -> None:
    """Write an index into the first folder that is writable. Without one, it is made again next time."""
    from safetensors.numpy import save

    from add.files import write_whole

    for folder in folders:
        try:
            write_whole(folder / name, save({"places": places}))
        except OSError:
            continue
        return


_OPEN = 64
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class ShardedImages:
    """Samples of tar shards, in the order of shards and members. Memory: 32 bytes per sample.

    shards: their indices. caption_field: a field of JSON members, or None for text members.
    """

    shards: tuple[ShardIndex, ...]
    caption_field: str | None
    _files: _OpenFiles = field(default_factory=lambda: _OpenFiles(), compare=False, repr=False)

    def __len__(self) -> int:
        return sum(self.blocks)

    @property
    def blocks(self) -> Sequence[int]:
        """Number of samples in each shard."""
        return [len(shard.places) for shard in self.shards]

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`. Raises InputError naming a shard that changed, or a member and its fault."""
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
            raise InputError(f"{name}: not JSON in UTF-8: {error}") from None
        if not isinstance(content, dict) or self.caption_field not in content:
            raise InputError(f"{name}: has no field {self.caption_field!r}")
        return captions_of(content[self.caption_field], name)


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


@dataclass
class _OpenFiles:
    """The last used shards, held open. A reader has its own reference, so dropping a shard closes nothing in use."""

    files: OrderedDict[Path, BinaryIO] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, shard: ShardIndex) -> BinaryIO:
        with self.lock:
            if (file := self.files.get(shard.path)) is None:
                try:
                    file = shard.path.open("rb", buffering=0)
                except OSError as error:
                    raise InputError(f"{shard.path}: cannot be read: {error.strerror}") from None
                state = os.fstat(file.fileno())
                if (state.st_size, state.st_mtime_ns) != (shard.size, shard.mtime):
                    raise InputError(f"{shard.path}: changed since it was indexed; start again")
                self.files[shard.path] = file
            self.files.move_to_end(shard.path)
            while len(self.files) > _OPEN:
                self.files.popitem(last=False)
            return file


def scan_shards(train: ShardsSpec) -> tuple[ShardedImages, list[str]]:
    """The shards' complete samples and all problems: every member's name is read, no image is opened."""
    paths, problems = shard_paths(train.shards)
    suffix = ".txt" if train.caption_field is None else ".json"
    indices = []
    for path in paths:
        index, wrong = shard_index(path, suffix)
        indices.append(index)
        problems += wrong
    return ShardedImages(tuple(indices), train.caption_field), problems


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


def _expanded(pattern: str) -> Iterator[str]:
    """The pattern with every range replaced by each of its numbers, padded like the range's first number."""
    parts = _RANGE.split(pattern)
    ranges = [
        [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        for first, last in zip(parts[1::3], parts[2::3], strict=True)
    ]
    for chosen in itertools.product(*ranges):
        yield "".join(
            text for pair in itertools.zip_longest(parts[0::3], chosen, fillvalue="") for text in pair
        )
