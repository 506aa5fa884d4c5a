"""What do all subcommands look at? The table of the repository in the working directory, at one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.config.load import BASELINE, load_ablations, load_baseline, load_scale
from add.config.resolve import Table, resolve
from add.config.run import Run
from add.config.scale import Scale
from add.config.yaml import SpecError, nearest, raise_all
from add.errors import InputError

ABLATIONS = Path("ablations")
CONFIG = Path("config")
RESULTS = Path("results")
DEFAULT_SCALE = "mini"


class UnknownRunError(InputError):
    """No run of the table has this name."""


@dataclass(frozen=True)
class Project:
    """A scale and the table that the ablations make with it."""

    scale: Scale
    table: Table

    def run(self, name: str) -> Run:
        """The run of this name. Raises UnknownRunError."""
        if name not in self.table.runs:
            hint = nearest(name, self.table.runs)
            raise UnknownRunError(f"scale '{self.scale.name}' has no run '{name}'{hint}")
        return self.table.runs[name]


def load_project(scale: str | None) -> Project:
    """The project in the working directory. Raises SpecError with every problem of every file."""
    problems = []
    loaded: list[Any] = []
    for load, path in (
        (load_scale, scale_path(scale or DEFAULT_SCALE)),
        (load_baseline, ABLATIONS / f"{BASELINE}.yaml"),
        (load_ablations, ABLATIONS),
    ):
        try:
            loaded.append(load(path))
        except SpecError as error:
            problems.append(error)
    raise_all(problems)
    return Project(loaded[0], resolve(*loaded))


def scale_path(scale: str) -> Path:
    """A scale's file: `scale` itself where it is a path to YAML, else in config/. Raises SpecError."""
    path = Path(scale) if scale.endswith((".yaml", ".yml")) else CONFIG / f"{scale}.yaml"
    if not path.is_file():
        known = [file.stem for file in sorted(CONFIG.glob("*.yaml"))]
        raise SpecError(path.as_posix(), 1, f"no such scale{nearest(path.stem, known)}")
    return path


def values(run: Run) -> dict[str, Any]:
    """A run as one value a key, by the keys that rows use; its name is not among them."""
    return flat(run.model_dump(mode="json"))


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a run that is already JSON, and perhaps of another version of this program."""
    found = dict(_flat(spec, ""))
    found.pop("name", None)
    return {key.removeprefix("variant."): value for key, value in found.items()}


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
