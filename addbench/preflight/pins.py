"""Which weights does a scale leave unpinned? What another machine loads under the same name may be something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from add.spec_yaml import Loc
from add.weights import is_commit, is_hub_id
from addbench.preflight.findings import Findings, Problem
from addbench.preflight.hashes import Hashed
from addbench.preflight.places import Wanted


def check_pins(wanted: Wanted, hashed: Hashed | None, here: bool, where: Callable[[Loc], str]) -> Findings:
    """A warning for every hash that the scale leaves null, with the one to put there where it is known.

    hashed: None where it was not taken; here: whether the network is on this machine; where: the line of a place
    in the scale.
    """
    return Findings(warnings=tuple(_warnings(wanted, hashed, here, where)))


def unpinned(wanted: Wanted) -> list[tuple[Loc, str | None]]:
    """Where the scale leaves a hash null, and of which file; None: of all files of the network together."""
    if wanted.kind == "processor" or wanted.sha256 is not None:
        return []
    if wanted.kind == "file":
        known = wanted.files or {"": None}
        return [((*wanted.loc, "sha256"), name or None) for name, sha256 in known.items() if sha256 is None]
    if wanted.files:
        loc: Loc = (*wanted.loc, "files")
        return [((*loc, name), name) for name, sha256 in wanted.files.items() if sha256 is None]
    return [((*wanted.loc, "sha256"), None)]


def _warnings(
    wanted: Wanted, hashed: Hashed | None, here: bool, where: Callable[[Loc], str]
) -> Iterator[Problem]:
    for loc, file in unpinned(wanted):
        what = f"{wanted.name}: {f'{file} of ' if file else ''}{wanted.path} is not pinned"
        if hashed is not None:
            remedy = f"put its sha256 here: {hashed.each.get(file, hashed.whole) if file else hashed.whole}"
        elif here:
            remedy = "`addbench check --hash` prints the sha256 to put here"
        else:
            remedy = "once it is on this machine, this check prints the sha256 to put here"
        yield Problem(where(loc), what, remedy)
    if is_hub_id(wanted.path) and not Path(wanted.path).exists() and not is_commit(wanted.revision):
        what = f"{wanted.name}: revision {wanted.revision or 'null'} of {wanted.path} is no commit, so it can move"
        yield Problem(where((*wanted.loc, "revision")), what, "name the commit (40 digits)")
