"""A CSV file as rows of cells, each with the physical line in which it starts. RFC 4180, and nothing looser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_PLAIN = re.compile(r'[^",\r\n]*')
_MUST_QUOTE = re.compile(r'[",\r\n]|^\s|\s$')


@dataclass(frozen=True)
class Row:
    """The cells of one row; `line` is the physical line in which it starts, 1-based."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """Where the text stops being CSV: in the cell `place` (0-based) of the row that starts in `line`."""

    line: int
    place: int
    value: str
    reason: str


def parsed(text: str, separator: str = ",") -> tuple[list[Row], Fault | None]:
    """The rows up to the first place that is not CSV, and what is wrong there. Line ends are LF or CRLF."""
    rows: list[Row] = []
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        stop = len(text) if end < 0 else end
        content = text[position:stop]
        if '"' not in content and "\r" not in content.removesuffix("\r"):  # most rows: no need to look closer
            if end < 0 and content.endswith("\r"):
                return rows, Fault(line, 0, content[-20:], _BARE_RETURN)
            rows.append(Row(line, tuple(content.removesuffix("\r").split(separator))))
            position, line = stop + 1, line + 1
            continue
        found = _row(text, position, line, separator)
        if isinstance(found, Fault):
            return rows, found
        cells, following = found
        rows.append(Row(line, cells))
        line += text.count("\n", position, following)
        position = following
    return rows, None


_BARE_RETURN = (
    "a line ends with a bare carriage return, as on old Macs; save the file with LF or CRLF line ends"
)


def _row(text: str, position: int, line: int, separator: str) -> tuple[tuple[str, ...], int] | Fault:
    """The cells of the row at `position`, and where the next row starts."""
    cells: list[str] = []
    plain = _PLAIN if separator == "," else re.compile(rf'[^"{re.escape(separator)}\r\n]*')
    while True:
        if text.startswith('"', position):
            match = _QUOTED.match(text, position)
            if match is None:
                value = text[position : position + 40].split("\n")[0]
                reason = "a quote is opened and never closed, to the end of the file; close it"
                return Fault(line, len(cells), value, reason)
            cells.append(match[1].replace('""', '"'))
        else:
            match = plain.match(text, position)
            assert match is not None
            cells.append(match[0])
        position = match.end()
        if text.startswith(separator, position):
            position += 1
        elif text.startswith(("\n", "\r\n"), position):
            return tuple(cells), text.index("\n", position) + 1
        elif position == len(text):
            return tuple(cells), position
        elif text[position] == "\r":
            return Fault(line, len(cells) - 1, cells[-1], _BARE_RETURN)
        elif text[position] == '"':
            reason = (
                "has a quote in a cell without quotes around it; put the cell in quotes, and double the quote"
            )
            return Fault(line, len(cells) - 1, cells[-1] + '"', reason)
        else:
            reason = f"has {text[position]!r} after its closing quote; a quote inside a cell must be doubled"
            return Fault(line, len(cells) - 1, cells[-1], reason)


def written(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV with LF line ends; `parsed` gives them back exactly."""
    return "".join(",".join(map(_quoted, row)) + "\n" for row in rows)


def _quoted(cell: str) -> str:
    if _MUST_QUOTE.search(cell):
        return '"' + cell.replace('"', '""') + '"'
    return cell
