"""Which weights a directory holds: an address is not an identity, so every network is named by a hash too."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 1 << 22


class WeightsError(ValueError):
    """Weights that are missing, or are not those that the configuration names."""


def file_hash(path: Path) -> str:
    """sha256 (64 hex) of a file's bytes, read in blocks. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    _feed(digest, path)
    return digest.hexdigest()


def weights_hash(path: Path) -> str:
    """sha256 (64 hex) that names the weights at `path`.

    For a directory: over the relative posix name and the bytes of every ``*.safetensors`` below it, in the
    order of the paths; configurations and tokenizers do not count. For a file: its plain sha256, as hubs
    print it. Raises WeightsError where there is nothing to hash.
    """
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or directory; check the path, or make the weights first")
    files = sorted(path.rglob("*.safetensors"))
    if not files:
        raise WeightsError(f"{path}: holds no .safetensors file; save the network with save_pretrained")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        _feed(digest, file)
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


def local_directory(path: str, revision: str | None = None) -> Path:
    """The directory of a network named by a local path or by a hub id such as ``owner/name``.

    A local path wins. A hub id is looked up in the local cache first, then downloaded (only configurations,
    tokenizers and safetensors). Raises WeightsError where neither is possible.
    """
    local = Path(path)
    if local.exists():
        return local
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise WeightsError(f"{path}: no such directory; check the path, or make the weights first")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise WeightsError(
            f"{path} (revision {revision}): neither a local directory nor a hub id to be had: {error}"
        ) from error


def _feed(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
