"""study.json: a study as the page and the server know it. Opaque codes; no system has a name here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from add.errors import InputError
from eval.preferences.damage import MONTH
from eval.preferences.record import Expected, Question, Vote, Winner, invalid

CODE = r"^[a-z]+-[a-z]+$"
NO_NAME = (
    r"nan|none|null|nat?|unknown|[0-9]+(?:\.[0-9]+)?e-?[0-9]+|[0-9]{1,4}([.-])[0-9]{1,2}\1[0-9]{1,4}"
    rf"|[0-9]{{1,2}}[-. ]{MONTH}(?:[-. ][0-9]{{2,4}})?|{MONTH}[-. ][0-9]{{1,4}}"
)
"""Names that a spreadsheet would change; a pattern for Python's re and for JavaScript, case ignored."""


class Strict(BaseModel):
    """Frozen; no unknown fields, no values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Wording(Strict):
    """A question as raters read it."""

    title: str = Field(min_length=1)
    hint: str


WORDINGS: Mapping[Question, Wording] = {
    "quality": Wording(
        title="Which image looks better?",
        hint="Judge the image itself: natural shapes, clean detail, no blur and no flaws. "
        "Whether it fits the text does not matter here.",
    ),
    "alignment": Wording(
        title="Which image fits the text better?",
        hint="Judge what is shown: the right things, how many, their colours and places. "
        "How beautiful it is does not matter here.",
    ),
}
"""Ours: the paper does not publish its wording (section 4.2)."""


class Trial(Strict):
    """One comparison of one list. a and b are in the order of their codes, which has no meaning; `left` stood there.

    check: no, or the side of the undamaged image.
    """

    id: str = Field(pattern=r"^t[0-9]+$")
    prompt_id: str
    question: Question
    system_a: str = Field(pattern=CODE)
    system_b: str = Field(pattern=CODE)
    image_a: str = Field(pattern=CODE)
    image_b: str = Field(pattern=CODE)
    left: Literal["a", "b"]
    check: Expected


class StudyPlan(Strict):
    """A whole study. resolution: side of every image, pixels. ties: whether raters may answer 'no preference'."""

    format: Literal[1] = 1
    study: str = Field(pattern=CODE)
    resolution: int = Field(ge=1)
    ties: bool
    questions: dict[Question, Wording]
    prompts: dict[str, str]
    lists: dict[str, tuple[Trial, ...]]

    @model_validator(mode="after")
    def _references(self) -> StudyPlan:
        for name, trials in self.lists.items():
            if len({trial.id for trial in trials}) != len(trials):
                raise ValueError(f"lists.{name}: a trial's id is there twice")
            for trial in trials:
                where = f"lists.{name}.{trial.id}"
                if trial.prompt_id not in self.prompts:
                    raise ValueError(f"{where}: no prompt has the id {trial.prompt_id!r}")
                if trial.question not in self.questions:
                    raise ValueError(f"{where}: the question {trial.question!r} has no wording")
                if trial.system_a == trial.system_b:
                    raise ValueError(f"{where}: system_a and system_b are the same")
        return self

    def images(self, name: str | None = None) -> tuple[str, ...]:
        """The codes of the images of one list, or of all lists, each once, in order of their first use."""
        lists = self.lists.values() if name is None else (self.lists[name],)
        return tuple(dict.fromkeys(i for trials in lists for t in trials for i in (t.image_a, t.image_b)))

    def vote(self, trial: Trial, rater: str, winner: Winner, time: str) -> Vote:
        """The record of one answer."""
        return Vote(
            **trial.model_dump(exclude={"id", "left", "check"}),
            prompt=self.prompts[trial.prompt_id],
            winner=winner,
            rater=rater,
            rater_kind="human",
            shown_left=trial.left,
            time=time,
            attention_check=trial.check,
            study=self.study,
        )


def rater_name(text: object) -> str | None:
    """A rater's name as it is recorded (NFC, trimmed), or None: 1 to 40 letters, digits, spaces and . _ ' -.

    It starts with a letter or digit, and is no date, number or empty value to a spreadsheet, which the reader
    would refuse. The page has the same rule.
    """
    if not isinstance(text, str):
        return None
    name = unicodedata.normalize("NFC", text.strip())
    kinds = {unicodedata.category(character)[0] for character in name if character not in " ._'-"}
    if not 1 <= len(name) <= 40 or not kinds <= set("LMN") or unicodedata.category(name[0])[0] not in "LN":
        return None
    return None if re.fullmatch(NO_NAME, name, re.IGNORECASE) else name


def read_study(directory: Path) -> StudyPlan:
    """The study of a directory that `make` wrote, its images there. Raises InputError."""
    file = directory / "study.json"
    try:
        study = StudyPlan.model_validate_json(file.read_bytes())
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); make the study first"
        raise InputError(file, reason) from error
    except ValidationError as error:
        raise InputError(file, f"{invalid(error)} ({error.error_count()} problems)") from error
    for image in study.images():
        if not image_file(directory, image).is_file():
            raise InputError(image_file(directory, image), "is missing; make the study again")
    return study


def image_file(directory: Path, code: str) -> Path:
    """Where the image of this code is."""
    return directory / "images" / f"{code}.png"
