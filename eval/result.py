"""Reads what training, sampling and scoring left behind; refuses what is missing, stale or malformed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from add.errors import InputError
from reports.study import ReportStudy

Finite = Annotated[float, Field(allow_inf_nan=False)]
Hash12 = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


class _Frozen(BaseModel):
    # A key that the report does not print is no error here: eval owns the format and checks it on writing.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Metric(_Frozen):
    """One measured number, its interval, what the interval covers, and the protocol it stands under."""

    value: Finite
    interval: tuple[Finite, Finite] | None = None
    interval_covers: str | None = None
    stderr: Finite | None = None
    protocol: Hash12
    groups: dict[str, Finite] = {}


class ResultSystem(_Frozen):
    """A run sampled with `steps` steps on one prompt set."""

    steps: Annotated[int, Field(ge=1)]
    prompts: str
    images: Annotated[int, Field(ge=1)]
    metrics: dict[str, Metric]


class ResultProvenance(_Frozen):
    """Where a result comes from. `train` is the run's train.json (seconds in `wall_seconds`)."""

    versions: dict[str, Any] = {}
    commit: str | None = None
    hardware: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    train: dict[str, Any] = {}
    sample_seconds: Any = None
    score_seconds: Any = None


class Result(_Frozen):
    """One result.json: one run with one training seed."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    scale: str
    run: str
    seed: int
    spec_hash: str
    systems: tuple[ResultSystem, ...]
    protocols: dict[Hash12, dict[str, Any]]
    provenance: ResultProvenance


def seed_directory(results: Path, run: str, seed: int) -> Path:
    """Where one run with one training seed lies."""
    return results / run / f"seed{seed}"


def read_json(path: Path) -> Any:
    """A JSON file's value. Raises InputError with the file and line where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error


def require(paths: Iterable[Path]) -> None:
    """Raises InputError naming every path that does not exist: one look is enough to repair them all."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        lines = "\n".join(f"  {path}" for path in missing)
        raise InputError(
            f"{len(missing)} file(s) that the report needs are missing:\n{lines}\n"
            "Run `snakemake` to make them, or take their rows or seeds out of the table."
        )


def read_result(path: Path) -> Result:
    """One result.json. Raises InputError with the file and the field that is wrong."""
    try:
        return Result.model_validate(read_json(path))
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        raise InputError(f"{path}: not a result of schema 1:\n{problems}") from error


def read_results(study: ReportStudy, results: Path) -> dict[tuple[str, int], Result]:
    """Every (run, seed) of the study, in the table's order.

    Raises:
        InputError: files are missing (all are named), or one belongs to another scale, run, seed or spec.
    """
    paths = {
        (run, seed): seed_directory(results, run, seed) / "result.json"
        for run in study.runs
        for seed in study.seeds
    }
    require(paths.values())
    read: dict[tuple[str, int], Result] = {}
    for (run, seed), path in paths.items():
        result = read_result(path)
        found = (result.scale, result.run, result.seed)
        if found != (study.scale, run, seed):
            raise InputError(f"{path}: holds scale, run, seed {found}, not {(study.scale, run, seed)}")
        if result.spec_hash != study.spec_hashes[run]:
            raise InputError(
                f"{path}: measured under spec {result.spec_hash}, but {run} is now {study.spec_hashes[run]}; "
                "run `snakemake` to train it again"
            )
        read[run, seed] = result
    return read
