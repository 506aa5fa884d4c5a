"""Where does this machine keep a network that the settings name by a public id? One optional file says.

An address is no identity: the file is no part of a scale or a run, and whatever is found at its addresses is held
to the same hashes. It is mirrors.yaml in the working directory, or the file that ADDBENCH_MIRRORS names.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError, model_validator

from add.config.types import Frozen, Text
from add.config.yaml import SpecError, explained, raise_all, read_yaml

VARIABLE = "ADDBENCH_MIRRORS"
FILE = "mirrors.yaml"


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
        return self

    @property
    def path(self) -> str:
        """The directory, with ~ for the home directory, or the id."""
        return self.id or str(Path(self.directory or "").expanduser())


class Mirrors(Frozen):
    """`networks`: by the path that the settings give (`owner/name`), or by `owner/name@revision` for one alone."""

    networks: dict[Text, Mirror]

    def find(self, path: str, revision: str | None) -> Mirror | None:
        """The place for this path and revision; what is said for the revision comes first."""
        exact = self.networks.get(f"{path}@{revision}") if revision else None
        return exact or self.networks.get(path)


def mirrors_file() -> Path | None:
    """The file that says it, or None. Raises SpecError where ADDBENCH_MIRRORS names none."""
    named = os.environ.get(VARIABLE)
    file = Path(named) if named else Path(FILE)
    if named and not file.is_file():
        raise SpecError(file.as_posix(), 1, f"no such file, but {VARIABLE} names it")
    return file if file.is_file() else None


def load_mirrors() -> Mirrors:
    """What the file says; nothing where there is none. Raises SpecError with every problem of the file."""
    file = mirrors_file()
    if file is None:
        return Mirrors(networks={})
    values, origin = read_yaml(file)
    try:
        return Mirrors.model_validate(values)
    except ValidationError as error:
        raise_all(explained(error, Mirrors, lambda loc: (origin.file, origin.line(loc))))
        raise


def mirrored(path: str, revision: str | None = None) -> tuple[str, str | None]:
    """Path and revision of the place to look at for what the settings call `path`. Raises SpecError.

    A path that is there itself is meant itself.
    """
    if Path(path).exists():
        return path, revision
    mirror = load_mirrors().find(path, revision)
    if mirror is None:
        return path, revision
    if mirror.directory is not None and not Path(mirror.path).exists():
        file = mirrors_file()
        raise SpecError(
            (file or Path(FILE)).as_posix(), 1, f"{path}: its directory {mirror.path} is not there"
        )
    return mirror.path, mirror.revision
