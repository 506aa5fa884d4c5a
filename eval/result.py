"""The one schema of result.json and reference.json: scoring writes them by it, the report reads them by it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from add.errors import InputError
from eval.metrics.catalogue import METRICS, MetricFacts
from eval.metrics.protocol import SourceIdentity, Subset

Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
TrainingSeed = Annotated[int, Field(ge=0, strict=True)]
Hash12 = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


class _Part(BaseModel):
    # Readers ignore keys that they do not know. What was not set when it was written is not written.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Metric(_Part):
    """One measured number, its interval, what the interval covers, and the protocol it stands under.

    `note` says what a reader must know of the number; `stderr` is its standard error over images, `reference_stderr`
    FID's over those of the reference; `truncated_prompts`: how many CLIP's tokenizer cut; `groups`: the alignment's
    accuracy by attribute group.
    """

    value: Finite
    interval: tuple[Finite, Finite] | None = None
    interval_covers: str | None = None
    note: str | None = None
    stderr: Finite | None = None
    reference_stderr: Finite | None = None
    truncated_prompts: int | None = None
    groups: dict[str, Finite] = {}
    protocol: Hash12


def image_error(metric: Metric) -> float | None:
    """A figure's standard error over images: as stated, or by its 95% interval; None where it has neither."""
    if metric.stderr is None and metric.interval is not None:
        return (metric.interval[1] - metric.interval[0]) / (2 * 1.96)
    return metric.stderr


class MeasuredImages(_Part):
    """The metrics of a number of images."""

    images: Annotated[int, Field(ge=1, strict=True)]
    metrics: dict[str, Metric]

    @field_validator("metrics")
    @classmethod
    def _possible(cls, value: dict[str, Metric]) -> dict[str, Metric]:
        known: dict[str, MetricFacts] = dict(METRICS.items())
        wrong = [
            f"{name} is {each.value:g}"
            for name, each in value.items()
            if name in known and not known[name].possible(each.value)
        ]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}, which no measurement gives")
        return value


class ResultSystem(MeasuredImages):
    """A system sampled with `steps` steps on one prompt set.

    first: the same of the set's first images alone, as many as are sampled by more steps: FID, and whatever depends on
    how many images there are, is compared between numbers of steps by these. None where that is the whole set.
    """

    steps: Annotated[int, Field(ge=1, strict=True)]
    prompts: str
    first: MeasuredImages | None = None

    @property
    def comparable(self) -> MeasuredImages:
        """The images that are compared between numbers of steps."""
        return self if self.first is None else self.first


class ResultProvenance(_Part):
    """What numbers were made with, and how long it took in seconds; hashes are SHA-256.

    `train` is the run's train.json (seconds in `wall_seconds`); `sample_seconds`, `sample_sha256` and `sampling`
    (scheduler, timesteps, network calls, guidance, dtype, truncated prompts) are by sample set.
    """

    versions: dict[str, Any] = {}
    commit: str | None = None
    hardware: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    train: dict[str, Any] = {}
    sample_seconds: Any = None
    sample_sha256: dict[str, str] = {}
    sampling: dict[str, dict[str, Any]] = {}
    score_seconds: Any = None
    seconds: float | None = None


class _Document(_Part):
    schema_version: Annotated[Literal[1], Field(alias="schema")]

    def values(self) -> dict[str, Any]:
        """The file's content as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class _Scored(_Document):
    scale: str
    notice: str | None = None
    systems: tuple[ResultSystem, ...]
    protocols: dict[Hash12, dict[str, Any]]
    provenance: ResultProvenance

    @field_validator("systems")
    @classmethod
    def _each_once(cls, value: tuple[ResultSystem, ...]) -> tuple[ResultSystem, ...]:
        places = Counter((each.prompts, each.steps) for each in value)
        if twice := [f"'{prompts}' at {steps} step(s)" for (prompts, steps), n in places.items() if n > 1]:
            raise ValueError(f"has {', '.join(twice)} more than once")
        return value


class Result(_Scored):
    """One result.json: one run with one training seed."""

    run: str
    seed: TrainingSeed
    spec_hash: str


class SystemResult(_Scored):
    """The result of any other system by one number of steps.

    system: its file's stem. label: its name in tables. seed: of its training, where this project trained it.
    """

    system: str
    label: str
    seed: TrainingSeed | None = None


class Blur(_Part):
    """FID of the same images blurred, and `factor` times the floor (None where the floor is 0)."""

    sigma_pixels: Finite
    fid: Finite
    factor: Finite | None = None


class RealImages(_Part):
    """The real images of one prompt set, measured as a system's are.

    `listed`: the number that the scale asks for; `subset`: the photographs that are on disk, where some are not.
    """

    prompts: str
    images: Annotated[int, Field(ge=1)]
    listed: int | None = None
    subset: Subset | None = None
    metrics: dict[str, Metric]
    blur: Blur | None = None


class ReferenceResult(_Document):
    """reference.json: the set that FID compares with, the settings that it was measured by, what real images score.

    `floor` and `blur_factor` repeat those of the first prompt set.
    """

    scale: str | None = None
    notice: str | None = None
    settings: dict[str, Any] = {}
    reference: SourceIdentity
    features_sha256: str | None = None
    floor: dict[str, Finite] = {}
    blur_factor: Finite | None = None
    real: tuple[RealImages, ...]
    protocols: dict[Hash12, dict[str, Any]] = {}
    provenance: ResultProvenance | None = None


_DOCUMENT = TypeVar("_DOCUMENT", bound=_Document)


def seed_directory(results: Path, run: str, seed: int) -> Path:
    """Where one run with one training seed lies."""
    return results / run / f"seed{seed}"


def read_json(path: Path) -> Any:
    """A JSON file's value. Raises InputError with the file, and the line where it is not JSON in UTF-8."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
        raise InputError(f"{path}: not JSON: {error}") from error


def require(paths: Iterable[Path]) -> None:
    """Raises InputError naming every path that does not exist: one look is enough to repair them all."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        lines = "\n".join(f"  {path}" for path in missing)
        raise InputError(
            f"{len(missing)} file(s) that the report needs are missing:\n{lines}\n"
            "Run `snakemake` to make them (if files were lost, `addbench repair` first), or take their rows or seeds "
            "out of the table."
        )


def read_result(path: Path) -> Result:
    """One result.json. Raises InputError with the file and every field that is wrong."""
    return _read(Result, path, "a result", "run `snakemake` to score again")


def read_system_result(path: Path) -> SystemResult:
    """The result of a system. Raises InputError with the file and every field that is wrong."""
    return _read(SystemResult, path, "a system's result", "run `snakemake` to score again")


def read_reference(path: Path) -> ReferenceResult | None:
    """reference.json, or None where there is none. Raises InputError with the file and every field that is wrong."""
    if not path.exists():
        return None
    return _read(ReferenceResult, path, "a reference", "make it again with `python -m eval.reference`")


def _read(model: type[_DOCUMENT], path: Path, what: str, remedy: str) -> _DOCUMENT:
    return validated(model, path, read_json(path), what, remedy)


def validated(model: type[_DOCUMENT], path: Path, values: Any, what: str, remedy: str) -> _DOCUMENT:
    """The document that a file's JSON values are. Raises InputError with the file and every field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        each = (("  " + ".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
        problems = "\n".join(f"{place}: {said}" if place.strip() else f"  {said}" for place, said in each)
        raise InputError(f"{path}: not {what} of schema 1; {remedy}:\n{problems}") from error


PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "clean-fid",
    "numpy",
    "scipy",
    "pillow",
    "safetensors",
)


def provenance(device: str, weights: dict[str, str], **more: Any) -> ResultProvenance:
    """What numbers are made with now, with `more` fields of `ResultProvenance`."""
    return ResultProvenance(
        versions=versions(), commit=commit(), hardware=hardware(device), weights=weights, **more
    )


def seconds_since(started: float) -> float:
    """Seconds, to the millisecond, since `time.perf_counter` gave `started`."""
    return round(time.perf_counter() - started, 3)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def commit() -> str | None:
    """The working directory's commit, with '-dirty' where tracked files differ; None outside a repository."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, memory in GiB, and the accelerator where `device` is one.

    family, model, stepping: of the first processor, where the system says so. simd: the instructions that PyTorch's own
    kernels use here; other ones give other bits.
    """
    import torch

    facts: dict[str, Any] = {
        "machine": platform.machine(),
        **_processor(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": device,
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


_CPUINFO = {
    "model name": "processor",
    "cpu family": "family",
    "model": "model",
    "stepping": "stepping",
}
"""Keys of /proc/cpuinfo as `hardware` names them."""


def _processor(file: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """The first processor of a /proc/cpuinfo."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    stated = {key.strip(): value.strip() for key, _, value in lines}
    found: dict[str, Any] = {"processor": platform.processor() or "unknown"}
    for key, name in _CPUINFO.items():
        if value := stated.get(key):
            found[name] = int(value) if value.isdigit() else value
    return found


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
