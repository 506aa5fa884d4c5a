"""The table of the repository in the working directory, at one scale, and how its values are shown as text."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from add.config.load import ABLATIONS, baseline_file, load_ablations, load_baseline, load_scale
from add.config.resolve import Table, resolve
from add.config.run import Run
from add.config.scale import Scale
from add.config.yaml import SpecError, nearest, raise_all
from add.errors import InputError
from addbench.workflow import ComparedSystems, ablations_folder, plan_compared, results_folder, scale_file

CONFIG = Path("config")
RESULTS = Path("results")
DEFAULT_SCALE = "mini"

_LOADED = TypeVar("_LOADED")
_ERROR = TypeVar("_ERROR", bound=InputError)


class UnknownRunError(InputError):
    """No run of the table has this name."""


@dataclass(frozen=True)
class Project:
    """A scale and the table that a folder of ablations makes with it. results: where its runs lie."""

    scale: Scale
    table: Table
    ablations: Path
    results: Path

    def compared(self) -> ComparedSystems:
        """The systems and the study beside the table. Raises SpecError with every unknown name."""
        whole = self.ablations == ABLATIONS
        return plan_compared(self.scale, self.table, self.results.as_posix(), whole=whole)

    def run(self, name: str) -> Run:
        """The run of this name. Raises UnknownRunError."""
        if name not in self.table.runs:
            hint = nearest(name, self.table.runs)
            raise UnknownRunError(f"scale '{self.scale.name}' has no run '{name}'{hint}")
        return self.table.runs[name]


def project_options() -> argparse.ArgumentParser:
    """A parent for a parser: `--scale` and `--ablations`, before a subcommand or after it.

    Where they are not given they set nothing, or a subcommand would hide what stood before it.
    """
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    text = "a name in config/ or a YAML file (default: mini; validate: every scale in config/)"
    shared.add_argument("--scale", metavar="SCALE", help=text)
    text = "the folder of the questions (default: ablations); one without a baseline.yaml has the project's"
    shared.add_argument("--ablations", type=_folder, metavar="FOLDER", help=text)
    return shared


def _folder(text: str) -> Path:
    try:
        return ablations_folder(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def load_project(scale: str | None, ablations: Path = ABLATIONS) -> Project:
    """The project in the working directory. Raises SpecError with every problem of every file.

    ablations: the folder of the questions; one without a baseline.yaml has the project's.
    """
    problems: list[SpecError] = []
    loaded: list[Any] = [
        attempt(SpecError, problems, load_scale, scale_path(scale)),
        attempt(SpecError, problems, load_baseline, baseline_file(ablations)),
        attempt(SpecError, problems, load_ablations, ablations),
    ]
    raise_all(problems)
    return project_of(loaded[0], resolve(*loaded), ablations)


def project_of(scale: Scale, table: Table, ablations: Path) -> Project:
    """These as a project. Raises SpecError with what is wrong with the files of the project's own folder."""
    return Project(scale, table, ablations, Path(results_folder(scale, ablations, table)))


def attempt(
    kind: type[_ERROR], problems: list[_ERROR], action: Callable[..., _LOADED], *arguments: Any
) -> _LOADED | None:
    """What `action` returns; where it raises an error of this kind, None, and the error is added to `problems`."""
    try:
        return action(*arguments)
    except kind as error:
        problems.append(error)
        return None


def scale_path(scale: str | None) -> Path:
    """The file of a scale, by its name in config/ or as a path to YAML; of None, the default's. Raises SpecError."""
    path = Path(scale_file(DEFAULT_SCALE if scale is None else scale))
    if not path.is_file():
        known = [file.stem for file in sorted(CONFIG.glob("*.yaml"))]
        raise SpecError(path.as_posix(), 1, f"no such scale{nearest(path.stem, known)}")
    return path


def values(run: Run) -> dict[str, Any]:
    """A run's values by dotted key, as rows name them; without the run's name."""
    return flat(run.model_dump(mode="json"))


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a run that is already JSON, perhaps written by another version of this program."""
    found = {".".join(path): value for path, value in walk(spec) if not is_section(value)}
    found.pop("name", None)
    return {key.removeprefix("variant."): value for key, value in found.items()}


def walk(node: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each entry of nested mappings, in order, with the keys that lead to it; a section comes before its entries."""
    for key, value in node.items():
        yield (*above, key), value
        if is_section(value):
            yield from walk(value, (*above, key))


def is_section(value: Any) -> bool:
    """Whether a value has entries of its own."""
    return isinstance(value, Mapping) and len(value) > 0


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


def yaml_line(path: tuple[str, ...], value: Any) -> str:
    """An entry's line in a YAML file; the entries of a section have lines of their own."""
    start = "  " * (len(path) - 1) + f"{scalar(path[-1])}:"
    return start if is_section(value) else f"{start} {scalar(value)}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as columns of text, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, old value, new value) of each key whose values differ, NOT_SET on the side that lacks the key."""

    def shown(values: Mapping[str, Any], key: str) -> str:
        return scalar(values[key]) if key in values else NOT_SET

    def compared(values: Mapping[str, Any], key: str) -> tuple[Any, ...]:
        value = values.get(key)
        return key in values, value, isinstance(value, bool)  # True == 1 is a change, absent is not null

    keys = dict.fromkeys((*old, *new))
    return [(k, shown(old, k), shown(new, k)) for k in keys if compared(old, k) != compared(new, k)]
