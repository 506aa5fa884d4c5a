"""A foreign file as entries, and what a person must say about it because the file does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.preferences.key import parse_json, read_text
from eval.preferences.reader import parsed
from eval.preferences.record import PreferenceError, Problem, one_problem


@dataclass(frozen=True)
class Options:
    """None: not given. A value that the file also states is refused, and so is one that neither states.

    rater_column, prompt_column, prompt_id_column: read the value from this column of the file.
    row_is: each row is another prompt, or another rater, and is named by its line; for files without either.
    shown_left: the side that stood on the left, where the file does not say; none is 'not known'.
    time_zone: of times that the file gives without a zone: UTC, or unknown (then the time is 'unknown').
    both_bad: tie counts 'both are bad' as a tie. unanswered, same_system: leave-out leaves such rows out, by
    number, and says so. image_systems: a JSON file {image id: system}, for files that name images only.
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
    problems = [
        Problem(file, 1, name, name, "is in the header twice")
        for name in set(header)
        if header.count(name) > 1
    ]
    for row in rows[1:]:
        if len(row.cells) != len(header):
            reason = f"has {len(row.cells)} cells, the header has {len(header)}"
            problems.append(Problem(file, row.line, "", ",".join(row.cells), reason))
    if problems:
        raise PreferenceError(problems)
    return header, tuple(
        ForeignEntry(row.line, dict(zip(header, row.cells, strict=True))) for row in rows[1:]
    )


def _objects(file: Path, text: str) -> Iterator[ForeignEntry]:
    """The objects of a list, or of lines, each with its line."""
    whole = parse_json(file, text) if text.lstrip().startswith("[") else None
    decoder = json.JSONDecoder()
    position, line = 0, 1

    def skip(signs: str) -> None:
        nonlocal position, line
        while position < len(text) and text[position] in signs:
            line += text[position] == "\n"
            position += 1

    skip(" \t\r\n" if whole is None else " \t\r\n[")
    for index in range(len(whole) if isinstance(whole, list) else len(text)):
        if position >= len(text):
            return
        try:
            _, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise one_problem(file, f"not JSON: {error.msg}", error.lineno) from error
        except (ValueError, RecursionError) as error:
            raise one_problem(file, f"not JSON that can be read: {error}", line) from error
        value = whole[index] if isinstance(whole, list) else parse_json(file, text[position:end], line)
        if not isinstance(value, dict):
            raise one_problem(file, "each entry must be an object", line, value=text[position:end])
        yield ForeignEntry(line, value)
        line += text.count("\n", position, end)
        position = end
        skip(" \t\r\n" if whole is None else " \t\r\n,")
