"""How are values shown? As YAML 1.2 on one line, in columns, and as what changed between two sets of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

NOT_SET = "(not set)"
_PLAIN = re.compile(r"[A-Za-z_][\w./'-]*( [\w./'-]+)*")
_WORDS = {"null", "true", "false"}  # plain text that YAML would take for something else


def scalar(value: Any) -> str:
    """One JSON value as YAML on one line; reading it gives the value again."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as columns of text, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, old value, new value) of each key whose values differ, NOT_SET on the side that lacks the key."""
    keys = [*old, *(key for key in new if key not in old)]
    return [(key, _side(old, key), _side(new, key)) for key in keys if not _same(old, new, key)]


def _side(values: Mapping[str, Any], key: str) -> str:
    return scalar(values[key]) if key in values else NOT_SET


def _same(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> bool:
    if key not in old or key not in new:
        return False
    return bool(old[key] == new[key]) and isinstance(old[key], bool) == isinstance(new[key], bool)
