"""One preference record: a rater saw two images for a prompt, was asked a question, and chose. And its problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from add.errors import InputError

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


class PreferenceError(InputError):
    """A preference file that is refused. `problems`: everything that is wrong with it, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        every = tuple(problems)
        super().__init__("\n".join(map(str, every)))
        self.problems = every


def shown(value: str) -> str:
    """The value in quotes, with escapes for what cannot be seen, cut after 60 characters."""
    text = repr(value if len(value) <= _SHOWN else value[:_SHOWN])
    return text if len(value) <= _SHOWN else f"{text}..."


def invalid(error: ValidationError) -> str:
    """The first field that pydantic refuses, and why."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def one_problem(file: Path, reason: str, line: int = 0, column: str = "", value: str = "") -> PreferenceError:
    """An error of one problem."""
    return PreferenceError([Problem(file, line, column, value, reason)])


Question = Literal["quality", "alignment"]
Winner = Literal["a", "b", "tie"]
RaterKind = Literal["human", "model", "oracle"]
Side = Literal["a", "b", "none"]
Expected = Literal["no", "a", "b"]

QUESTIONS: tuple[Question, ...] = get_args(Question)
WINNERS: tuple[Winner, ...] = get_args(Winner)
RATER_KINDS: tuple[RaterKind, ...] = get_args(RaterKind)

UNKNOWN = "unknown"
"""What `time`, `image_a` and `image_b` hold where a foreign file does not say; no other column may hold it."""


@dataclass(frozen=True)
class Vote:
    """One row of a preference file. `line` is where it stood (1-based; 0 for a vote that came from no file).

    prompt: as shown, byte for byte. system_a, system_b: two different systems, in an order without
    meaning. image_a, image_b: ids of the images shown. winner: a, b or tie; a system, not a side of the screen.
    shown_left: the system that stood on the left; none for raters that see no sides, or where it is not known.
    time: ISO 8601 in UTC with a Z, to the second or finer. attention_check: no, or the system that any attentive
    rater prefers; such votes judge the rater and enter no rating. study: id of the study, as the page states it.
    """

    prompt_id: str
    prompt: str
    system_a: str
    system_b: str
    image_a: str
    image_b: str
    question: Question
    winner: Winner
    rater: str
    rater_kind: RaterKind
    shown_left: Side
    time: str
    attention_check: Expected
    study: str
    line: int = 0

    @property
    def passed(self) -> bool:
        """Whether an attention check was answered as expected. Raises ValueError for any other vote."""
        if self.attention_check == "no":
            raise ValueError("this vote is no attention check")
        return self.winner == self.attention_check

    @property
    def whole_prompt(self) -> str:
        """The id, and in further lines the prompt: one id has one prompt within a study alone."""
        return f"{self.prompt_id}\n{self.prompt}"

    @property
    def comparison(self) -> tuple[object, ...]:
        """What a rater may answer only once: the same two images, in either order, on one prompt and question."""
        pair = frozenset(((self.system_a, self.image_a), (self.system_b, self.image_b)))
        return self.study, self.rater_kind, self.rater, self.question, self.prompt_id, pair


COLUMNS = tuple(name for name in Vote.__dataclass_fields__ if name != "line")
"""The header of a preference file, in order."""
