"""Damage to a file or to a cell of it: encodings, byte order marks, broken JSON, what spreadsheets write, times."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from datetime import datetime
from pathlib import Path
from typing import Any

from eval.preferences.record import PreferenceError, Problem, one_problem

_NO_TEXT = "not text; save it as CSV, UTF-8, with commas"
_WIDE = "('Unicode text' of a spreadsheet); save it as 'CSV UTF-8' without a mark"
_OTHER_STARTS = {
    b"PK\x03\x04": (0, f"is a spreadsheet or an archive (.xlsx, .ods, .zip), {_NO_TEXT}"),
    b"\x1f\x8b": (0, f"is compressed (gzip), {_NO_TEXT}"),
    b"\xd0\xcf\x11\xe0": (0, f"is an old spreadsheet (.xls), {_NO_TEXT}"),
    b"PAR1": (0, f"is a Parquet file, {_NO_TEXT}"),
    b"\xff\xfe\x00\x00": (1, f"is UTF-32 {_WIDE}"),
    b"\x00\x00\xfe\xff": (1, f"is UTF-32 {_WIDE}"),
    b"\xff\xfe": (1, f"is UTF-16 {_WIDE}"),
    b"\xfe\xff": (1, f"is UTF-16 {_WIDE}"),
}

_JSON_SPACE = " \t\r\n"
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Unicode's default ignorable characters that are no format characters, and the blank of Braille."""

_FORMULA_STARTS = "=+-@"
_FORMULA = re.compile(
    r"""=\s*(?:[A-Za-z_][\w.]*\s*\(|\$?[A-Za-z]{1,3}\$?[0-9]+\b|[-+@("'0-9])|[=+@-][^|]*\|.*!""", re.S
)
_ERRORS = ("#NAME?", "#REF!", "#VALUE!", "#N/A", "#DIV/0!", "#NUM!", "#NULL!")
_NOTHING = ("nan", "none", "null", "na", "n/a", "<na>", "nat")
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    rf"[0-9]{{1,2}}[-./ ]{MONTH}(?:[-./ ][0-9]{{2,4}})?|{MONTH}[-./ ][0-9]{{1,4}}"
    r"|[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2}(?:[0-9]{2})?",
    re.I,
)
_SCIENTIFIC = re.compile(r"[0-9](?:[.,][0-9]+)?E[+-][0-9]{2,3}")  # with a sign: 58210e39 is a good hash


def decoded(raw: bytes) -> tuple[str, list[tuple[int, str]]]:
    """The text of a file, without its byte order mark, and (line, what is wrong with the file as a whole).

    The text is empty where the rest of the file cannot be judged.
    """
    if not raw:
        return "", [(0, "is empty: 0 bytes; did the export fail?")]
    for start, problem in _OTHER_STARTS.items():
        if raw.startswith(start):
            return "", [problem]
    if raw.count(0) * 4 > len(raw):
        return "", [(1, "is UTF-16 without a mark (every second byte is zero); save it as UTF-8")]
    problems = []
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw.removeprefix(codecs.BOM_UTF8)
        problems.append((1, "starts with a byte order mark (EF BB BF); save it as UTF-8 without one"))
    if not raw.strip():
        return "", [*problems, (0, "is empty: it holds nothing but white space")]
    return raw.decode("utf-8", errors="surrogateescape"), problems


def mixes_encodings(text: str) -> bool:
    """Whether text that `decoded` made has letters of both kinds: some that are UTF-8, some that are not."""
    return any("\x80" <= c < "\udc80" or c > "\udcff" for c in text) and has_bad_bytes(text)


def has_bad_bytes(text: str) -> bool:
    """Whether some byte was not UTF-8."""
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def read_text(file: Path) -> str:
    """A text file in UTF-8 without a byte order mark. Raises PreferenceError."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise one_problem(file, f"cannot be read: {error.strerror}") from error
    text, faults = decoded(raw)
    if faults:
        raise PreferenceError([Problem(file, line, "", "", reason) for line, reason in faults])
    if has_bad_bytes(text):
        place = next(i for i, char in enumerate(text) if "\udc80" <= char <= "\udcff")
        reason = f"byte {ord(text[place]) - 0xDC00:#04x} is not UTF-8; save the file as UTF-8"
        raise one_problem(file, reason, text.count("\n", 0, place) + 1)
    return text


def parse_json(file: Path, text: str) -> Any:
    """The one value that a JSON file's text holds. Raises PreferenceError."""
    value, end = json_value(file, text, len(text) - len(text.lstrip(_JSON_SPACE)))
    if text[end:].strip(_JSON_SPACE):
        raise one_problem(file, "not JSON: more follows after its end", text.count("\n", 0, end) + 1)
    return value


def json_value(file: Path, text: str, start: int = 0, line: int = 1) -> tuple[Any, int]:
    """The JSON value at `start`, which is in `line`, and where it ends. Raises PreferenceError.

    A field that is in one object twice, and numbers that JSON does not have, are refused.
    """

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise one_problem(file, "the field is there twice in one object", line, name)
            found[name] = value
        return found

    def constant(name: str) -> Any:
        raise one_problem(file, "is no number of JSON; say what is meant", line, value=name)

    decoder = json.JSONDecoder(object_pairs_hook=fields, parse_constant=constant)
    try:
        return decoder.raw_decode(text, start)
    except PreferenceError:
        raise
    except json.JSONDecodeError as error:
        raise one_problem(file, f"not JSON: {error.msg}", error.lineno) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists thousands deep
        raise one_problem(file, f"not JSON that can be read: {error}", line) from error


def cell_damage(value: str, is_text: bool, mixed: bool = False) -> str | None:
    """What is wrong with a cell that is not empty, whatever its column; None if nothing is.

    is_text: the cell is a prompt, in which line breaks, white space at the ends and most signs are allowed.
    mixed: other cells of the file hold letters that are UTF-8, so the file has two encodings.
    """
    if not value.isprintable() and (reason := _odd_character(value, is_text, mixed)):
        return reason
    if "\ufffd" in value:
        return (
            "holds U+FFFD: a letter was lost when an earlier program read a wrong encoding; export it again"
        )
    if value in _ERRORS:
        return "is what a spreadsheet writes for a broken formula; restore the cell from the original export"
    if is_text:
        if _FORMULA.match(value):
            return "starts like a spreadsheet formula, and a spreadsheet would run it; it is not a prompt"
        return None if value.strip() else "holds nothing but white space"
    if (reason := _damaged_id(value)) is None and (char := next(filter(_unseen, value), None)):
        reason = f"holds the invisible character U+{ord(char):04X}; delete it"
    return reason


def _odd_character(value: str, is_text: bool, mixed: bool) -> str | None:
    for char in value:
        if "\udc80" <= char <= "\udcff":
            byte = ord(char) - 0xDC00
            letter = bytes([byte]).decode("cp1252", errors="replace")
            mix = "other cells are UTF-8, so the file mixes two encodings"
            why = mix if mixed else "the file may be Latin-1"
            return f"byte {byte:#04x} ({letter!r} in Windows-1252) is not UTF-8; {why}; export all of it as UTF-8"
        if char == "\ufeff":
            return "holds a byte order mark (U+FEFF); were files joined? join them again without their marks"
        if char == "\0":
            return "holds a NUL byte; the file is damaged, export it again"
        kind = unicodedata.category(char)
        if kind == "Cc" and not (is_text and char in "\t\n\r"):
            return f"holds the control character U+{ord(char):04X}; delete it"
        if kind == "Cs":
            return f"holds half a character (U+{ord(char):04X}); export it again as UTF-8"
    return None


def _unseen(char: str) -> bool:
    """Whether a character of an id shows as nothing, or as a space that is none: two ids would look alike."""
    kind = unicodedata.category(char)
    return kind == "Cf" or (kind == "Zs" and char != " ") or _IGNORABLE.match(char) is not None


def _damaged_id(value: str) -> str | None:
    if value != value.strip():
        if not value.strip():
            return "holds nothing but white space"
        side = "ends" if value == value.lstrip() else "starts"
        return f"{side} with white space, so it would count as another value; delete the white space"
    if value[0] in _FORMULA_STARTS:
        return f"starts with {value[0]!r}, which a spreadsheet takes for a formula; rename it"
    if value.lower() in _NOTHING:
        return "is what programs write for an empty cell; give the real value"
    if _SCIENTIFIC.fullmatch(value):
        return "is a number in scientific notation: a spreadsheet rounded an id; restore it from the original export"
    if _DATE.fullmatch(value):
        return "is a date: a spreadsheet took an id for one; restore it from the original export"
    return None


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
_WANTED = "write ISO 8601 in UTC, such as 2026-11-21T13:22:05Z"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:\s*[AaPp][Mm])?"
_FOREIGN_TIMES = {
    rf"[0-9]{{1,4}}[./-][0-9]{{1,2}}[./-][0-9]{{1,4}}(?:[ ,]+{_CLOCK})?": (
        "is a date as a spreadsheet writes it: its order of day and month is not known"
    ),
    _CLOCK: "has no date",
    r"[0-9]{5}(?:[.,][0-9]+)?": "is a spreadsheet's serial number for a date",
    r"[0-9]{10,19}(?:\.[0-9]+)?": "is Unix time",
    r"[0-9]+(?:[.,][0-9]+)?E[+-]?[0-9]+": "is a number that a spreadsheet rounded",
    r".*[0-9]t[0-9].*|.*z": "has a small t or z",
}


def time_problem(value: str) -> str | None:
    """None for a good time; otherwise what is wrong with it."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        if _TIME.fullmatch(value):
            return f"is no moment of the calendar; {_WANTED}"
    else:
        if _TIME.fullmatch(value):
            return None
        if reason := _other_iso(value, moment):
            return f"{reason}; {_WANTED}"
    for pattern, reason in _FOREIGN_TIMES.items():
        if re.fullmatch(pattern, value):
            return f"{reason}; {_WANTED}"
    return f"is no time; {_WANTED}, or unknown"


def _other_iso(value: str, moment: datetime) -> str | None:
    """What keeps a moment of ISO 8601 from being a time of a vote; None where its form says nothing more."""
    if ":" not in value and "T" not in value:
        return "has no time of day"
    if moment.tzinfo is not None and "Z" not in value:
        return "is not in UTC: it has an offset; convert it to UTC"
    if value[10:11] == " ":
        return "has a space between date and time, as pandas and spreadsheets write it"
    return "has no zone; add Z if it is UTC, or convert it" if moment.tzinfo is None else None
