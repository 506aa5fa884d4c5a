"""A copy of the repository's settings in a temporary directory, and edits of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import Table, resolve
from add.config.scale import Scale

ROOT = Path(__file__).parents[2]

ONE_ROW = """\
part: g
question: lambda
rows:
  - label: lambda 1
    set: {loss.distillation_weight: 1.0}
"""


def copy_settings(to: Path) -> Path:
    """ablations/, config/ and systems/ below `to`."""
    for folder in ("ablations", "config", "systems"):
        shutil.copytree(ROOT / folder, to / folder)
    return to


def edit(path: Path, old: str, new: str) -> int:
    """Replace the first `old`, which must exist; returns the line that it starts on, from 1."""
    text = path.read_text("utf-8")
    assert old in text, f"{path} no longer holds {old!r}"
    path.write_text(text.replace(old, new, 1), "utf-8")
    return text[: text.index(old)].count("\n") + 1


def table_of(root: Path, scale: str = "mini") -> Table:
    """The table that the settings below `root` resolve to."""
    ablations = root / "ablations"
    return resolve(
        load_scale(root / f"config/{scale}.yaml"),
        load_baseline(ablations / "baseline.yaml"),
        load_ablations(ablations),
    )


def put(content: dict[str, Any], path: list[str], value: Any) -> None:
    """Set the value at `path` in nested mappings."""
    *sections, last = path
    for section in sections:
        content = content[section]
    content[last] = value


def changed_scale(name: str, **values: Any) -> tuple[Scale, Table]:
    """One of the project's scales with values changed (keys joined by two '_'), and its unchanged table."""
    scale = load_scale(ROOT / f"config/{name}.yaml")
    content = scale.model_dump()
    for key, value in values.items():
        put(content, key.split("__"), value)
    changed = Scale.model_validate(content)
    changed.read_from(scale.origin)
    return changed, table_of(ROOT, name)
