"""Results of all runs and seeds -> one estimate for each run, number of steps, prompt set and metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from add.errors import InputError
from eval.metrics.protocol import ProtocolMismatchError, one_protocol, protocol_id
from eval.result import (
    Metric,
    ReferenceResult,
    Result,
    ResultSystem,
    read_reference,
    read_result,
    require,
    seed_directory,
)
from reports.study import ReportStudy


@dataclass(frozen=True)
class Floor:
    """What real images score by one metric, under the very protocol of a column."""

    metric: str
    value: float


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over training seeds.

    With one seed, low and high are the interval that scoring reported; with several, Student's 95% interval
    of the mean, and `seed_sd` is the standard deviation from seed to seed (n - 1). `covers` says which.
    """

    value: float
    values: tuple[float, ...]
    low: float | None
    high: float | None
    covers: str
    seed_sd: float | None
    stderr: float | None
    protocol: str
    groups: dict[str, float]


@dataclass(frozen=True, order=True)
class Slice:
    """What all numbers of one column share: the student's steps and the prompt set."""

    steps: int
    prompts: str


@dataclass(frozen=True)
class Measurement:
    """One run's numbers in one slice. `images` is the number that each seed was scored on."""

    images: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Report:
    """All that any output of this package prints."""

    study: ReportStudy
    slices: tuple[Slice, ...]
    measurements: dict[tuple[str, Slice], Measurement]
    protocols: dict[str, dict[str, Any]]
    results: dict[tuple[str, int], Result]
    reference: ReferenceResult | None

    def estimate(self, run: str, where: Slice, metric: str) -> Estimate | None:
        """The estimate, or None where this metric was not measured in this slice."""
        return self.measurements[run, where].metrics.get(metric)

    def metrics(self, where: Slice) -> tuple[str, ...]:
        """The metrics measured in a slice, those that every reader looks for first."""
        return in_order({name for run in self.study.runs for name in self.measurements[run, where].metrics})

    def floors(self, where: Slice) -> tuple[Floor, ...]:
        """What real images score in a slice's columns, only where they stand under the column's protocol."""
        real = (
            next((r for r in self.reference.real if r.prompts == where.prompts), None)
            if self.reference
            else None
        )
        found = []
        for metric in self.metrics(where) if real else ():
            estimate = self.estimate(self.study.runs[0], where, metric)
            mine = real.metrics.get(metric) if real else None
            if mine and estimate and mine.protocol == estimate.protocol:
                found.append(Floor(metric, mine.value))
        return tuple(found)

    @property
    def first(self) -> Slice:
        """The slice of Table 1: the fewest steps, on the prompt set that FID was measured on."""
        return min(self.headline, key=lambda where: where.steps)

    @property
    def last(self) -> Slice:
        """The same prompt set at the most steps."""
        return max(self.headline, key=lambda where: where.steps)

    @property
    def headline(self) -> tuple[Slice, ...]:
        """The slices, in order of steps, of the first prompt set that has an FID."""
        with_fid = [where for where in self.slices if "fid" in self.metrics(where)]
        if not with_fid:
            raise InputError("no prompt set has an FID: Table 1 cannot be made")
        prompts = with_fid[0].prompts
        return tuple(sorted(where for where in with_fid if where.prompts == prompts))


def in_order(metrics: set[str]) -> tuple[str, ...]:
    """Metrics in the order of all outputs: those of the paper first, unknown ones last."""
    known = ("fid", "kid", "clip_score", "alignment")
    return (*(name for name in known if name in metrics), *sorted(metrics - set(known)))


def collect(study: ReportStudy, results: Path) -> Report:
    """Reads every result of the study below `results` (results/<scale>) and aggregates over seeds.

    Raises:
        InputError: anything is missing, stale or malformed, or two numbers of one column have two protocols.
    """
    read = read_results(study, results)
    slices = _common_slices(read)
    measurements = {
        (run, where): _measure([_system(read[run, seed], where) for seed in study.seeds], run, where)
        for run in study.runs
        for where in slices
    }
    report = Report(
        study=study,
        slices=slices,
        measurements=measurements,
        protocols=_protocols(read),
        results=read,
        reference=read_reference(results / "reference" / "reference.json"),
    )
    for where in slices:
        for metric in report.metrics(where):
            _check_column(report, where, metric)
    return report


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


def _common_slices(read: dict[tuple[str, int], Result]) -> tuple[Slice, ...]:
    """The slices that all results share, in the order of the first; raises where one result lacks one."""
    every = {key: [Slice(s.steps, s.prompts) for s in result.systems] for key, result in read.items()}
    for key, slices in every.items():
        doubled = {f"{s.prompts} at {s.steps} steps" for s in slices if slices.count(s) > 1}
        if doubled:
            raise InputError(f"{key[0]} seed {key[1]}: measured twice: {', '.join(sorted(doubled))}")
    union = list(dict.fromkeys(where for slices in every.values() for where in slices))
    lacking = [
        f"  {run} seed {seed}: {where.prompts} at {where.steps} step(s)"
        for (run, seed), slices in every.items()
        for where in union
        if where not in slices
    ]
    if lacking or not union:
        raise InputError("measured for some runs only; score these too:\n" + "\n".join(lacking))
    prompts = list(dict.fromkeys(where.prompts for where in union))
    return tuple(sorted(union, key=lambda where: (prompts.index(where.prompts), where.steps)))


def _system(result: Result, where: Slice) -> ResultSystem:
    return next(s for s in result.systems if (s.steps, s.prompts) == (where.steps, where.prompts))


def _measure(systems: Sequence[ResultSystem], run: str, where: Slice) -> Measurement:
    images = {system.images for system in systems}
    names = [set(system.metrics) for system in systems]
    if len(images) > 1 or any(other != names[0] for other in names):
        raise InputError(
            f"{run}, {where.prompts} at {where.steps} step(s): seeds differ in images or in metrics"
        )
    return Measurement(
        images=images.pop(),
        metrics={name: aggregate([system.metrics[name] for system in systems]) for name in sorted(names[0])},
    )


def aggregate(seeds: Sequence[Metric]) -> Estimate:
    """One metric over training seeds (at least one). Raises InputError where protocols or groups differ."""
    protocols = sorted({metric.protocol for metric in seeds})
    if len(protocols) > 1:
        raise InputError(f"seeds of one run were measured under different protocols: {', '.join(protocols)}")
    groups = list(seeds[0].groups)
    if any(set(metric.groups) != set(groups) for metric in seeds):
        raise InputError("seeds of one run have different attribute groups")
    values = tuple(metric.value for metric in seeds)
    mean = fmean(values)
    low, high, covers, spread = None, None, "", None
    if len(values) > 1:
        spread = stdev(values)
        half = _student_975(len(values) - 1) * spread / math.sqrt(len(values))
        low, high, covers = mean - half, mean + half, f"training seeds (Student t, 95%, n = {len(values)})"
    elif seeds[0].interval is not None:
        low, high = seeds[0].interval
        covers = seeds[0].interval_covers or "not stated"
    return Estimate(
        value=mean,
        values=values,
        low=low,
        high=high,
        covers=covers,
        seed_sd=spread,
        stderr=seeds[0].stderr if len(values) == 1 else None,
        protocol=protocols[0],
        groups={name: fmean(metric.groups[name] for metric in seeds) for name in groups},
    )


def _student_975(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _protocols(read: dict[tuple[str, int], Result]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for (run, seed), result in read.items():
        used = {metric.protocol for system in result.systems for metric in system.metrics.values()}
        if absent := sorted(used - set(result.protocols)):
            raise InputError(f"{run} seed {seed}: protocols not described: {', '.join(absent)}")
        for name in sorted(used):
            if (found := protocol_id(result.protocols[name])) != name:
                raise InputError(f"{run} seed {seed}: what is called protocol {name} is protocol {found}")
            merged.setdefault(name, result.protocols[name])
    return merged


def _check_column(report: Report, where: Slice, metric: str) -> None:
    """Raises unless every run has this metric in this slice, all under one protocol."""
    by_protocol: dict[str, list[str]] = {}
    for run in report.study.runs:
        estimate = report.estimate(run, where, metric)
        by_protocol.setdefault(estimate.protocol if estimate else "not measured", []).append(run)
    if len(by_protocol) > 1:
        lines = "\n".join(f"  {name}: {', '.join(runs)}" for name, runs in sorted(by_protocol.items()))
        raise InputError(
            f"{metric}, {where.prompts} at {where.steps} step(s): one column, several protocols:\n{lines}\n"
            f"{_difference(report, by_protocol)}Score these runs again under one protocol."
        )


def _difference(report: Report, ids: Iterable[str]) -> str:
    try:
        one_protocol((name for name in ids if name in report.protocols), report.protocols)
    except ProtocolMismatchError as error:
        return f"{error}.\n"
    return ""
