"""Which foreign formats of votes are there, and which one is a file in? Told by its header, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.preferences.importers import evalica, hpdv2, label_studio, lmarena, pickapic
from eval.preferences.importers.build import Imported
from eval.preferences.importers.entries import ForeignFile, Options, read_source
from eval.preferences.record import COLUMNS, one_problem

__all__ = ["FORMATS", "Format", "Imported", "Options", "detect", "import_votes"]


@dataclass(frozen=True)
class Format:
    """headers: sets of columns; a file that has all columns of one of them is in this format."""

    convert: Callable[[ForeignFile, Options], Imported]
    headers: tuple[tuple[str, ...], ...]


FORMATS: Mapping[str, Format] = {
    "lmarena": Format(lmarena.convert, (lmarena.COLUMNS, lmarena.COLUMNS_55K)),
    "evalica": Format(evalica.convert, (evalica.COLUMNS,)),
    "pickapic": Format(pickapic.convert, (pickapic.COLUMNS,)),
    "hpdv2": Format(hpdv2.convert, (hpdv2.TRAIN_COLUMNS, hpdv2.TEST_COLUMNS)),
    "label-studio": Format(label_studio.convert, (label_studio.JSON_COLUMNS, label_studio.FLAT_COLUMNS)),
}


def import_votes(file: Path, options: Options, name: str = "auto") -> Imported:
    """The votes of a foreign file. name: a key of FORMATS, or auto. Raises PreferenceError with every problem."""
    source = read_source(file)
    name = detect(source) if name == "auto" else name
    if not _fits(FORMATS[name], source):
        raise one_problem(file, f"is not in the format {name}: {_lacks(FORMATS[name], source)}", 1)
    return FORMATS[name].convert(source, options)


def detect(source: ForeignFile) -> str:
    """The one format whose columns the file has. Raises PreferenceError where there is none, or more than one."""
    if source.columns == COLUMNS:
        raise one_problem(source.file, "is in this project's own schema already; use check", 1)
    found = [name for name, known in FORMATS.items() if _fits(known, source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise one_problem(
            source.file, f"may be in the formats {' and '.join(found)}; say which with --format", 1
        )
    lacks = "; ".join(f"{name} {_lacks(known, source)}" for name, known in FORMATS.items())
    raise one_problem(source.file, f"is in no known format: {lacks}", 1)


def _fits(known: Format, source: ForeignFile) -> bool:
    return any(set(header) <= set(source.columns) for header in known.headers)


def _lacks(known: Format, source: ForeignFile) -> str:
    missing = min(([n for n in header if n not in source.columns] for header in known.headers), key=len)
    return f"lacks the columns {', '.join(missing)}"
