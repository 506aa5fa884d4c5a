"""Where is a network that the settings name: a local directory, a mirror, the hub's cache or the hub?

Mirrors stand in one optional file, mirrors.yaml in the working directory or the file that ADDBENCH_MIRRORS names. It
is no part of a scale or a run: an address is no identity, and weights from any address must have the same hashes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from pydantic import model_validator

from add.config.load import load_document
from add.config.scale import NetworkSpec
from add.config.types import Document, Frozen, Text
from add.config.yaml import SpecError
from add.models.weights import Files, WeightsError, loaded_weights

VARIABLE = "ADDBENCH_MIRRORS"
FILE = "mirrors.yaml"
SMALL = (".json", ".model", ".txt")
"""Endings of configurations and tokenizers."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Mirror(Frozen):
    """Another place for one network: a local `directory` (or file), or a hub's `id` with its `revision`."""

    directory: Text | None = None
    id: Text | None = None
    revision: Text | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Mirror:
        if (self.directory is None) == (self.id is None):
            raise ValueError("needs either `directory` or `id`")
        if self.directory is not None and self.revision is not None:
            raise ValueError("a directory has no revision; leave `revision` out")
        try:
            Path(self.directory or "").expanduser()
        except RuntimeError:
            raise ValueError(
                f"`directory` is {self.directory}: nobody here has that home directory"
            ) from None
        return self

    @property
    def path(self) -> str:
        """The directory, with ~ for the home directory, or the id."""
        return self.id or str(Path(self.directory or "").expanduser())


class Mirrors(Document):
    """`networks`: mirrors by the path in the settings (`owner/name`), or by `owner/name@revision` for one revision."""

    networks: dict[Text, Mirror]

    def find(self, path: str, revision: str | None) -> str | None:
        """The entry of this path; one for the very revision comes first."""
        entries = ([f"{path}@{revision}"] if revision else []) + [path]
        return next((entry for entry in entries if entry in self.networks), None)


def mirrors_file() -> Path | None:
    """The mirrors file, or None. Raises SpecError where ADDBENCH_MIRRORS names a file that is missing."""
    named = os.environ.get(VARIABLE)
    file = Path(named) if named else Path(FILE)
    if named and not file.is_file():
        raise SpecError(file.as_posix(), 1, f"no such file, but {VARIABLE} names it")
    return file if file.is_file() else None


def load_mirrors() -> Mirrors:
    """The file's mirrors, none without a file. Raises SpecError with every problem of the file."""
    file = mirrors_file()
    return Mirrors(networks={}) if file is None else load_document(Mirrors, file)


def mirrored(path: str, revision: str | None = None) -> tuple[str, str | None]:
    """Path and revision to look at for the `path` of the settings. Raises SpecError.

    A path that exists is used itself, without a mirror.
    """
    if Path(path).exists():
        return path, revision
    mirrors = load_mirrors()
    entry = mirrors.find(path, revision)
    if entry is None:
        return path, revision
    mirror = mirrors.networks[entry]
    if mirror.directory is not None and not Path(mirror.path).exists():
        message = f"{path}: its directory {mirror.path} is not there"
        raise mirrors.origin.error(("networks", entry, "directory"), message)
    return mirror.path, mirror.revision


def local_directory(path: str, revision: str | None = None, files: Files | None = None) -> Path:
    """The directory of a network named by a local path or by a hub id such as ``owner/name``.

    A local path comes first, then mirrors.yaml, then the hub. From the hub, configurations, tokenizers and weights
    (`files`, else `loaded_weights`) are downloaded unless the local cache has them. Without a connection the cache must
    have them. Where a commit and `files` are given and the cache has them all, the hub is not asked. Raises
    WeightsError where the network cannot be found, SpecError for a wrong mirrors.yaml.
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
            f"{place} (revision {version}): neither a local directory nor an id that the hub or its cache has: {error}"
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
    """Whether a path that does not exist can be a hub's ``owner/name``."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~"))


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a full commit hash, which always means the same files; branches and tags can move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def cached_directory(path: str, revision: str | None) -> Path | None:
    """The hub's local snapshot of an id, or None. Nothing is downloaded."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except (ValueError, OSError):  # LocalEntryNotFoundError is one of each, by version
        return None
