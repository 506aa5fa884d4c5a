"""Where in a tar file does each sample lie? An index beside the shard, made once; deleting it costs its making."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from add.data.samples import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = 4
"""Of an index's rows: offset and size of the image, offset and size of the caption, int64. 32 bytes a sample."""

_VERSION = 1
_BLOCK = 512


@dataclass(frozen=True)
class ShardIndex:
    """One shard: its samples' places, (n, 4) int64, in the order of its members, and the file as it was indexed."""

    path: Path
    size: int
    mtime: int
    places: NDArray[np.int64]


def shard_index(path: Path, caption_suffix: str) -> tuple[ShardIndex, list[str]]:
    """The index of a shard, from the one kept beside it or made now, and the shard's problems.

    An index is kept where there are no problems. It belongs to the shard's name, size and time of change, and is
    in a folder `.index` beside the shard or, where that cannot be written, in the user's cache.
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
    """The places of the samples that are whole."""
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
    """The regular files of a tar, whose end must be marked: tarfile takes one cut between members for whole."""
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
    """A kept index, or None where there is none or it is damaged: then it is made again."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(file.read_bytes())["places"].reshape(-1, COLUMNS)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _keep(folders: tuple[Path, ...], name: str, places: NDArray[np.int64]) -> None:
    """Write an index, whole, into the first folder that takes it. Where none does, it is made again next time."""
    from safetensors.numpy import save

    from add.files import write_whole

    for folder in folders:
        try:
            write_whole(folder / name, save({"places": places}))
        except OSError:
            continue
        return
