"""How long will the table take? As runs of the same values were measured, else by arithmetic over a rate."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from pydantic import BaseModel, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from add.config.yaml import SpecError, read_json
from add.identity import spec_hash
from addbench.cost.shapes import Arithmetic, images_of_a_run
from baselines.spec import RivalSpec, rival_hash

if TYPE_CHECKING:
    from eval.result import Result

_MODEL = TypeVar("_MODEL", bound=BaseModel)
How = Literal["measured", "measured elsewhere", "scaled", "modelled", "unknown"]
"""measured: the same values were trained here; elsewhere: in the study that grows (replication/). scaled: by arithmetic
from other measured runs or a benchmark. modelled: by arithmetic from a stated rate. unknown: no figure is possible.
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


class _MeasuredRival(BaseModel):
    spec_hash: str
    wall_seconds: float


class _MeasuredSamples(BaseModel):
    steps: int
    seconds: float
    count: PositiveInt


@dataclass(frozen=True)
class MeasuredRuns:
    """trainings: by name of the run, one for each seed. samples: seconds an image, by run and number of steps.

    jobs: mean seconds of Snakemake's rules (score, reference, ...) by rule. rivals: mean seconds of a rival's training,
    by its hash (`baselines.spec.rival_hash`). how: where they ran.
    """

    trainings: Mapping[str, tuple[MeasuredTraining, ...]]
    samples: Mapping[tuple[str, int], float]
    jobs: Mapping[str, float]
    rivals: Mapping[str, float]
    how: Literal["measured", "measured elsewhere"] = "measured"

    @property
    def devices(self) -> str:
        """On what the trainings ran."""
        return ", ".join(sorted({t.device for each in self.trainings.values() for t in each}))


def read_measured(results: Path) -> MeasuredRuns:
    """What earlier runs left under results/<scale>. Files that this version does not write so are passed over."""
    trainings: dict[str, list[MeasuredTraining]] = defaultdict(list)
    for file, training in _read(MeasuredTraining, results.glob("*/seed*/train/train.json")):
        trainings[file.parents[2].name].append(training)
    samples: dict[tuple[str, int], list[_MeasuredSamples]] = defaultdict(list)
    for file, sampled in _read(_MeasuredSamples, results.glob("*/seed*/samples/*/samples.json")):
        samples[file.parents[3].name, sampled.steps].append(sampled)
    rates = {key: sum(s.seconds for s in each) / sum(s.count for s in each) for key, each in samples.items()}
    rivals: dict[str, list[float]] = defaultdict(list)
    for _, rival in _read(_MeasuredRival, results.glob("systems/*/train/train.json")):
        rivals[rival.spec_hash].append(rival.wall_seconds)
    return MeasuredRuns(
        {k: tuple(v) for k, v in trainings.items()},
        rates,
        _jobs(results / "benchmarks"),
        {k: mean(v) for k, v in rivals.items()},
    )


def measured_in_study(results: Mapping[str, Sequence[Result]]) -> MeasuredRuns:
    """The same of a study's results, by run: of machines that may not be this one, and of the table's runs alone."""
    from eval.findings.measured import processor_of

    trainings: dict[str, list[MeasuredTraining]] = defaultdict(list)
    spent: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    scores: list[float] = []
    for name, result in ((name, result) for name, found in results.items() for result in found):
        source = result.provenance
        # A result says how long its stages took where these were of this version.
        with suppress(KeyError, TypeError, ValidationError):
            trainings[name].append(
                MeasuredTraining(
                    spec_hash=source.train["spec_hash"],
                    seconds_per_step=source.train["wall_seconds"] / source.train["steps"],
                    device=processor_of(result),
                )
            )
        with suppress(KeyError, TypeError):
            for system in result.systems:
                seconds = source.sample_seconds[f"{system.prompts}-{system.steps}step"]
                spent[name, system.steps].append((seconds, system.images))
        scores += [source.score_seconds] if source.score_seconds else []
    return MeasuredRuns(
        {name: tuple(found) for name, found in trainings.items()},
        {key: sum(s for s, _ in each) / sum(n for _, n in each) for key, each in spent.items()},
        {"score": mean(scores)} if scores else {},
        {},
        "measured elsewhere",
    )


def _read(model: type[_MODEL], files: Iterable[Path]) -> Iterator[tuple[Path, _MODEL]]:
    for file in sorted(files):
        with suppress(OSError, ValidationError):
            yield file, model.model_validate_json(file.read_bytes())


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
    batch: NonNegativeInt
    seconds: PositiveFloat | None


class _Modelled(BaseModel):
    step_flops: PositiveInt


class _Benchmark(BaseModel):
    """The part of the file that is read here."""

    size: Literal["sd21", "sdxl", "tiny"]
    batch: PositiveInt
    device: str
    rows: list[_Row]
    modelled: _Modelled


def benchmark_rate(file: Path) -> DeviceRate:
    """The counted operations of the timed step over its seconds; sampling is assumed to reach the same rate.

    Raises SpecError where `python -m benchmarks.gpu_step` did not write the file, or the step did not fit.
    """
    name = file.as_posix()
    found = read_json(_Benchmark, file, "; it should be a file that `python -m benchmarks.gpu_step` wrote")
    row = next((row for row in found.rows if row.name == STEP), None)
    if row is None or row.seconds is None:
        raise SpecError(name, 1, f"has no timed row '{STEP}': the step did not fit; time smaller batches")
    rate = found.modelled.step_flops * row.batch / found.batch / row.seconds
    said = (
        f"{rate / 1e12:.3g} TFLOP/s, as {name} measured a step of {found.size}'s size with {row.batch} images on "
        f"{found.device}; sampling is assumed to reach it too"
    )
    return DeviceRate(rate, rate, "scaled", said)


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
    setup = mean([t.setup_seconds for each in measured.trainings.values() for t in each] or [0.0])
    for name, run in table.runs.items():
        if same := same_trainings(run, measured):
            each = [t.seconds_per_step * run.training.steps + t.setup_seconds for t in same]
            times[name] = Time(mean(each), measured.how)
        elif arithmetic is None or rate is None:
            times[name] = Time(0.0, "unknown")
        else:
            seconds = arithmetic.step(run) * run.training.steps / rate.training
            times[name] = Time(seconds + setup, rate.how)
    return times


def rival_times(rivals: Iterable[RivalSpec], measured: MeasuredRuns) -> list[Time]:
    """Seconds of each rival's training, as one of the same values took; no arithmetic is known of another."""
    found = [measured.rivals.get(rival_hash(rival)) for rival in rivals]
    return [Time(0.0, "unknown") if each is None else Time(each, measured.how) for each in found]


def sampling_times(
    scale: Scale, table: Table, measured: MeasuredRuns, arithmetic: Arithmetic | None, rate: DeviceRate | None
) -> dict[str, Time]:
    """Seconds to sample all prompt sets with all numbers of steps, for each run and one seed."""
    times = {}
    for name, run in table.runs.items():
        seconds, hows = 0.0, set[How]()
        for steps in scale.sampling.steps:
            prompts = images_of_a_run(scale, steps)
            known = _known_samples(run, steps, table, measured)
            if known is not None:
                seconds += prompts * known
                hows.add(measured.how)
            elif arithmetic is None or rate is None:
                hows.add("unknown")
            else:
                path, size = run.student.path, run.training.resolution
                seconds += prompts * arithmetic.sample(path, size, steps) / rate.sampling
                hows.add(rate.how)
        worst: How = next(h for h in reversed(get_args(How)) if h in hows)
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
    runs = f"{len(known)} measured run{'s' * (len(known) != 1)}"
    said = f"{training / 1e12:.3g} TFLOP/s, as {runs} on {measured.devices}"
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
