"""Does the Snakemake that left its lock here still live? Then it works on; else the lock is removed.

Snakemake's own lock is files that stay after SIGKILL or a power cut, and its message cannot tell a dead owner from a
live one. Here every Snakemake holds a shared lock of the kernel on the Snakefile, from before it takes its own, until
it ends in whatever way; and once it has its own, it notes its machine and process in .snakemake/owner.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
from pathlib import Path

from add.files import write_whole
from add.lock import holder

LOCKS, OWNER = Path(".snakemake/locks"), Path(".snakemake/owner")


def free_dead_lock(snakefile: Path) -> None:
    """Remove the lock that a dead Snakemake left in this directory; say on stderr who holds it where one lives.

    Then hold `snakefile` as this process's sign of life, until the process ends. A lock that was taken on another
    machine stays, since some file systems do not show one machine's locks of the kernel to another.
    """
    descriptor = _opened(snakefile)  # is never closed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _free()
    except BlockingIOError:
        _say_who_lives()
    except OSError:  # a file system without locks
        return
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def wait_until_free(snakefile: Path) -> None:
    """Wait while a Snakemake lives in this directory, after a line on stderr that says which."""
    descriptor = _opened(snakefile)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = f"Snakemake works here already ({_who(OWNER)}); waiting until it ends"
        print(said, file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        return
    finally:
        os.close(descriptor)


def living(snakefile: Path) -> str | None:
    """The process and machine of a Snakemake that works with this file; None where none does."""
    if not snakefile.is_file():
        return None
    descriptor = _opened(snakefile)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _who(snakefile.parent / OWNER)
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return None


def note_owner() -> None:
    """Note this process and machine in .snakemake/owner."""
    write_whole(OWNER, f"{os.getpid()} {socket.gethostname()}\n")


def _who(owner: Path) -> str:
    process, host = holder(owner) or ("?", "?")
    return f"process {process} on {host}"


def _opened(snakefile: Path) -> int:
    writable = os.access(snakefile, os.W_OK)  # NFS wants that for an exclusive lock
    return os.open(snakefile, os.O_RDWR if writable else os.O_RDONLY)


def _free() -> None:
    process, host = holder(OWNER) or ("?", "?")
    if _is_locked() and host == socket.gethostname():
        shutil.rmtree(LOCKS)
        print(f"{LOCKS}: removed; its owner, process {process}, is dead", file=sys.stderr)


def _say_who_lives() -> None:
    process, host = holder(OWNER) or ("?", "?")
    if _is_locked():
        print(
            f"Snakemake works here already (process {process} on {host}). If the lock is refused below, wait for that "
            f"process or end it (kill {process}), and do not use --unlock.",
            file=sys.stderr,
        )


def _is_locked() -> bool:
    return LOCKS.is_dir() and any(LOCKS.iterdir())
