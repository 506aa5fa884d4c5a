"""One writer at a time: locks that the kernel takes back on any death of their process, and that name their holder."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE = 0.5
"""Seconds between two tries of a lock that is held."""


@contextmanager
def only_writer(target: Path) -> Iterator[bool]:
    """Be the one process that writes `target`, a file or a directory; yields whether it had to wait for another.

    Who waits says once on stderr who writes there and what to type. The lock is on the file .<name>.lock beside
    `target`, so that nothing that removes or replaces `target` removes the lock; a writer that was killed leaves the
    file, and no lock. It holds between machines too, where their common file system has locks; where it has none, one
    line on stderr says so and nothing is held. Taken twice in one process, it waits for ever.
    """
    target = target.absolute()
    file = target.with_name(f".{target.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        descriptor = try_lock(file)
        if descriptor is not None:
            break
        if not waited:
            print(_waiting(target, file), file=sys.stderr, flush=True)
        waited = True
        time.sleep(_PAUSE)
    try:
        yield waited
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def try_lock(file: Path) -> int | None:
    """Lock a file that is made for this; its open descriptor, which holds the lock until it is closed, or None."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:  # a file system without locks
        reason = f"cannot be locked ({error.strerror}): see to it that one process alone writes there"
        print(f"{file}: {reason}", file=sys.stderr, flush=True)
        return descriptor
    if not _is_at(descriptor, file):  # whoever had it removed it meanwhile, and others lock its successor
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def holder(file: Path) -> tuple[str, str] | None:
    """Process id and host of the last that locked `file`; None where the file does not say."""
    try:
        words = file.read_text(encoding="utf-8").split()
    except OSError:
        return None
    return (words[0], words[1]) if len(words) == 2 else None


def _waiting(target: Path, file: Path) -> str:
    process, host = holder(file) or ("?", "?")
    return (
        f"{target}: process {process} on {host} writes there; waiting until it ends. To end it: kill {process} "
        f"(on {host}); if that machine is gone for good: rm {file}"
    )
