"""Everything that a scale assumes, looked at before anything is trained. Here: what the checks find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from add.errors import InputError

_RETURNED = TypeVar("_RETURNED")


@dataclass(frozen=True)
class PreflightProblem:
    """Why a run would fail or mean something else: the place (file and line, or a path), what, and what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass
class Findings:
    """What the checks have found; each check adds to it.

    facts: what was found. left: what was not looked at, and why. warnings: what lets a run pass but should not stay,
    such as weights that no hash pins.
    """

    problems: list[PreflightProblem] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    warnings: list[PreflightProblem] = field(default_factory=list)

    def problem(self, where: object, what: str, remedy: str) -> None:
        """Add a problem."""
        self.problems.append(PreflightProblem(str(where), what, remedy))

    def warning(self, where: object, what: str, remedy: str) -> None:
        """Add a warning."""
        self.warnings.append(PreflightProblem(str(where), what, remedy))

    def attempt(
        self, where: object, remedy: str, action: Callable[..., _RETURNED], *arguments: Any, said: str = ""
    ) -> _RETURNED | None:
        """What `action` returns; None, and a problem (`said` and its reason), where it raises InputError."""
        try:
            return action(*arguments)
        except InputError as error:
            reason = str(error).removeprefix(str(where)).removeprefix(": ")  # it may begin with the place
            self.problem(where, said + reason, remedy)
            return None


def size(n: float) -> str:
    """Bytes for people: 3.4 GB, in powers of ten as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
