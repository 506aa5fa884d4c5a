"""The foreign formats of votes. A file's format is told by its header, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.preferences.importers import datasets, label_studio
from eval.preferences.importers.build import ForeignFile, Imported, Options, read_source
from eval.preferences.record import COLUMNS, one_problem


@dataclass(frozen=True)
class VoteFormat:
    """headers: sets of columns; a file that has all columns of one of them is in this format."""

    convert: Callable[[ForeignFile, Options], Imported]
    headers: tuple[tuple[str, ...], ...]


FORMATS: Mapping[str, VoteFormat] = {
    "lmarena": VoteFormat(datasets.lmarena, (datasets.LMARENA_COLUMNS, datasets.LMARENA_55K_COLUMNS)),
    "evalica": VoteFormat(datasets.evalica, (datasets.EVALICA_COLUMNS,)),
    "pickapic": VoteFormat(datasets.pickapic, (datasets.PICKAPIC_COLUMNS,)),
    "hpdv2": VoteFormat(datasets.hpdv2, (datasets.HPDV2_TRAIN_COLUMNS, datasets.HPDV2_TEST_COLUMNS)),
    "label-studio": VoteFormat(label_studio.convert, (label_studio.JSON_COLUMNS, label_studio.FLAT_COLUMNS)),
}


def import_votes(file: Path, options: Options, name: str = "auto") -> Imported:
    """The votes of a foreign file. name: a key of FORMATS, or auto. Raises PreferenceError with every problem."""
    source = read_source(file)
    name = detect(source) if name == "auto" else name
    if missing := _missing(name, source):
        raise one_problem(file, f"is not in the format {name}: lacks the columns {missing}", 1)
    return FORMATS[name].convert(source, options)


def detect(source: ForeignFile) -> str:
    """The one format whose columns the file has. Raises PreferenceError where there is none, or more than one."""
    if source.columns == COLUMNS:
        raise one_problem(source.file, "is in this project's own schema already; use check", 1)
    missing = {name: _missing(name, source) for name in FORMATS}
    found = [name for name in FORMATS if not missing[name]]
    if len(found) == 1:
        return found[0]
    if found:
        reason = f"may be in the formats {' and '.join(found)}; say which with --format"
        raise one_problem(source.file, reason, 1)
    lacks = "; ".join(f"{name} lacks the columns {columns}" for name, columns in missing.items())
    raise one_problem(source.file, f"is in no known format: {lacks}", 1)


def _missing(name: str, source: ForeignFile) -> str:
    """The columns that the file lacks, of the format's header that fits best; empty where it is in the format."""
    headers = FORMATS[name].headers
    lacking: list[list[str]] = [[name for name in header if name not in source.columns] for header in headers]
    fewest = min(lacking, key=len)
    return ", ".join(fewest)
