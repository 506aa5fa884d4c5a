"""A foreign file as entries: the rows of a CSV, the objects of a JSON list, or one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.preferences.key import parse_json, read_text
from eval.preferences.problem import PreferenceError, Problem, one_problem
from eval.preferences.table import parsed


@dataclass(frozen=True)
class Entry:
    """One row or object; `line` is the physical line in which it starts. The cells of a CSV are texts."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A foreign file: its columns (the keys of its objects) and its entries."""

    file: Path
    columns: tuple[str, ...]
    entries: tuple[Entry, ...]


def read_source(file: Path) -> Source:
    """Reads a foreign file. Raises PreferenceError."""
    text = read_text(file)
    if text.lstrip()[:1] in ("[", "{"):
        entries = tuple(_objects(file, text))
        columns = tuple(dict.fromkeys(name for entry in entries for name in entry.values))
    else:
        columns, entries = _table(file, text)
    if not entries:
        raise one_problem(file, "holds no entries")
    return Source(file, columns, entries)


def _table(file: Path, text: str) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
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
    return header, tuple(Entry(row.line, dict(zip(header, row.cells, strict=True))) for row in rows[1:])


def _objects(file: Path, text: str) -> Iterator[Entry]:
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
        yield Entry(line, value)
        line += text.count("\n", position, end)
        position = end
        skip(" \t\r\n" if whole is None else " \t\r\n,")
