"""Is a `time` cell ISO 8601 in UTC? If not, what is it, and what is to be done?"""

from __future__ import annotations

import re
from datetime import datetime

_GOOD = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?Z")
_WANTED = "write ISO 8601 in UTC, such as 2026-11-21T13:22:05Z"
_DAY = r"(?:[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4})"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:\s*[AaPp][Mm])?"
_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
_REASONS = [
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "has no time of day"),
    (_ISO + r"\s*[+-][0-9]{2}:?[0-9]{2}", "is not in UTC: it has an offset; convert it to UTC"),
    (_ISO.replace("[T ]", "T"), "has no zone; add Z if it is UTC, or convert it"),
    (_ISO + r"Z?", "has a space between date and time, as pandas and spreadsheets write it"),
    (
        _DAY + r"(?:[ ,]+" + _CLOCK + ")?",
        "is a date as a spreadsheet writes it: its order of day and month is not known",
    ),
    (_CLOCK, "has no date"),
    (r"[0-9]{5}(?:[.,][0-9]+)?", "is a spreadsheet's serial number for a date"),
    (r"[0-9]{10,19}(?:\.[0-9]+)?", "is Unix time"),
    (r"[0-9]+(?:[.,][0-9]+)?E[+-]?[0-9]+", "is a number that a spreadsheet rounded"),
    (r".*[0-9]t[0-9].*|.*z", "has a small t or z"),
]


def time_problem(value: str) -> str | None:
    """None for a good time; otherwise what is wrong with it."""
    match = _GOOD.fullmatch(value)
    if match:
        try:
            datetime.fromisoformat(match[1])
        except ValueError:
            return f"is no moment of the calendar; {_WANTED}"
        return None
    for pattern, reason in _REASONS:
        if re.fullmatch(pattern, value):
            return f"{reason}; {_WANTED}"
    return f"is no time; {_WANTED}, or unknown"
