"""Reads a foreign file into entries, and builds votes from them and from what a person states about the file."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from add.config.yaml import nearest
from eval.preferences.damage import json_value, parse_json, read_text
from eval.preferences.reader import check_votes, parsed
from eval.preferences.record import UNKNOWN, PreferenceError, Problem, Vote, one_problem

_FIELDS = ("study", "question", "rater", "rater_kind", "prompt_id", "prompt")
_HAVE_COLUMN = ("rater", "prompt_id", "prompt")
_DECISIONS = {
    "both_bad": ("say that both are bad", "--both-bad tie", "counted as ties"),
    "unanswered": ("hold no answer", "--unanswered leave-out", "left out"),
    "same_system": ("compare a system with itself", "--same-system leave-out", "left out"),
    "time_zone": ("have a time without a zone", "--time-zone UTC or unknown", "read by --time-zone"),
}


@dataclass(frozen=True)
class Options:
    """What a person states about a file; None: not given.

    A value that both the file and an option state is refused, and so is one that neither states.

    rater_column, prompt_column, prompt_id_column: read the value from this column of the file.
    row_is: each row is another prompt, or another rater, and is named by study and line; for files without either.
    shown_left: the system that stood on the left, where the file does not say; none: not known.
    time_zone: of times that the file gives without a zone: UTC, or unknown (then the time is 'unknown').
    both_bad: tie counts 'both are bad' as a tie. unanswered, same_system: leave-out leaves such rows out and
    says how many. image_systems: a JSON file {image id: system}, for files that name images only.
    """

    study: str | None = None
    question: str | None = None
    rater: str | None = None
    rater_kind: str | None = None
    prompt_id: str | None = None
    prompt: str | None = None
    rater_column: str | None = None
    prompt_id_column: str | None = None
    prompt_column: str | None = None
    row_is: Literal["prompt", "rater"] | None = None
    shown_left: Literal["a", "b", "none"] = "none"
    time_zone: Literal["UTC", "unknown"] | None = None
    both_bad: Literal["tie"] | None = None
    unanswered: Literal["leave-out"] | None = None
    same_system: Literal["leave-out"] | None = None
    image_systems: Path | None = None


@dataclass(frozen=True)
class ForeignEntry:
    """One row or object; `line` is the physical line in which it starts. The cells of a CSV are texts."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class ForeignFile:
    """A foreign file: its columns (the keys of its objects) and its entries."""

    file: Path
    columns: tuple[str, ...]
    entries: tuple[ForeignEntry, ...]


@dataclass(frozen=True)
class Imported:
    """The votes of a foreign file, each with its line there, and notes on what an option decided, with counts."""

    votes: tuple[Vote, ...]
    notes: tuple[str, ...]


def read_source(file: Path) -> ForeignFile:
    """Reads a foreign file. Raises PreferenceError."""
    text = read_text(file)
    if text.lstrip()[:1] in ("[", "{"):
        entries = tuple(_objects(file, text))
        columns = tuple(dict.fromkeys(name for entry in entries for name in entry.values))
    else:
        columns, entries = _table(file, text)
    if not entries:
        raise one_problem(file, "holds no entries")
    return ForeignFile(file, columns, entries)


def _table(file: Path, text: str) -> tuple[tuple[str, ...], tuple[ForeignEntry, ...]]:
    rows, fault = parsed(text)
    if fault is not None:
        raise one_problem(file, fault.reason, fault.line, value=fault.value)
    header = rows[0].cells
    if len(header) == 1 and any(sign in header[0] for sign in ";\t|"):
        raise one_problem(file, "is not separated by commas; save it as CSV with commas", 1, value=header[0])
    twice = [name for name, count in Counter(header).items() if count > 1]
    problems = [Problem(file, 1, name, name, "is in the header twice") for name in twice]
    entries = []
    for row in rows[1:]:
        if len(row.cells) != len(header):
            reason = f"has {len(row.cells)} cells, the header has {len(header)}"
            problems.append(Problem(file, row.line, "", ",".join(row.cells), reason))
        entries.append(ForeignEntry(row.line, dict(zip(header, row.cells, strict=False))))
    if problems:
        raise PreferenceError(problems)
    return header, tuple(entries)


def _objects(file: Path, text: str) -> Iterator[ForeignEntry]:
    """The objects of a list, or of lines, each with its line."""
    between, position, line = " \t\r\n", 0, 1
    if is_list := text.lstrip().startswith("["):
        parse_json(file, text)  # the list is whole; below, each object is read again, for its line
        between, position = between + ",", text.index("[") + 1
        line += text.count("\n", 0, position)
    while True:
        start = position
        while position < len(text) and text[position] in between:
            position += 1
        line += text.count("\n", start, position)
        if position == len(text) or (is_list and text[position] == "]"):
            return
        value, end = json_value(file, text, position, line)
        if not isinstance(value, dict):
            raise one_problem(file, "each entry must be an object", line, value=text[position:end])
        yield ForeignEntry(line, value)
        line += text.count("\n", position, end)
        position = end


def _row_names(entries: Sequence[ForeignEntry]) -> dict[int, str]:
    """What each entry is called where rows tell prompts or raters apart: by its line, and its place among several."""
    lines = Counter(entry.line for entry in entries)
    place: Counter[int] = Counter()
    names = {}
    for entry in entries:
        place[entry.line] += 1
        more = f".{place[entry.line]}" if lines[entry.line] > 1 else ""
        names[id(entry)] = f"row-{entry.line}{more}"
    return names


class Builder:
    """Collects votes and problems. says: {field of a vote: the format's column for it}."""

    def __init__(self, source: ForeignFile, options: Options, says: Mapping[str, str]) -> None:
        self._source, self._options = source, options
        self._problems: list[Problem] = []
        self._votes: list[Vote] = []
        self._counts: dict[str, list[int]] = {}
        self._rows = _row_names(source.entries)
        self._columns = dict(self._sources(says))
        if self._problems:
            raise PreferenceError(self._problems)

    def _sources(self, says: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """(field, column) of each field that the file states; a problem for each that is stated twice or never."""
        present = set(self._source.columns)
        for field in _FIELDS:
            option = f"--{field.replace('_', '-')}"
            column = getattr(self._options, f"{field}_column", None)
            if column is not None and column not in present:
                reason = f"{option}-column: the file has no such column{nearest(column, present)}"
                self._problem(1, column, "", reason)
            if column is None and says.get(field) in present:
                column = says[field]
            value = getattr(self._options, field)
            by_row = (self._options.row_is, field) in (("rater", "rater"), ("prompt", "prompt_id"))
            if column is not None and (value is not None or by_row):
                given = f"--row-is {self._options.row_is}" if by_row else option
                self._problem(1, column, "", f"the file states the {field}; leave out {given}")
            elif column is None and value is None and not by_row:
                more = f" or {option}-column COLUMN" if field in _HAVE_COLUMN else ""
                self._problem(1, "", "", f"the file does not state the {field}; give {option}{more}")
            if column is not None:
                yield field, column

    def _problem(self, line: int, column: str, value: Any, reason: str) -> None:
        self._problems.append(Problem(self._source.file, line, column, str(value), reason))

    def refuse(self, entry: ForeignEntry, column: str, reason: str, value: Any = None) -> None:
        """Notes a problem with an entry; `value` is what its column holds unless given."""
        self._problem(entry.line, column, entry.values.get(column, "") if value is None else value, reason)

    def decide(self, entry: ForeignEntry, what: str) -> bool:
        """Counts a row that needs a decision; True where an option took it. `finish` refuses the others."""
        self._counts.setdefault(what, []).append(entry.line)
        return getattr(self._options, what) is not None

    def text(self, entry: ForeignEntry, column: str) -> str:
        """A cell as text: texts and whole numbers as they are. Notes a problem for anything else."""
        value = entry.values.get(column)
        if not isinstance(value, str | int) or isinstance(value, bool):
            self.refuse(entry, column, "must be a text or a whole number", value=repr(value))
            return ""
        text = str(value)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.refuse(entry, column, "holds half a character (a lone surrogate); export it again")
            return ""
        return text

    def winner(self, entry: ForeignEntry, choices: Mapping[str, str]) -> str | None:
        """What the cell `winner` stands for; None where it is refused, or empty and left to a decision."""
        value = entry.values.get("winner")
        if value is None or value == "":
            self.decide(entry, "unanswered")
            return None
        if not isinstance(value, str) or value not in choices:
            self.refuse(entry, "winner", f"is no winner; valid are {', '.join(choices)}")
            return None
        return choices[value]

    def field(self, entry: ForeignEntry, name: str) -> str:
        """A field of the vote, from its column, its option, or the study and the number of the row."""
        if name in self._columns:
            text = self.text(entry, self._columns[name])
            return unicodedata.normalize("NFC", text) if name == "rater" else text
        value = getattr(self._options, name)
        return str(value) if value is not None else f"{self.field(entry, 'study')}-{self._rows[id(entry)]}"

    def time(self, entry: ForeignEntry, column: str) -> str:
        """The time in UTC; `unknown` where the file has none."""
        value = entry.values.get(column)
        if value is None or value == "":
            return UNKNOWN
        try:
            moment = _moment(value)
        except (ValueError, OverflowError):
            self.refuse(entry, column, "is no time that can be read: neither ISO 8601 nor Unix seconds")
            return UNKNOWN
        if moment.tzinfo is None:
            if not self.decide(entry, "time_zone") or self._options.time_zone == "unknown":
                return UNKNOWN
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"

    def add(self, entry: ForeignEntry, systems: tuple[str, str], winner: str, **more: str) -> None:
        """One vote. more: time, image_a, image_b, shown_left, attention_check, and fields of this entry alone."""
        if systems[0] == systems[1]:
            self.decide(entry, "same_system")
            return
        values: dict[str, Any] = {name: self.field(entry, name) for name in _FIELDS if name not in more}
        values |= {"image_a": UNKNOWN, "image_b": UNKNOWN, "attention_check": "no", "time": UNKNOWN}
        values |= {"system_a": systems[0], "system_b": systems[1], "winner": winner}
        values |= {"shown_left": self._options.shown_left, **more}
        self._votes.append(Vote(**values, line=entry.line))

    def finish(self) -> Imported:
        """The votes. Raises PreferenceError with every problem, those of the schema included."""
        notes = []
        for what, lines in self._counts.items():
            reason, option, done = _DECISIONS[what]
            count = f"{len(lines)} of {len(self._source.entries)} entries" if len(lines) != 1 else "1 entry"
            if getattr(self._options, what) is None:
                self._problem(lines[0], "", "", f"{count} (this is the first) {reason}; decide with {option}")
            else:
                notes.append(f"{count}, first in line {lines[0]}, {reason}: {done}")
        if self._problems:
            raise PreferenceError(self._problems)
        check_votes(self._source.file, self._votes)
        return Imported(tuple(self._votes), tuple(notes))


def _moment(value: Any) -> datetime:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{9,11}(\.[0-9]+)?", value):
        return datetime.fromisoformat(value)
    seconds = float(value)
    if not 1e8 < seconds < 1e11:
        raise ValueError
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
