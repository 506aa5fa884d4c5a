"""Files and directories that appear whole or not at all: the only place that knows how."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from add.errors import InputError


@contextmanager
def whole_file(file: Path, durable: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `file` when the block ends; a killed writer leaves the old file or none.

    durable: it also survives a power cut. Several processes, on several machines, may write one file at once.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if durable:
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_directory(directory: Path) -> Iterator[Path]:
    """An empty directory to fill, which takes the place of `directory` when the block ends, or of what it links to."""
    directory = directory.resolve() if directory.is_symlink() else directory
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def write_whole(file: Path, content: str | bytes, durable: bool = False) -> None:
    """Write bytes, or UTF-8 text with its line ends as they are, as `whole_file` does."""
    with whole_file(file, durable) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def refuse_outputs(outputs: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Raises InputError where an output is a folder, an input, or another output as well: something would be lost."""
    taken = [path.resolve() for path in inputs]
    for output in outputs:
        if output.is_dir():
            raise InputError(output, "is a folder; name a file to write")
        if output.resolve() in taken:
            raise InputError(output, "is named twice, and would be overwritten; name another file to write")
        taken.append(output.resolve())


def files_below(root: Path) -> Iterator[str]:
    """Relative POSIX paths of the files below a folder, with hidden ones; nothing in a hidden folder."""
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        prefix = Path(folder).relative_to(root).as_posix() + "/"
        yield from (name if prefix == "./" else prefix + name for name in names)


def user_cache() -> Path:
    """The folder for what the user's programs keep to save time: $XDG_CACHE_HOME/addbench, or below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "addbench"


def write_json(file: Path, value: Any) -> None:
    """Write indented JSON as `whole_file` does. Raises ValueError for a number that is not finite."""
    write_whole(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
