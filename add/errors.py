"""Input that is refused: one kind of error, and what a stage's command line makes of it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec

REFUSED = 3
"""Exit status of a stage that refuses its input: a second try of the same ends in the same."""

_SHOWN = 20
_P = ParamSpec("_P")


class InputError(ValueError):
    """Input that is refused. The message says where, what is wrong and what to do.

    parts: the place (file, line or field; None is left out), then the reason. `problems` has one text a problem:
    this one, or all that `InputError.of` was given.
    """

    def __init__(self, *parts: object) -> None:
        text = ": ".join(str(part) for part in parts if part is not None)
        super().__init__(text)
        self.problems: tuple[Any, ...] = (text,)

    @classmethod
    def of(cls, problems: Iterable[str]) -> InputError:
        """One error for many problems; its message shows the first twenty."""
        every = tuple(problems)
        more = len(every) - _SHOWN
        error = cls(
            "\n".join([*every[:_SHOWN], *([f"and {more} more problems like these"] if more > 0 else [])])
        )
        error.problems = every
        return error


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse's arguments: a whole number that is `least` or more."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"should be {least} or more, not {number}")
        return number

    return whole_number


def amount(text: str) -> float:
    """A type for argparse's arguments: a finite number, 0 or more."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"should be a number from 0, not {text}")
    return number


def refuses(main: Callable[_P, int | None]) -> Callable[_P, int]:
    """A stage's `main` that returns REFUSED, with the reason on stderr, where input is refused; else its own status.

    So do FloatingPointError, since values that are not finite come from the settings and the seed, again and again, and
    a path that is a folder where a file is needed, or the reverse.
    """

    @wraps(main)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> int:
        try:
            return main(*args, **kwargs) or 0
        except (InputError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return REFUSED
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
            return REFUSED

    return run
