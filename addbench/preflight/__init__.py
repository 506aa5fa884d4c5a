"""Everything that a scale assumes, looked at before anything is trained. Here: what a check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PreflightProblem:
    """Why a run would fail or mean something else: the place (file and line, or a path), what, and what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Findings:
    """problems: all of them; facts: lines of what was found; left: lines of what was not looked at, and why.

    warnings: what lets a run pass and yet should not stay so, such as weights that no hash pins.
    """

    problems: tuple[PreflightProblem, ...] = ()
    facts: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    warnings: tuple[PreflightProblem, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            self.problems + other.problems,
            self.facts + other.facts,
            self.left + other.left,
            self.warnings + other.warnings,
        )


def problem(where: str, what: str, remedy: str) -> Findings:
    """Findings of one problem."""
    return Findings(problems=(PreflightProblem(where, what, remedy),))


def warning(where: str, what: str, remedy: str) -> Findings:
    """Findings of one warning."""
    return Findings(warnings=(PreflightProblem(where, what, remedy),))


def fact(line: str) -> Findings:
    """Findings of one fact."""
    return Findings(facts=(line,))


def left(line: str) -> Findings:
    """Findings of one thing that was not looked at."""
    return Findings(left=(line,))


def together(parts: list[Findings]) -> Findings:
    """All findings in one, in their order; what is said twice is said once."""
    total = sum(parts, Findings())
    return Findings(
        tuple(dict.fromkeys(total.problems)),
        tuple(dict.fromkeys(total.facts)),
        tuple(dict.fromkeys(total.left)),
        tuple(dict.fromkeys(total.warnings)),
    )


def size(n: float) -> str:
    """Bytes for people: 3.4 GB, in powers of ten as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
