"""What is in these files? SHA-256 of their bytes, and a memory of it, so that asking again costs one look at each.

The memory is a database in the user's cache, never in a results directory. It only saves time: where it cannot be
written or read, files are hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from add.errors import InputError
from add.files import user_cache

State = tuple[int, int, int, int]
"""A file's size in bytes, times of modification and of change in nanoseconds, and inode.

The time of change cannot be set back, so a file that was replaced by an older one, or edited with its time kept, is
seen.
"""

_TABLE = "CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, state TEXT, sha256 TEXT) WITHOUT ROWID"
_SETTLED = 2.0
"""Seconds after which a file's times tell a later change: younger files are not remembered."""

_MANY = 2000


def file_digests(files: Iterable[Path]) -> list[str]:
    """sha256 (64 hex) of each file's bytes, in order. Raises InputError with every file that cannot be read."""
    paths = list(files)
    states = [file_state(path) for path in paths]
    if wrong := [f"{path}: cannot be read" for path, state in zip(paths, states, strict=True) if not state]:
        raise InputError.of(wrong)
    keys = [str(path.absolute()) for path in paths]
    marks = [json.dumps(state) for state in states]
    known = _recalled(keys, marks)
    missing = [i for i, digest in enumerate(known) if digest is None]
    found = dict(zip(missing, _hashed([paths[i] for i in missing]), strict=True))
    _remember((keys[i], marks[i], found[i]) for i in missing if _is_settled(states[i]))
    return [digest or found[i] for i, digest in enumerate(known)]


def file_digest(file: Path) -> str:
    """sha256 (64 hex) of one file's bytes. Raises InputError where it cannot be read."""
    return file_digests([file])[0]


def file_state(file: Path | os.DirEntry[str]) -> State | None:
    """What a change of the file changes; None where there is no such file."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def remembered(what: str, files: Mapping[str, State], digest: Any) -> str:
    """`digest()`, or what it gave before for the same `what` while all `files` (by name) had these states."""
    mark = digest_of([what, sorted(files.items())])
    (known,) = _recalled([what], [mark])
    if known is None:
        known = str(digest())
        if all(map(_is_settled, files.values())):
            _remember([(what, mark, known)])
    return known


def digest_of(value: Any) -> str:
    """sha256 (64 hex) of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _hashed(paths: Sequence[Path]) -> list[str]:
    """Every file read through, several at a time; a bar shows a long wait."""
    from tqdm import tqdm

    if not paths:
        return []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        long = sum(path.stat().st_size for path in paths) > 1e9 or len(paths) > _MANY
        return list(tqdm(pool.map(_hash, paths), "hashing", len(paths), disable=not long, mininterval=1))


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error


def _is_settled(state: State | None) -> bool:
    return state is not None and time.time() - max(state[1], state[2]) / 1e9 > _SETTLED


def _memory() -> sqlite3.Connection:
    folder = user_cache()
    folder.mkdir(parents=True, exist_ok=True)
    memory = sqlite3.connect(folder / "digests.sqlite", timeout=30)
    memory.execute(_TABLE)
    return memory


def _recalled(keys: Sequence[str], marks: Sequence[str]) -> list[str | None]:
    """What was remembered of each key under this mark, else None."""
    with suppress(OSError, RuntimeError, sqlite3.Error), closing(_memory()) as memory:
        query = "SELECT sha256 FROM digests WHERE key = ? AND state = ?"
        rows = (memory.execute(query, pair).fetchone() for pair in zip(keys, marks, strict=True))
        return [row[0] if row else None for row in rows]
    return [None] * len(keys)


def _remember(rows: Iterable[tuple[str, str, str]]) -> None:
    with suppress(OSError, RuntimeError, sqlite3.Error), closing(_memory()) as memory, memory:
        memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
