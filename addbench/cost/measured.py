"""What did earlier runs, or a benchmark on the device that will train, take?"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from add.config.yaml import SpecError

How = Literal["measured", "scaled", "modelled", "unknown"]
"""measured: the same values were trained here; scaled: by arithmetic from those that were, or from a benchmark;
modelled: from a stated rate; unknown: none is possible.
"""


@dataclass(frozen=True)
class DeviceRate:
    """Floating-point operations a second that training and sampling reach, and how that is known."""

    training: float
    sampling: float
    how: How
    said: str


@dataclass(frozen=True)
class MeasuredTraining:
    """One finished training. spec: the hash of what was trained; setup: seconds before the first step."""

    run: str
    spec: str
    seconds_per_step: float
    setup: float
    device: str


@dataclass(frozen=True)
class MeasuredRuns:
    """trainings: by run's name, each seed's. samples: seconds an image, by run's name and number of steps.

    jobs: mean seconds of Snakemake's other rules (score, reference, ...), and of training beyond its steps.
    """

    trainings: Mapping[str, tuple[MeasuredTraining, ...]]
    samples: Mapping[tuple[str, int], float]
    jobs: Mapping[str, float]

    @property
    def devices(self) -> tuple[str, ...]:
        """What the trainings ran on."""
        return tuple(sorted({t.device for each in self.trainings.values() for t in each}))


def read_measured(results: Path) -> MeasuredRuns:
    """What is under results/<scale>; a file that is not as this version writes it is passed over, and costs nothing."""
    trainings: dict[str, list[MeasuredTraining]] = defaultdict(list)
    for file in sorted(results.glob("*/seed*/train/train.json")):
        if (training := _training(file)) is not None:
            trainings[training.run].append(training)
    samples: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for file in sorted(results.glob("*/seed*/samples/*/samples.json")):
        facts = _json(file)
        if {"steps", "seconds", "count"} <= facts.keys() and facts["count"]:
            run = file.parents[3].name
            samples[run, int(facts["steps"])].append((float(facts["seconds"]), int(facts["count"])))
    rates = {key: sum(s for s, _ in each) / sum(n for _, n in each) for key, each in samples.items()}
    return MeasuredRuns(
        {k: tuple(v) for k, v in trainings.items()}, rates, dict(_jobs(results / "benchmarks"))
    )


def _training(file: Path) -> MeasuredTraining | None:
    facts = _json(file)
    if not {"seconds_per_step", "spec_hash", "device"} <= facts.keys():
        return None
    setup = float(facts.get("setup_seconds", 0.0))
    rate = float(facts["seconds_per_step"])
    return MeasuredTraining(file.parents[2].name, str(facts["spec_hash"]), rate, setup, str(facts["device"]))


def _jobs(benchmarks: Path) -> Iterator[tuple[str, float]]:
    """Mean seconds by rule: the first word of each benchmark's name."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for file in sorted(benchmarks.glob("*.tsv")):
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        try:
            seconds[file.stem.partition("-")[0]] += [float(row["s"]) for row in rows]
        except (KeyError, ValueError):
            continue
    for rule, each in seconds.items():
        if each:
            yield rule, mean(each)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


STEP = "add.step"
"""The row of this project's own step; the other is the same step written plainly."""


class _Row(BaseModel):
    name: str
    batch: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(gt=0)] | None


class _Modelled(BaseModel):
    step_flops: Annotated[int, Field(gt=0)]


class _Benchmark(BaseModel):
    """What is read of the file; it says more."""

    model_config = ConfigDict(extra="ignore")

    size: Literal["sd21", "sdxl", "tiny"]
    batch: Annotated[int, Field(gt=0)]
    device: str
    rows: list[_Row]
    modelled: _Modelled


def benchmark_rate(file: Path) -> DeviceRate:
    """The counted operations of the timed step over its seconds, taken for sampling too.

    Raises SpecError where the file is none of `python -m benchmarks.gpu_step`, or the step did not fit.
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
        f"{found.device}; sampling is taken to reach it too"
    )
    return DeviceRate(rate, rate, "scaled", said)


_MADE_BY = "it should be a file that `python -m benchmarks.gpu_step` wrote"
