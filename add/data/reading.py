"""A file's bytes, text, JSON or rows; one that is not what it should be is refused with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from add.errors import InputError


def file_bytes(file: Path) -> bytes:
    """A file's bytes. Raises InputError where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def utf8_text(file: Path) -> str:
    """A file's text in UTF-8 without a byte order mark. Raises InputError with the line that is not."""
    raw = file_bytes(file)
    if raw.startswith(b"\xef\xbb\xbf"):
        raise InputError(file, "line 1", "starts with a byte order mark; save it as UTF-8 without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        reason = f"byte {raw[error.start]:#04x} is not UTF-8 ({error.reason})"
        raise InputError(file, f"line {line}", reason) from error


def json_object(raw: str | bytes, name: object) -> dict[str, Any]:
    """The JSON object in UTF-8 that `raw` is. Raises InputError with `name`, and the line, where it is none."""
    try:
        content = json.loads(raw if isinstance(raw, str) else raw.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(name, f"line {error.lineno}", f"not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        # Another encoding; a number of thousands of digits; deep nesting.
        raise InputError(name, f"not JSON in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise InputError(name, "holds no JSON object")
    return content


def csv_rows(
    file: Path, delimiter: str = ",", quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, list[str]]]:
    """The line and the fields of each row of a table in UTF-8, its header first; nothing of an empty file.

    Raises InputError with the line: quotes that do not fit, a row that has not the header's number of fields.
    """
    reader = csv.reader(
        io.StringIO(utf8_text(file), newline=""), delimiter=delimiter, quoting=quoting, strict=True
    )
    fields = None
    try:
        for row in reader:
            fields = len(row) if fields is None else fields
            if len(row) != fields:
                kind = "tab-separated fields" if delimiter == "\t" else "fields"
                reason = f"has {len(row)} {kind}, the header has {fields}"
                raise InputError(file, f"line {reader.line_num}", reason)
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(file, f"line {max(reader.line_num, 1)}", f"no row of a table: {error}") from None
