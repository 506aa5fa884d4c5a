"""Reads and writes preference files: strictly, and with every problem of a file at once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.config.yaml import nearest
from add.files import write_whole
from eval.preferences.checks import Resolver, Seen, cell_problems, pair_problems
from eval.preferences.damage import decoded, mixes_encodings
from eval.preferences.key import KEY_SUFFIX, StudyKey, read_keys
from eval.preferences.record import COLUMNS, PreferenceError, Problem, Vote, one_problem

_MUST_QUOTE = re.compile(r'[",\r\n]|^\s|\s$')
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_COMPANIONS = (".md", KEY_SUFFIX)


def read_votes(
    file: Path,
    systems: Collection[str] | None = None,
    keys: Mapping[str, StudyKey] | None = None,
    seen: Seen | None = None,
    prompts: Mapping[str, str] | None = None,
) -> tuple[Vote, ...]:
    """The votes of one file, in order. Raises PreferenceError with every problem.

    keys: {study: key}; codes of these studies are replaced by names, and codes that the key lacks are refused.
    systems: the names that may occur after that; None takes every name. seen: the votes of other files, which these
    may not repeat or contradict. prompts: {prompt id: prompt} of all that may occur; None takes every prompt.
    """
    return read_files([file], systems, keys or {}, seen=seen, prompts=prompts)


def read_files(
    files: Iterable[Path],
    systems: Collection[str] | None,
    keys: Mapping[str, StudyKey],
    csv_only: bool = False,
    seen: Seen | None = None,
    prompts: Mapping[str, str] | None = None,
) -> tuple[Vote, ...]:
    """The votes of several files, as `read_votes` reads them; a vote that is in two files is refused.

    csv_only: refuse other files unread.
    """
    resolver, seen = Resolver(systems, keys, prompts), seen or Seen()
    votes: list[Vote] = []
    problems: list[Problem] = []
    for file in files:
        if csv_only and (file.suffix != ".csv" or file.is_dir()):
            reason = (
                "is no preference file (*.csv) and no key file; votes in it would be lost: convert or move it"
            )
            problems.append(Problem(file, 0, "", "", reason))
            continue
        found, wrong = _read(file, resolver, seen)
        votes += found
        problems += wrong
    if problems:
        raise PreferenceError(problems)
    return tuple(votes)


def read_folder(
    folder: Path,
    systems: Collection[str] | None = None,
    keys: Mapping[str, StudyKey] | None = None,
    seen: Seen | None = None,
    prompts: Mapping[str, str] | None = None,
) -> tuple[Vote, ...]:
    """The votes of all *.csv of a folder, files in sorted order. Raises PreferenceError with every problem.

    keys: those of the folder's *.key.json if None. A vote that is in two files is refused, and so is a file that
    is neither votes nor key (a spreadsheet, say): it may hold votes. Notes (*.md) and hidden files are passed over.
    A folder without votes gives none; a folder that is not there is refused.
    """
    if not folder.is_dir():
        raise one_problem(folder, "is no folder")
    known = read_keys(folder) if keys is None else keys
    shown = (file for file in sorted(folder.iterdir()) if not file.name.startswith("."))
    files = (file for file in shown if not file.name.endswith(_COMPANIONS))
    return read_files(files, systems, known, csv_only=True, seen=seen, prompts=prompts)


def write_votes(file: Path, votes: Sequence[Vote]) -> None:
    """Writes a preference file, whole or not at all; read_votes gives the same votes back.

    Raises PreferenceError for votes that read_votes would refuse, so that no file is written that cannot be read.
    """
    numbered = []
    line = 2
    for vote in votes:
        numbered.append(dataclasses.replace(vote, line=line))
        line += 1 + vote.prompt.count("\n")
    check_votes(file, numbered)
    rows = [COLUMNS, *([str(getattr(vote, name)) for name in COLUMNS] for vote in votes)]
    # Not csv.writer: it leaves a carriage return without quotes where lines end in LF.
    write_whole(file, "".join(",".join(map(_quoted, row)) + "\n" for row in rows))


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _MUST_QUOTE.search(cell) else cell


def check_votes(file: Path, votes: Sequence[Vote]) -> None:
    """Holds votes against every rule that needs no bytes. Raises PreferenceError with the votes' own lines."""
    if not votes:
        raise one_problem(file, "holds no votes")
    seen = Seen()
    problems: list[Problem] = []
    for vote in votes:
        cells = {name: getattr(vote, name) for name in COLUMNS}
        found = [*cell_problems(cells), *pair_problems(cells)]
        problems += [Problem(file, vote.line, *problem) for problem in found]
        if not found:
            problems += seen.problems(vote, file)
    if problems:
        raise PreferenceError(problems)


def _read(file: Path, resolver: Resolver, seen: Seen) -> tuple[list[Vote], list[Problem]]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        return [], [Problem(file, 0, "", "", f"cannot be read: {error.strerror}")]
    text, faults = decoded(raw)
    problems = [Problem(file, line, "", "", reason) for line, reason in faults]
    if not text:
        return [], problems
    rows, fault = parsed(text)
    problems += _header_problems(file, rows[0] if rows else None, text)
    broken = []
    if fault is not None:
        column = COLUMNS[fault.place] if fault.place < len(COLUMNS) else ""
        reason = f"{fault.reason} (the rest of the file was not read)"
        broken = [Problem(file, fault.line, column, fault.value, reason)]
    if not rows:
        return [], problems + broken
    if rows[0].cells != COLUMNS:
        return [], problems
    if len(rows) == 1 and not broken:
        problems.append(Problem(file, 1, "", "", "holds the header and no votes; was the export cut off?"))
    mixed = mixes_encodings(text)
    votes: list[Vote] = []
    for row in rows[1:]:
        found = _vote(row, resolver, mixed)
        if isinstance(found, Vote):
            votes.append(found)
            problems += seen.problems(found, file)
        else:
            problems += [Problem(file, row.line, *problem) for problem in found]
    return votes, problems + broken


def _vote(row: CsvRow, resolver: Resolver, mixed: bool) -> Vote | list[tuple[str, str, str]]:
    """The vote of a row, or (column, value, reason) of what is wrong with it."""
    if wrong := _shape_problem(row):
        return [wrong]
    cells = dict(zip(COLUMNS, row.cells, strict=True))
    problems = list(cell_problems(cells, mixed))
    bad = {column for column, _, _ in problems}
    if not bad & {"system_a", "system_b", "image_a", "image_b", "attention_check"}:
        problems += pair_problems(cells)
    if not bad & {"system_a", "system_b", "image_a", "image_b", "study"}:
        same_codes = bool(problems)
        problems += resolver.resolve(cells)
        if not same_codes and not problems:
            problems += pair_problems(cells)  # two codes may stand for one system
    if not bad & {"prompt_id", "prompt"}:
        problems += resolver.prompt_problems(cells)
    if problems:
        return problems
    values: dict[str, Any] = cells
    return Vote(**values, line=row.line)


def _shape_problem(row: CsvRow) -> tuple[str, str, str] | None:
    count, wanted = len(row.cells), len(COLUMNS)
    if row.cells == ("",):
        return "", "", "is an empty line; delete it"
    if row.cells == COLUMNS:
        return "", "", "repeats the header; were files joined? delete the line"
    if not any(cell.strip() for cell in row.cells):
        return "", "", "is a row of empty cells, as a spreadsheet leaves behind; delete it"
    if count > wanted:
        hint = "a prompt with a comma must be in double quotes"
        return "", ",".join(row.cells[wanted:]), f"has {count} cells, the header has {wanted}; {hint}"
    if count < wanted:
        missing = f"{', '.join(COLUMNS[count:])} missing; was it cut off?"
        return COLUMNS[count], "", f"has {count} cells, the header has {wanted}: {missing}"
    return None


def _header_problems(file: Path, header: CsvRow | None, text: str) -> Iterator[Problem]:
    if header is None or header.cells == COLUMNS:
        return
    first = text.split("\n", 1)[0].strip()
    if first.startswith("sep="):
        yield Problem(file, 1, "", first, "is a spreadsheet's hint, not a header; delete the line")
        return
    for separator, name in _OTHER_SEPARATORS.items():
        if first.count(separator) >= len(COLUMNS) // 2:
            yield Problem(file, 1, "", first, f"is separated by {name}; save the file with commas")
            return
    cells = header.cells
    if not set(cells) & set(COLUMNS):
        reason = f"is no header of a preference file; the first line must be {','.join(COLUMNS)}"
        yield Problem(file, 1, "", first, reason)
        return
    yield from (Problem(file, 1, *problem) for problem in _column_problems(cells))


def _column_problems(cells: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    missing = [name for name in COLUMNS if name not in cells]
    for place, name in enumerate(cells):
        if name not in COLUMNS:
            what = f"is {'an unknown column' if name else 'a column without a name'} (number {place + 1})"
            yield name, name, what + (nearest(name, missing) if missing else "; delete it in every row")
        elif cells.index(name) < place:
            yield name, name, "is in the header twice"
    for name in missing:
        yield name, "", f"the column is missing; the header must be {','.join(COLUMNS)}"
    if not missing and len(cells) == len(COLUMNS):
        place = next(i for i, name in enumerate(cells) if name != COLUMNS[i])
        reason = f"stands where {COLUMNS[place]} must stand; the columns have a fixed order"
        yield cells[place], cells[place], reason


@dataclass(frozen=True)
class CsvRow:
    """The cells of one row; `line` is the physical line in which it starts, 1-based."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class CsvFault:
    """Where the text stops being CSV: in the cell `place` (0-based) of the row that starts in `line`."""

    line: int
    place: int
    value: str
    reason: str


_CELL = re.compile(r'"((?:[^"]|"")*+)"|[^",\r\n]*')
_RETURN = "a line ends with a bare carriage return, as on old Macs; save the file with LF or CRLF line ends"
_QUOTE = "has a quote in a cell without quotes around it; put the cell in quotes, and double the quote"
_UNCLOSED = "a quote is opened and never closed, to the end of the file; close it"


def parsed(text: str) -> tuple[list[CsvRow], CsvFault | None]:
    """The rows up to the first place that is not CSV (RFC 4180), and what is wrong there. Lines end in LF or CRLF.

    Not by csv's strict reader: it takes a quote inside a cell without quotes and bare carriage returns at the end of
    a line, and does not say in which cell it stopped.
    """
    rows: list[CsvRow] = []
    cells: list[str] = []
    start, at, line = 0, 0, 1  # where the row starts, where its next cell does, and the row's physical line
    while at < len(text) or cells:
        cell = _CELL.match(text, at)
        assert cell is not None  # for mypy: the pattern matches nothing, too
        quoted, at = cell[1] is not None, cell.end()
        value = cell[1].replace('""', '"') if quoted else cell[0]
        end = text[at : at + 1]
        ends_row = not end or text.startswith(("\n", "\r\n"), at)
        if ends_row or end == ",":
            cells.append(value)
            at += 2 if end == "\r" else 1
            if ends_row:
                rows.append(CsvRow(line, tuple(cells)))
                line += text.count("\n", start, at)
                start, cells = at, []
            continue
        if end == "\r":
            reason = _RETURN
        elif quoted:
            reason = f"has {end!r} after its closing quote; a quote inside a cell must be doubled"
        elif value:
            value, reason = value + end, _QUOTE
        else:
            value, reason = text[at : at + 40].split("\n")[0], _UNCLOSED
        return rows, CsvFault(line, len(cells), value, reason)
    return rows, None
