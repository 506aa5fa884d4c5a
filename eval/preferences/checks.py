"""Checks of a row of a preference file: each cell, the cells together, and the row against earlier rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from add.config.yaml import nearest
from eval.preferences.damage import cell_damage, time_problem
from eval.preferences.key import ATTENTION_CHECK, StudyKey, resolved
from eval.preferences.record import COLUMNS, QUESTIONS, RATER_KINDS, UNKNOWN, WINNERS, Problem, Vote

CHOICES: Mapping[str, tuple[str, ...]] = {
    "question": QUESTIONS,
    "winner": WINNERS,
    "rater_kind": RATER_KINDS,
    "shown_left": ("a", "b", "none"),
    "attention_check": ("no", "a", "b"),
}
_MAY_BE_UNKNOWN = ("time", "image_a", "image_b")
_EMPTY = {
    "rater": "who voted? A vote without a rater cannot be used; give the rater's id",
    "winner": "what was chosen? An empty winner is not a tie; write a, b or tie, or take the row out",
    "shown_left": "is empty; write a, b, or none where it is not known",
    "attention_check": "is empty; write no, or the side that was expected",
    **dict.fromkeys(_MAY_BE_UNKNOWN, f"is empty; where it is not known, write {UNKNOWN}"),
}


def cell_problems(cells: Mapping[str, str], mixed: bool = False) -> Iterator[tuple[str, str, str]]:
    """(column, value, reason) of each cell that is wrong on its own. mixed: see damage.cell_damage."""
    for column in COLUMNS:
        value = cells[column]
        if reason := _cell_reason(column, value, cells, mixed):
            yield column, value, reason


def _cell_reason(column: str, value: str, cells: Mapping[str, str], mixed: bool) -> str | None:
    if not value:
        return _EMPTY.get(column, "is empty")
    if column == "time":
        return None if value == UNKNOWN else time_problem(value)
    if column in CHOICES:
        return None if value in CHOICES[column] else _choice_reason(column, value, cells)
    if reason := cell_damage(value, column == "prompt", mixed):
        return reason
    if value == UNKNOWN and column not in _MAY_BE_UNKNOWN:
        return f"must be known; only {', '.join(_MAY_BE_UNKNOWN)} may be {UNKNOWN}"
    if column == "rater" and not unicodedata.is_normalized("NFC", value):
        return (
            "has accents as characters of their own (not NFC), and would count as another rater; compose them"
        )
    return None


def _choice_reason(column: str, value: str, cells: Mapping[str, str]) -> str:
    if column in ("winner", "attention_check", "shown_left"):
        if value in (cells["system_a"], cells["system_b"]):
            side = "a" if value == cells["system_a"] else "b"
            return f"is the name of system_{side}; write {side}"
        if value.lower() in ("left", "right"):
            return "is a side of the screen; write a or b, the system that stood there"
    never = ", and a winner is never guessed" if column == "winner" else ""
    return f"is no {column}{never}; valid are {', '.join(CHOICES[column])}"


def pair_problems(cells: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(column, value, reason) of each contradiction between the cells of one row."""
    both = cells["system_a"], cells["system_b"]
    if both[0] == both[1]:
        yield "system_b", cells["system_b"], "is system_a too; a vote compares two different systems"
    elif cells["image_a"] == cells["image_b"] != UNKNOWN and ATTENTION_CHECK not in both:
        yield "image_b", cells["image_b"], "is image_a too; the rater would have seen one image twice"
    for side, other in (("a", "b"), ("b", "a")):
        if cells[f"system_{side}"] == ATTENTION_CHECK and cells["attention_check"] != other:
            reason = (
                f"system_{side} is {ATTENTION_CHECK}, so any attentive rater prefers {other}; write {other}"
            )
            yield "attention_check", cells["attention_check"], reason


class Resolver:
    """Codes to names, and unknown systems and prompts, for the rows of a file."""

    def __init__(
        self,
        systems: Collection[str] | None,
        keys: Mapping[str, StudyKey],
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        self._systems = None if systems is None else {*systems, ATTENTION_CHECK}
        self._keys = keys
        self._prompts = prompts

    def resolve(self, cells: dict[str, str]) -> Iterator[tuple[str, str, str]]:
        """Replaces codes by names in `cells`; yields (column, value, reason) of what is not known."""
        key = self._keys.get(cells["study"])
        for side in ("a", "b"):
            for kind in ("system", "image"):
                column = f"{kind}_{side}"
                value = cells[column]
                if key is not None and value not in (UNKNOWN, ATTENTION_CHECK):
                    codes = key.systems if kind == "system" else key.images
                    if (name := resolved(value, codes)) is None:
                        reason = f"is no {kind} code of the study {key.study!r}{nearest(value, codes)}"
                        yield column, value, reason
                        continue
                    cells[column] = name
                if kind == "system" and self._systems is not None and cells[column] not in self._systems:
                    yield column, value, self._unknown(cells[column], value, cells["study"], key)

    def prompt_problems(self, cells: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """(column, value, reason) of a prompt that may not occur."""
        if self._prompts is None:
            return
        number, others = cells["prompt_id"], "votes on other images are not rated with these: take them out"
        if number not in self._prompts:
            yield "prompt_id", number, f"is no prompt that is compared; {others}"
        elif (text := self._prompts[number]) != cells["prompt"]:
            yield "prompt", cells["prompt"], f"is not prompt {number!r}, {text[:60]!r}; {others}"

    def _unknown(self, name: str, value: str, study: str, key: StudyKey | None) -> str:
        assert self._systems is not None
        known = nearest(name, self._systems - {ATTENTION_CHECK})
        if key is None:
            hint = f"if it is a code of the study {study!r}, put that study's key file beside the votes"
            return f"is no known system ({hint}){known}"
        behind = f" stands for {name!r}, which" if name != value else ""
        return f"{behind} is no known system{known}".lstrip()


class Seen:
    """The rows so far, of one file or several, which the next row may not contradict or repeat."""

    def __init__(self) -> None:
        self._first: dict[tuple[object, ...], tuple[object, Path, int]] = {}

    def problems(self, vote: Vote, file: Path) -> Iterator[Problem]:
        """What the vote repeats or contradicts of earlier ones."""

        def earlier(value: object, *key: object) -> tuple[object, str] | None:
            """The value that the first row with this key had, and where it is; None for the same value."""
            first, where, line = self._first.setdefault(key, (value, file, vote.line))
            place = f"line {line}" if where == file else f"{where}, line {line}"
            return None if first == value else (first, place)

        if found := earlier(object(), vote.comparison):  # an object equals no other: a vote may be there once
            reason = (
                f"the same rater already answered this comparison in {found[1]} (same study, question, prompt and "
                "images, in either order); delete one of the two"
            )
            yield Problem(file, vote.line, "rater", vote.rater, reason)
        prompt = f"prompt_id {vote.prompt_id!r}"
        for column, value, what, found in (
            ("rater_kind", vote.rater_kind, "the rater", earlier(vote.rater_kind, "rater", vote.rater)),
            ("prompt", vote.prompt, prompt, earlier(vote.prompt, "prompt", vote.study, vote.prompt_id)),
        ):
            if found:
                reason = f"{what} has another {column} in {found[1]}: {str(found[0])[:60]!r}"
                reason += "; each has one, so one of the rows is wrong"
                yield Problem(file, vote.line, column, value, reason)
        for column, image, system in (
            ("image_a", vote.image_a, vote.system_a),
            ("image_b", vote.image_b, vote.system_b),
        ):
            found = None if image == UNKNOWN else earlier(system, "image", vote.study, image)
            if found and ATTENTION_CHECK not in (found[0], system):
                reason = f"is an image of {system!r} here, and of {found[0]!r} in {found[1]}"
                yield Problem(file, vote.line, column, image, f"{reason}; an image has one system")
