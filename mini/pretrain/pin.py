"""Write the weights' hashes into a scale's YAML, so that other weights at the same place are refused."""

from __future__ import annotations

import re
from pathlib import Path

from add.weights import weights_hash

_PLACE = re.compile(r'^\s+(?:path|model):\s*"?(?:local-dir:)?(mini/weights/\w+)"?')
_HASH = re.compile(r"^(\s+sha256:\s*)(\S+)(\s*)(#.*)?$")


def pin(text: str, root: Path) -> str:
    """The YAML `text` with every `sha256` that follows a path below mini/weights set; comments stay."""
    lines: list[str] = []
    place: str | None = None
    for line in text.splitlines():
        found = _PLACE.match(line)
        if found:
            place = found[1]
        entry = _HASH.match(line)
        if entry and place:
            comment = f"  {entry[4]}" if entry[4] else ""
            line = f"{entry[1]}{weights_hash(root / place)}{comment}"
            place = None
        lines.append(line)
    return "\n".join(lines) + "\n"


def pin_file(file: Path, root: Path = Path()) -> None:
    """The same for a file, in place; `root` is the repository's."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(pin(file.read_text(encoding="utf-8"), root), encoding="utf-8")
    partial.replace(file)
