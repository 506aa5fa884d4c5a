"""How long will the table take? As runs of the same values were measured, else by arithmetic over a rate."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from add.config.resolve import Table, spec_hash
from add.config.run import Run
from add.config.scale import Scale
from add.config.yaml import SpecError
from addbench.cost.shapes import Arithmetic

_MODEL = TypeVar("_MODEL", bound=BaseModel)
How = Literal["measured", "scaled", "modelled", "unknown"]
"""measured: the same values were trained here. scaled: by arithmetic from other measured runs or a benchmark.
modelled: by arithmetic from a stated rate. unknown: no figure is possible.
"""


@dataclass(frozen=True)
class DeviceRate:
    """Floating-point operations a second that training and sampling reach, and how that is known."""

    training: float
    sampling: float
    how: How
    said: str


class MeasuredTraining(BaseModel):
    """One finished training, as train.json states it. setup_seconds: before the first step."""

    spec_hash: str
    seconds_per_step: float
    setup_seconds: float = 0.0
    device: str


class _MeasuredSamples(BaseModel):
    steps: int
    seconds: float
    count: Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class MeasuredRuns:
    """trainings: by name of the run, one for each seed. samples: seconds an image, by run and number of steps.

    jobs: mean seconds of Snakemake's rules (score, reference, ...) by rule.
    """

    trainings: Mapping[str, tuple[MeasuredTraining, ...]]
    samples: Mapping[tuple[str, int], float]
    jobs: Mapping[str, float]

    @property
    def devices(self) -> tuple[str, ...]:
        """What the trainings ran on."""
        return tuple(sorted({t.device for each in self.trainings.values() for t in each}))


def read_measured(results: Path) -> MeasuredRuns:
    """What earlier runs left under results/<scale>. Files that this version does not write so are passed over."""
    trainings: dict[str, list[MeasuredTraining]] = defaultdict(list)
    for file in sorted(results.glob("*/seed*/train/train.json")):
        if (training := _read(MeasuredTraining, file)) is not None:
            trainings[file.parents[2].name].append(training)
    samples: dict[tuple[str, int], list[_MeasuredSamples]] = defaultdict(list)
    for file in sorted(results.glob("*/seed*/samples/*/samples.json")):
        if (sampled := _read(_MeasuredSamples, file)) is not None:
            samples[file.parents[3].name, sampled.steps].append(sampled)
    rates = {key: sum(s.seconds for s in each) / sum(s.count for s in each) for key, each in samples.items()}
    return MeasuredRuns({k: tuple(v) for k, v in trainings.items()}, rates, _jobs(results / "benchmarks"))


def _read(model: type[_MODEL], file: Path) -> _MODEL | None:
    try:
        return model.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _jobs(benchmarks: Path) -> dict[str, float]:
    """Mean seconds by rule, which is the first word of each benchmark's name."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for file in sorted(benchmarks.glob("*.tsv")):
        with file.open(encoding="utf-8", newline="") as stream, suppress(KeyError, ValueError):
            rows = csv.DictReader(stream, delimiter="\t")
            seconds[file.stem.partition("-")[0]] += [float(row["s"]) for row in rows]
    return {rule: mean(each) for rule, each in seconds.items() if each}


STEP = "add.step"
"""The row of this project's own step; the other row is the same step written plainly."""


class _Row(BaseModel):
    name: str
    batch: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(gt=0)] | None


class _Modelled(BaseModel):
    step_flops: Annotated[int, Field(gt=0)]


class _Benchmark(BaseModel):
    """The part of the file that is read here."""

    model_config = ConfigDict(extra="ignore")

    size: Literal["sd21", "sdxl", "tiny"]
    batch: Annotated[int, Field(gt=0)]
    device: str
    rows: list[_Row]
    modelled: _Modelled


def benchmark_rate(file: Path) -> DeviceRate:
    """The counted operations of the timed step over its seconds; sampling is assumed to reach the same rate.

    Raises SpecError where `python -m benchmarks.gpu_step` did not write the file, or the step did not fit.
    """
    name = file.as_posix()
    try:
        found = _Benchmark.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(name, 1, f"cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(name, 1, f"{where}: {first['msg']}; {_MADE_BY}") from None
    except ValueError as error:
        raise SpecError(name, 1, f"is not JSON: {error}; {_MADE_BY}") from None
    row = next((row for row in found.rows if row.name == STEP), None)
    if row is None or row.seconds is None:
        raise SpecError(name, 1, f"has no timed row '{STEP}': the step did not fit; time smaller batches")
    rate = found.modelled.step_flops * row.batch / found.batch / row.seconds
    said = (
        f"{rate / 1e12:.3g} TFLOP/s, as {name} measured a step of {found.size}'s size with {row.batch} images on "
        f"{found.device}; sampling is assumed to reach it too"
    )
    return DeviceRate(rate, rate, "scaled", said)


_MADE_BY = "it should be a file that `python -m benchmarks.gpu_step` wrote"

REFERENCES = 3
"""Measured runs whose arithmetic is counted for the rate: counting takes seconds each."""


@dataclass(frozen=True)
class Time:
    """Seconds, and how they are known."""

    seconds: float
    how: How


def training_times(
    table: Table, measured: MeasuredRuns, arithmetic: Arithmetic | None, rate: DeviceRate | None
) -> dict[str, Time]:
    """Seconds of one training of each run, set-up included where that was measured."""
    times: dict[str, Time] = {}
    setups = [t.setup_seconds for each in measured.trainings.values() for t in each]
    setup = mean(setups) if setups else 0.0
    for name, run in table.runs.items():
        same = same_trainings(run, measured)
        if same:
            each = [t.seconds_per_step * run.training.steps + t.setup_seconds for t in same]
            times[name] = Time(mean(each), "measured")
        elif arithmetic is None or rate is None:
            times[name] = Time(0.0, "unknown")
        else:
            seconds = arithmetic.step(run) * run.training.steps / rate.training
            times[name] = Time(seconds + setup, rate.how)
    return times


def sampling_times(
    scale: Scale, table: Table, measured: MeasuredRuns, arithmetic: Arithmetic | None, rate: DeviceRate | None
) -> dict[str, Time]:
    """Seconds to sample all prompt sets with all numbers of steps, for each run and one seed."""
    prompts = sum(config.count for config in scale.sampling.prompts.values())
    times = {}
    for name, run in table.runs.items():
        seconds, hows = 0.0, set[How]()
        for steps in scale.sampling.steps:
            known = _known_samples(run, steps, table, measured)
            if known is not None:
                seconds += prompts * known
                hows.add("measured")
            elif arithmetic is None or rate is None:
                hows.add("unknown")
            else:
                path, size = run.student.path, run.training.resolution
                seconds += prompts * arithmetic.sample(path, size, steps) / rate.sampling
                hows.add(rate.how)
        worst: How = next(h for h in ("unknown", "modelled", "scaled", "measured") if h in hows)
        times[name] = Time(seconds, worst)
    return times


def measured_rate(
    table: Table, measured: MeasuredRuns, arithmetic: Arithmetic, scale: Scale
) -> DeviceRate | None:
    """The rate that measured runs of this table reached; None where none was measured."""
    known = [run for run in table.runs.values() if same_trainings(run, measured)][:REFERENCES]
    if not known:
        return None
    training = median(
        arithmetic.step(run) / mean(t.seconds_per_step for t in same_trainings(run, measured))
        for run in known
    )
    samples = [
        arithmetic.sample(run.student.path, run.training.resolution, steps) / seconds
        for run in known
        for steps in scale.sampling.steps
        if (seconds := measured.samples.get((run.name, steps)))
    ]
    devices = ", ".join(measured.devices)
    said = (
        f"{training / 1e12:.3g} TFLOP/s, as {len(known)} measured run{'s' * (len(known) != 1)} on {devices}"
    )
    return DeviceRate(training, median(samples) if samples else training, "scaled", said)


def same_trainings(run: Run, measured: MeasuredRuns) -> list[MeasuredTraining]:
    """Finished trainings of exactly these values, whatever their runs were called."""
    wanted = spec_hash(run)
    return [t for each in measured.trainings.values() for t in each if t.spec_hash == wanted]


def _known_samples(run: Run, steps: int, table: Table, measured: MeasuredRuns) -> float | None:
    """Seconds an image of this run, or else of runs whose student has the same shape."""
    own = measured.samples.get((run.name, steps))
    if own is not None:
        return own
    alike = [other.name for other in table.runs.values() if other.student.path == run.student.path]
    each = [s for name in alike if (s := measured.samples.get((name, steps))) is not None]
    return mean(each) if each else None
