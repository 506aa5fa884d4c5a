"""Results of all runs and seeds -> one estimate for each run, number of steps, prompt set and metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from add.errors import InputError
from eval.metrics.protocol import ProtocolMismatchError, one_protocol, protocol_id
from eval.result import Metric, ReferenceResult, Result, read_reference, read_result
from reports.study import ReportStudy


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over training seeds.

    With one seed, low and high are the interval that scoring reported; with several, Student's 95% interval
    of the mean, and `seed_sd` is the standard deviation over seeds (n - 1). `covers` says which.
    """

    value: float
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

    def __str__(self) -> str:
        return f"{self.prompts} at {self.steps} step(s)"


@dataclass(frozen=True)
class Measurement:
    """One run's numbers in one slice. Each seed was scored on `images` images."""

    images: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Report:
    """All that the outputs print. `protocols`: by hash. `results`: by (run, seed)."""

    study: ReportStudy
    slices: tuple[Slice, ...]
    measurements: dict[tuple[str, Slice], Measurement]
    protocols: dict[str, dict[str, Any]]
    results: dict[tuple[str, int], Result]
    reference: ReferenceResult | None

    def estimates(self, where: Slice, metric: str) -> dict[str, Estimate]:
        """One metric in one slice, by run in the table's order; empty if it was not measured there."""
        found = {run: self.measurements[run, where].metrics.get(metric) for run in self.study.runs}
        return {run: estimate for run, estimate in found.items() if estimate is not None}

    def metrics(self, where: Slice) -> tuple[str, ...]:
        """The metrics measured in a slice, in the order of all outputs."""
        return in_order({name for run in self.study.runs for name in self.measurements[run, where].metrics})

    def diagnoses(self, run: str) -> tuple[dict[str, Any], ...]:
        """What each seed's training found of its losses (`add.diagnosis`); empty for results that lack it."""
        found = (self.results[run, seed].provenance.train.get("diagnosis") for seed in self.study.seeds)
        return tuple(each for each in found if isinstance(each, dict))

    def heads_separate(self, run: str) -> bool | None:
        """Whether the run's discriminators told real from generated images, with every seed; None where none says."""
        found = [each["heads_separate"] for each in self.diagnoses(run) if "heads_separate" in each]
        return all(found) if found else None

    def floors(self, where: Slice) -> dict[str, float]:
        """What real images score in a slice, by metric, if they were measured under the column's protocol."""
        sets = self.reference.real if self.reference else ()
        real = next((each.metrics for each in sets if each.prompts == where.prompts), {})
        columns = self.measurements[self.study.runs[0], where].metrics
        return {
            metric: real[metric].value
            for metric in self.metrics(where)
            if metric in real and real[metric].protocol == columns[metric].protocol
        }

    @property
    def first(self) -> Slice:
        """The slice of Table 1: the fewest steps, on the first prompt set that has an FID."""
        return self.headline[0]

    @property
    def last(self) -> Slice:
        """The same prompt set at the most steps."""
        return self.headline[-1]

    @property
    def headline(self) -> tuple[Slice, ...]:
        """The slices of the first prompt set that has an FID, in order of steps."""
        with_fid = [where for where in self.slices if "fid" in self.metrics(where)]
        if not with_fid:
            raise InputError("no prompt set has an FID: Table 1 cannot be made")
        return tuple(sorted(where for where in with_fid if where.prompts == with_fid[0].prompts))


def in_order(metrics: set[str]) -> tuple[str, ...]:
    """Metrics in the order of all outputs: the paper's and the oracle's first, others sorted by name."""
    known = ("fid", "kid", "clip_score", "alignment")
    return (*(name for name in known if name in metrics), *sorted(metrics - set(known)))


def collect(study: ReportStudy, results: Path) -> Report:
    """Reads every result of the study below `results` (results/<scale>) and aggregates over seeds.

    Raises:
        InputError: a result is missing, stale or malformed, or the numbers of one column have two protocols.
    """
    read = read_results(study, results)
    slices = _common_slices(read)
    by_run = {run: [read[run, seed] for seed in study.seeds] for run in study.runs}
    measurements = {(run, where): _measure(by_run[run], where) for run in study.runs for where in slices}
    reference = read_reference(results / "reference" / "reference.json")
    report = Report(study, slices, measurements, _protocols(read), read, reference)
    for where in slices:
        for metric in report.metrics(where):
            _check_column(report, where, metric)
    return report


def read_results(study: ReportStudy, results: Path) -> dict[tuple[str, int], Result]:
    """Every (run, seed) of the study, in the table's order.

    Raises:
        InputError: files are missing (all are named), or one belongs to another scale, run, seed or spec.
    """
    read: dict[tuple[str, int], Result] = {}
    for (run, seed), path in study.files(results, "result.json").items():
        result = read_result(path)
        found = (result.scale, result.run, result.seed)
        if found != (study.scale, run, seed):
            raise InputError(f"{path}: holds scale, run, seed {found}, not {(study.scale, run, seed)}")
        if result.spec_hash != study.spec_hashes[run]:
            reason = f"measured under spec {result.spec_hash}, but {run} is now {study.spec_hashes[run]}; "
            raise InputError(path, reason + "run `snakemake` to train it again")
        read[run, seed] = result
    return read


def _common_slices(read: dict[tuple[str, int], Result]) -> tuple[Slice, ...]:
    """The slices of all results, by prompt set in the order of the first result, then by steps.

    Raises InputError where a result lacks a slice or has it twice.
    """
    every = {key: [Slice(s.steps, s.prompts) for s in result.systems] for key, result in read.items()}
    for (run, seed), slices in every.items():
        if doubled := sorted({str(where) for where in slices if slices.count(where) > 1}):
            raise InputError(f"{run} seed {seed}: measured twice: {', '.join(doubled)}")
    union = list(dict.fromkeys(where for slices in every.values() for where in slices))
    absent = [(key, where) for key, slices in every.items() for where in union if where not in slices]
    lacking = [f"  {run} seed {seed}: {where}" for (run, seed), where in absent]
    if lacking or not union:
        raise InputError("measured for some runs only; score these too:\n" + "\n".join(lacking))
    prompts = list(dict.fromkeys(where.prompts for where in union))
    return tuple(sorted(union, key=lambda where: (prompts.index(where.prompts), where.steps)))


def _measure(seeds: Sequence[Result], where: Slice) -> Measurement:
    """One run's results, one for each seed, in one slice. Raises InputError where they do not match."""
    systems = [s for result in seeds for s in result.systems if Slice(s.steps, s.prompts) == where]
    names, images = sorted(systems[0].metrics), systems[0].images
    if any(system.images != images or sorted(system.metrics) != names for system in systems):
        raise InputError(f"{seeds[0].run}, {where}: the seeds differ in images or in metrics")
    return Measurement(images, {name: aggregate([s.metrics[name] for s in systems]) for name in names})


def aggregate(seeds: Sequence[Metric]) -> Estimate:
    """One metric over training seeds (at least one). Raises InputError where protocols or groups differ."""
    first = seeds[0]
    protocols = sorted({metric.protocol for metric in seeds})
    if len(protocols) > 1:
        raise InputError(f"seeds of one run were measured under different protocols: {', '.join(protocols)}")
    if any(set(metric.groups) != set(first.groups) for metric in seeds):
        raise InputError("seeds of one run have different attribute groups")
    values = [metric.value for metric in seeds]
    value, n = fmean(values), len(values)
    low, high = first.interval or (None, None)
    covers = (first.interval_covers or "not stated") if first.interval else ""
    seed_sd = None
    if n > 1:
        seed_sd = stdev(values)
        half = float(stdtrit(n - 1, 0.975)) * seed_sd / math.sqrt(n)
        low, high = value - half, value + half
        covers = f"training seeds (Student t, 95%, n = {n})"
    return Estimate(
        value=value,
        low=low,
        high=high,
        covers=covers,
        seed_sd=seed_sd,
        stderr=first.stderr if n == 1 else None,
        protocol=first.protocol,
        groups={name: fmean(metric.groups[name] for metric in seeds) for name in first.groups},
    )


def _protocols(read: dict[tuple[str, int], Result]) -> dict[str, dict[str, Any]]:
    """Every protocol that a number stands under, by hash. Raises InputError for one without its own hash."""
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
    """Raises InputError unless every run has this metric in this slice, all under one protocol."""
    by_protocol: dict[str, list[str]] = {}
    found = report.estimates(where, metric)
    for run in report.study.runs:
        by_protocol.setdefault(found[run].protocol if run in found else "not measured", []).append(run)
    if len(by_protocol) > 1:
        lines = "\n".join(f"  {name}: {', '.join(runs)}" for name, runs in sorted(by_protocol.items()))
        difference = ""
        try:
            one_protocol((name for name in by_protocol if name in report.protocols), report.protocols)
        except ProtocolMismatchError as error:
            difference = f"{error}.\n"
        raise InputError(
            f"{metric}, {where}: one column, several protocols:\n{lines}\n"
            f"{difference}Score these runs again under one protocol."
        )
