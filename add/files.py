"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write UTF-8 text with its line ends as they are; a killed writer leaves the old file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(text.encode("utf-8"))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
