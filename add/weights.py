"""Which weights a directory holds: an address is not an identity, so every network is named by a hash too."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
"""The folders of a pipeline that hold weights which are loaded."""
SMALL = (".json", ".model", ".txt")
"""Endings of configurations and tokenizers."""

_BLOCK = 1 << 22


class WeightsError(ValueError):
    """Weights that are missing, or are not those that the configuration names."""


def file_hash(path: Path) -> str:
    """sha256 (64 hex) of a file's bytes, read in blocks. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    _feed(digest, path)
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
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or directory; check the path, or make the weights first")
    files = loaded_weights(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    if not files:
        raise WeightsError(f"{path}: holds no .safetensors file; save the network with save_pretrained")
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode())
        _feed(digest, path / name)
    return digest.hexdigest()


def check_weights(path: Path, expected: str | None) -> str:
    """The hash of the weights at `path`; refused if it is not the `expected` one, recorded if none is
    expected.

    Raises WeightsError with both hashes where they differ.
    """
    found = weights_hash(path)
    if expected is not None and found != expected.lower():
        raise WeightsError(
            f"{path}: these are other weights than the configuration names: sha256 is {found}, "
            f"configured is {expected}; restore the weights, or change `sha256` if the change is meant"
        )
    return found


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


def local_directory(path: str, revision: str | None = None) -> Path:
    """The directory of a network named by a local path or by a hub id such as ``owner/name``.

    A local path wins. Of a hub id's files configurations, tokenizers and `loaded_weights` are downloaded, unless
    they are in the local cache; without a connection the cache must have them. Raises WeightsError where neither
    is possible.
    """
    local = Path(path)
    if local.exists():
        return local
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise WeightsError(f"{path}: no such directory; check the path, or make the weights first")
    from huggingface_hub import HfApi, snapshot_download

    try:
        try:
            names = HfApi().list_repo_files(path, revision=revision)
        except Exception:  # no connection, as well as no such repository: the next line says which
            return Path(snapshot_download(path, revision=revision, local_files_only=True))
        small = [name for name in names if PurePosixPath(name).suffix in SMALL]
        return Path(
            snapshot_download(path, revision=revision, allow_patterns=[*small, *loaded_weights(names)])
        )
    except Exception as error:
        raise WeightsError(
            f"{path} (revision {revision}): neither a local directory nor a hub id to be had: {error}"
        ) from error


def _feed(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
