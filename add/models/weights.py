"""Which weights does a directory hold, and are its files whole? An address is no identity, so a hash names them too."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from add.errors import InputError
from add.models.hub import mirrored

if TYPE_CHECKING:
    from add.config.scale import NetworkSpec


PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
"""The folders of a pipeline that hold weights which are loaded."""
SMALL = (".json", ".model", ".txt")
"""Endings of configurations and tokenizers."""

Files = Mapping[str, str | None]
"""The files that a network's weights are read from, each with its plain sha256 where that is known."""

_BLOCK = 1 << 22
_COMMIT = re.compile(r"[0-9a-f]{40}")


class WeightsError(InputError):
    """Weights that are missing, or are not those that the configuration names."""


def file_hash(path: Path) -> str:
    """sha256 (64 hex) of a file's bytes, read in blocks. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    _feed([digest], path)
    return digest.hexdigest()


def loaded_weights(names: Iterable[str]) -> list[str]:
    """Of the relative names of a network's files, those of the weights that are loaded, in the order of paths.

    Published directories hold more: the same weights in half precision, in one file for other programs, for other
    decoders. Of a pipeline (model_index.json) only the folders of `PARTS` count; of a folder's safetensors the plain
    ones, in one file or in shards, or those of the variant `fp16` where there are no others.
    """
    paths = [PurePosixPath(name) for name in names]
    weights = sorted(path for path in paths if path.suffix == ".safetensors")
    if PurePosixPath("model_index.json") in paths:
        weights = [path for path in weights if len(path.parts) == 2 and path.parts[0] in PARTS]
    folders: dict[PurePosixPath, list[str]] = {}
    for path in weights:
        folders.setdefault(path.parent, []).append(path.name)
    return [path.as_posix() for path in weights if path.name in _chosen(folders[path.parent])]


def _chosen(files: Collection[str]) -> set[str]:
    """Of one folder's weight files those that are loaded."""
    variant = variant_of(files)
    if variant is not None:
        return {name for name in files if f".{variant}" in name}
    return {name for name in files if _is_plain(name)} or set(files)


def _is_plain(name: str) -> bool:
    return name.count(".") == 1


def variant_of(files: Collection[str]) -> str | None:
    """Which variant of a folder's weight files is loaded: None for the plain ones, `fp16` where it is all there is.

    A variant's name stands between dots (model.fp16.safetensors, model.fp16-00001-of-00002.safetensors).
    """
    plain = any(_is_plain(name) for name in files)
    return "fp16" if not plain and any(".fp16" in name for name in files) else None


def weights_hash(path: Path) -> str:
    """sha256 (64 hex) that names the weights at `path`.

    For a directory: over the relative posix name and the bytes of every file of `loaded_weights`, in that order;
    configurations, tokenizers and what lies beside do not count. For a file: its plain sha256, as hubs print it.
    Raises WeightsError where there is nothing to hash.
    """
    return file_hash(path) if path.is_file() else weight_hashes(path, weight_names(path))[0]


def weight_names(path: Path, files: Files | None = None) -> list[str]:
    """The weight files of a directory: those of `files` if given, else `loaded_weights`, in the order of paths.

    Raises WeightsError where there are none, or one of `files` is missing.
    """
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or directory; check the path, or make the weights first")
    if files:
        if absent := sorted(name for name in files if not (path / name).is_file()):
            raise WeightsError(
                f"{path}: lacks {', '.join(absent)}, which the configuration's `files` names; "
                "download the network again, or name the files that it has"
            )
        return [name.as_posix() for name in sorted(map(PurePosixPath, files))]
    names = loaded_weights(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    if not names:
        raise WeightsError(f"{path}: holds no .safetensors file; save the network with save_pretrained")
    return names


def check_weights(path: Path, expected: str | None, files: Files | None = None) -> str:
    """The hash of the weights at `path`; refused if it is not the `expected` one, recorded if none is
    expected.

    files: which files of a directory count, each held to its own sha256 where that is given. Raises WeightsError
    with both hashes where they differ.
    """
    each: dict[str, str] = {}
    if path.is_file():
        found = file_hash(path)
    else:
        found, each = weight_hashes(path, weight_names(path, files))
    for other, now, known in other_weights(path, found, each, expected, files):
        raise WeightsError(
            f"{other}: these are other weights than the configuration names: sha256 is {now}, "
            f"configured is {known}; restore the weights, or change `sha256` if the change is meant"
        )
    return found


def other_weights(
    path: Path, found: str, each: Mapping[str, str], expected: str | None, files: Files | None
) -> list[tuple[Path, str, str]]:
    """What of the weights at `path` is not as configured: file or directory, its hash, the configured one.

    found: the hash of all of it, held to `expected`; each: those of single files, held to `files`.
    """
    wrong = [
        (path / name, each[name], known)
        for name, known in (files or {}).items()
        if known is not None and each.get(name, known) != known.lower()
    ]
    if expected is not None and found != expected.lower():
        wrong.append((path, found, expected))
    return wrong


def weight_variant(folder: Path) -> str | None:
    """`variant_of` the weight files in one folder. Raises WeightsError where it holds no safetensors."""
    names = [file.name for file in folder.glob("*.safetensors")]
    if not names:
        raise WeightsError(f"{folder}: holds no .safetensors file; save the network with save_pretrained")
    return variant_of(names)


def check_complete(missing: Collection[str], where: str) -> None:
    """Raise WeightsError where a network's files lack some of its weights: these would be random numbers."""
    if missing:
        raise WeightsError(
            f"{where}: the files lack {len(missing)} of the network's weights, e.g. {min(missing)};"
            " do config.json and weights belong together?"
        )


def local_directory(path: str, revision: str | None = None, files: Files | None = None) -> Path:
    """The directory of a network named by a local path or by a hub id such as ``owner/name``.

    A local path wins, then what mirrors.yaml says (`add.models.hub`), then the hub. Of a hub id's files
    configurations, tokenizers and the weights (`files`, else `loaded_weights`) are downloaded, unless they are in
    the local cache; without a connection the cache must have them, and where a commit and `files` are given and
    the cache has all, the hub is not asked. Raises WeightsError where none is possible, SpecError for a wrong
    mirrors.yaml.
    """
    place, version = mirrored(path, revision)
    if Path(place).exists():
        return Path(place)
    if not is_hub_id(place):
        raise WeightsError(f"{path}: no such directory; check the path, or make the weights first")
    if files and is_commit(version):
        cached = cached_directory(place, version)
        if cached is not None and all((cached / name).is_file() for name in files):
            return cached
    from huggingface_hub import HfApi, snapshot_download

    try:
        try:
            names = HfApi().list_repo_files(place, revision=version)
        except Exception:  # no connection, as well as no such repository: the next line says which
            return Path(snapshot_download(place, revision=version, local_files_only=True))
        small = [name for name in names if PurePosixPath(name).suffix in SMALL]
        weights = files or loaded_weights(names)
        return Path(snapshot_download(place, revision=version, allow_patterns=[*small, *weights]))
    except Exception as error:
        raise WeightsError(
            f"{place} (revision {version}): neither a local directory nor a hub id to be had: {error}"
        ) from error


def network_directory(network: NetworkSpec) -> Path:
    """`local_directory` of a network as the settings describe it."""
    return local_directory(network.path, network.revision, network.files)


def named_file(path: str, revision: str | None, name: str, sha256: str | None) -> Path:
    """One file of a directory or hub id, such as a checkpoint; `sha256` is not compared here.

    Raises WeightsError where it is not there, and as `local_directory`.
    """
    file = local_directory(path, revision, {name: sha256}) / name
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; check `path` and `file`")
    return file


def is_hub_id(path: str) -> bool:
    """Whether a path that is not there can be a hub's ``owner/name``."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~"))


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit hash, which always means the same files; a branch or a tag can move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def cached_directory(path: str, revision: str | None) -> Path | None:
    """The hub's local snapshot of an id, None where there is none. Nothing is downloaded."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except (ValueError, OSError):  # LocalEntryNotFoundError is one of each, by version
        return None


def weight_hashes(path: Path, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The hash of a directory's files together, and the plain one of each; each file is read once."""
    whole = hashlib.sha256()
    each: dict[str, str] = {}
    for name in names:
        alone = hashlib.sha256()
        whole.update(name.encode())
        _feed([whole, alone], path / name)
        each[name] = alone.hexdigest()
    return whole.hexdigest(), each


def _feed(digests: Iterable[hashlib._Hash], path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            for digest in digests:
                digest.update(block)


SAFETENSORS = ".safetensors"
INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor: its data type, as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def missing_shards(directory: Path, names: Collection[str]) -> list[str]:
    """Names of the weight files that an index beside the files `names` lists and that are not there."""
    absent: list[str] = []
    for folder in sorted({PurePosixPath(name).parent for name in names}):
        for index in sorted((directory / folder).glob(f"*{INDEX}")):
            stem = index.name.removesuffix(INDEX)
            if (index.parent / f"{stem}{SAFETENSORS}").is_file():
                continue  # one whole file stands beside the shards
            if not any(PurePosixPath(name).name.startswith(f"{stem}-") for name in names):
                continue  # the index of a variant that is not loaded
            content = json.loads(index.read_text(encoding="utf-8"))
            shards = sorted(set(content.get("weight_map", {}).values()))
            absent += [(folder / s).as_posix() for s in shards if not (index.parent / s).is_file()]
    return absent


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file by name; the weights themselves are not read.

    Raises ValueError where the file is none, or is shorter than its header says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return {name: TensorInfo(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: is not a whole safetensors file: {error}") from None
