"""How long will the table take? Measured where a run of the same values was, else by arithmetic over a rate.

The rate is that of the measured runs where there are some (their arithmetic over their seconds), else what the caller
states: a device's matrix rate and the share of it that a step is expected to reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median

from add.config.resolve import Table, spec_hash
from add.config.run import Run
from add.config.scale import Scale
from addbench.cost.measured import DeviceRate, How, MeasuredRuns, MeasuredTraining
from addbench.cost.shapes import Arithmetic

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
    """Seconds of one training of each run, its set-up included where it was measured."""
    times: dict[str, Time] = {}
    setups = [t.setup for each in measured.trainings.values() for t in each]
    setup = mean(setups) if setups else 0.0
    for name, run in table.runs.items():
        same = same_trainings(run, measured)
        if same:
            each = [t.seconds_per_step * run.training.steps + t.setup for t in same]
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
    """Seconds to sample every prompt set by every number of steps, of each run and one seed."""
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
    """The rate that the measured runs reached; None where none of this table's was measured."""
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
    """Finished trainings of exactly these values, whatever their run was called."""
    wanted = spec_hash(run)
    return [t for each in measured.trainings.values() for t in each if t.spec == wanted]


def _known_samples(run: Run, steps: int, table: Table, measured: MeasuredRuns) -> float | None:
    """Seconds an image: of this run, or of others whose student has the same shape."""
    own = measured.samples.get((run.name, steps))
    if own is not None:
        return own
    alike = [other.name for other in table.runs.values() if other.student.path == run.student.path]
    each = [s for name in alike if (s := measured.samples.get((name, steps))) is not None]
    return mean(each) if each else None
