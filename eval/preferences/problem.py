"""What is wrong with a preference file, where, and what to do; all problems of a file at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. line: the physical line in which the row starts, 1-based; 0 where the whole
    file is meant. column: the name of the column, or empty. value: the cell as it stands, or empty.
    """

    file: Path
    line: int
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        where = [str(self.file)]
        where += [f"line {self.line}"] if self.line else []
        column = self.column if self.column.isprintable() else shown(self.column)
        where += [f"column {column}"] if column else []
        where += [f"value {shown(self.value)}"] if self.value else []
        return f"{', '.join(where)}: {self.reason}"


class PreferenceError(ValueError):
    """A preference file that is not as it should be. `problems`: everything that is wrong, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def shown(value: str) -> str:
    """The value in quotes, with escapes for what cannot be seen, cut after 60 characters."""
    text = repr(value if len(value) <= _SHOWN else value[:_SHOWN])
    return text if len(value) <= _SHOWN else f"{text}..."


def nearest(word: str, valid: Iterable[str]) -> str:
    """The end of a message: the valid word closest to `word` whatever its case, and all of them where few."""
    words = sorted(valid)
    if not words:
        return "none is known"
    few = 1 < len(words) <= 4
    folded = {other.casefold(): other for other in reversed(words)}
    close = difflib.get_close_matches(word.strip().casefold(), folded, n=1, cutoff=0.5 if few else 0.0)
    if not close:
        return f"valid are {', '.join(words)}"
    return f"the nearest is {folded[close[0]]!r}" + (f" (valid are {', '.join(words)})" if few else "")


def one_problem(file: Path, reason: str, line: int = 0, column: str = "", value: str = "") -> PreferenceError:
    """An error of one problem."""
    return PreferenceError([Problem(file, line, column, value, reason)])
