"""Which weights a directory holds: an address is not an identity, so every network is named by a hash too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from add.mirrors import mirrored
from add.weight_files import directory_files, loaded_files

_BLOCK = 1 << 22
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DESCRIPTIONS = ["*.json", "*.txt", "*.model"]

Files = Mapping[str, str | None]
"""The files that a network's weights are read from, each with its plain sha256 where that is known."""


class WeightsError(ValueError):
    """Weights that are missing, or are not those that the configuration names."""


def file_hash(path: Path) -> str:
    """sha256 (64 hex) of a file's bytes, read in blocks. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    _feed([digest], path)
    return digest.hexdigest()


def weights_hash(path: Path) -> str:
    """sha256 (64 hex) that names the weights at `path`.

    For a directory: over the relative posix name and the bytes of every file that its network is loaded from
    (`add.weight_files.loaded_files`), in the order of the paths; configurations and tokenizers do not count. For a
    file: its plain sha256, as hubs print it. Raises WeightsError where there is nothing to hash.
    """
    if path.is_file():
        return file_hash(path)
    return _hashes(path, weight_names(path))[0]


def weight_names(path: Path, files: Files | None = None) -> list[str]:
    """The files of a directory that make up its weights: those of `files` if given, else those that are loaded.

    Relative posix names, in the order of the paths. Raises WeightsError where there are none, or one of `files`
    is missing.
    """
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or directory; check the path, or make the weights first")
    if files:
        if absent := sorted(name for name in files if not (path / name).is_file()):
            raise WeightsError(
                f"{path}: lacks {', '.join(absent)}, which the configuration's `files` names; "
                "download the network again, or name the files that it has"
            )
        return _in_order(files)
    names = loaded_files(directory_files(path))
    if not names:
        raise WeightsError(f"{path}: holds no .safetensors file; save the network with save_pretrained")
    return _in_order(names)


def check_weights(path: Path, expected: str | None, files: Files | None = None) -> str:
    """The hash of the weights at `path`; refused if it is not the `expected` one, recorded if none is
    expected.

    files: which files count, each held to its own sha256 where that is given. Raises WeightsError with both hashes
    where they differ.
    """
    each: dict[str, str] = {}
    if path.is_file():
        found = file_hash(path)
    else:
        found, each = _hashes(path, weight_names(path, files))
    for name, known in (files or {}).items():
        if known is not None and each.get(name, known) != known.lower():
            raise WeightsError(_other(path / name, each[name], known))
    if expected is not None and found != expected.lower():
        raise WeightsError(_other(path, found, expected))
    return found


def local_directory(path: str, revision: str | None = None, files: Files | None = None) -> Path:
    """The directory of a network named by a local path or by a hub id such as ``owner/name``.

    A local path wins, then what mirrors.yaml says (`add.mirrors`), then the hub: its local cache where a commit
    and the files are pinned and there, else a download of configurations, tokenizers and safetensors (of `files`
    alone where they are given). Raises WeightsError where none is possible, SpecError for a wrong mirrors.yaml.
    """
    place, version = mirrored(path, revision)
    if Path(place).exists():
        return Path(place)
    if not is_hub_id(place):
        raise WeightsError(f"{path}: no such directory; check the path, or make the weights first")
    if files and version and _COMMIT.fullmatch(version):
        cached = cached_directory(place, version)
        if cached is not None and all((cached / name).is_file() for name in files):
            return cached
    from huggingface_hub import snapshot_download

    patterns = [*_DESCRIPTIONS, *(files or ["*.safetensors"])]
    try:
        return Path(snapshot_download(place, revision=version, allow_patterns=patterns))
    except Exception as error:
        raise WeightsError(
            f"{place} (revision {version}): neither a local directory nor a hub id to be had: {error}"
        ) from error


def is_hub_id(path: str) -> bool:
    """Whether a path that is not there can be a hub's ``owner/name``."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~"))


def cached_directory(path: str, revision: str | None) -> Path | None:
    """The hub's local snapshot of an id, None where there is none. Nothing is downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError, OSError):
        return None


def _hashes(path: Path, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The hash of a directory's files together, and the plain one of each; each file is read once."""
    whole = hashlib.sha256()
    each: dict[str, str] = {}
    for name in names:
        alone = hashlib.sha256()
        whole.update(name.encode())
        _feed([whole, alone], path / name)
        each[name] = alone.hexdigest()
    return whole.hexdigest(), each


def _in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of their paths, in which a folder's files stand together."""
    return [path.as_posix() for path in sorted(map(Path, names))]


def _other(path: Path, found: str, expected: str) -> str:
    return (
        f"{path}: these are other weights than the configuration names: sha256 is {found}, "
        f"configured is {expected}; restore the weights, or change `sha256` if the change is meant"
    )


def _feed(digests: Iterable[hashlib._Hash], path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            for digest in digests:
                digest.update(block)
