"""Results of all runs and seeds -> one estimate for each run, number of steps, prompt set and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, geometric_mean, stdev
from typing import Any

from add.errors import InputError
from eval.findings.contrasts import Fit, RunSpread
from eval.findings.measured import (
    Measure,
    fit_measure,
    measure_spreads,
    observations,
    processor_of,
)
from eval.findings.page import Answer, answers
from eval.findings.store import read_store
from eval.findings.systems import SystemRuns
from eval.findings.verdicts import LOGARITHMIC
from eval.metrics.catalogue import METRICS
from eval.metrics.protocol import ProtocolMismatchError, one_protocol, protocol_id
from eval.result import (
    Metric,
    ReferenceResult,
    Result,
    ResultSystem,
    SystemResult,
    image_error,
    read_reference,
    read_result,
    read_system_result,
)
from reports.study import ReportStudy


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over a row's runs (of FID the geometric mean), and its total 95% interval.

    covers: what the interval is made of. Without a spread between runs, it is the one that scoring stated, of the
    images alone. runs: how many. seed_sd: the standard deviation between these runs (n - 1), None for one.
    """

    value: float
    low: float | None
    high: float | None
    covers: str
    runs: int
    seed_sd: float | None
    stderr: float | None
    protocol: str
    groups: dict[str, float]

    @property
    def is_total(self) -> bool:
        """Whether the interval holds the training seed."""
        return self.covers.startswith("total")


@dataclass(frozen=True, order=True)
class Slice:
    """What all numbers of one column share: the student's steps and the prompt set."""

    steps: int
    prompts: str

    def __str__(self) -> str:
        return f"{self.prompts} at {self.steps} step(s)"


@dataclass(frozen=True)
class Measurement:
    """One row's numbers in one slice. Each run was scored on `images` images."""

    images: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Report:
    """All that the outputs print. `protocols`: by hash. `results`: each run's, by seed and processor.

    fits: by slice and metric, what the rows' means and differences follow from; without an entry, nothing says how far
    runs spread. answers: to the study's findings. systems: by label with steps, those that something was measured of.
    comparable_spreads: how far runs spread, from another study, of the images that systems are compared on. by_steps:
    by number of steps, what the rows' findings would be answered at it; it is shown, and tests nothing. replicated:
    to the rows' findings, the answers of the larger study, judged as its own page.
    """

    study: ReportStudy
    slices: tuple[Slice, ...]
    measurements: dict[tuple[str, Slice], Measurement]
    protocols: dict[str, dict[str, Any]]
    results: dict[str, tuple[Result, ...]]
    reference: ReferenceResult | None
    fits: dict[tuple[Slice, str], Fit]
    answers: tuple[Answer, ...] = ()
    systems: Mapping[str, SystemRuns] = field(default_factory=dict)
    comparable_spreads: Mapping[Measure, RunSpread] = field(default_factory=dict)
    by_steps: Mapping[int, tuple[Answer, ...]] = field(default_factory=dict)
    replicated: tuple[Answer, ...] = ()

    def estimates(self, where: Slice, metric: str) -> dict[str, Estimate]:
        """One metric in one slice, by run in the table's order; empty if it was not measured there."""
        found = {run: self.measurements[run, where].metrics.get(metric) for run in self.study.runs}
        return {run: estimate for run, estimate in found.items() if estimate is not None}

    def comparable(self, where: Slice, metric: str) -> dict[str, Estimate]:
        """The same of as many images as every number of steps has, for comparing these."""
        found = {}
        made = _fit(self.results, where, metric, self.comparable_spreads, comparable=True)
        for run, whole in self.estimates(where, metric).items():
            sets = [_system(result, where) for result in self.results[run]]
            first = [each.first.metrics[metric] for each in sets if each.first is not None]
            found[run] = estimate(metric, run, first, made) if first else whole
        return found

    def metrics(self, where: Slice) -> tuple[str, ...]:
        """The metrics measured in a slice, in the order of all outputs."""
        return in_order({name for run in self.study.runs for name in self.measurements[run, where].metrics})

    def diagnoses(self, run: str) -> tuple[dict[str, Any], ...]:
        """What each seed's training found of its losses (`add.diagnosis`); empty for results that lack it."""
        found = (result.provenance.train.get("diagnosis") for result in self.results[run])
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
    """Metrics in the order of all outputs: those that evaluation knows first, others sorted by name."""
    return (*(name for name in METRICS if name in metrics), *sorted(metrics - set(METRICS)))


def collect(study: ReportStudy, results: Path, replication: Path | None = None) -> Report:
    """Reads every result of the study below `results` (results/<scale>) and estimates every row.

    replication: the store of a larger study, which says how far runs spread: with one run a row, nothing else does.

    Raises:
        InputError: a result is missing, stale or malformed, or the numbers of one column have two protocols.
    """
    read = read_results(study, results)
    by_run = {run: tuple(read[run, seed] for seed in study.seeds) for run in study.runs}
    spreads: dict[Measure, RunSpread] = {}
    comparable: dict[Measure, RunSpread] = {}
    counted = None if replication is None else read_store(replication).counted(study.present)
    if counted is not None:
        larger = counted.results
        protocols = {name for result in read.values() for name in result.protocols}
        spreads = measure_spreads(larger, protocols)
        comparable = measure_spreads(larger, protocols, comparable=True)
    reference = read_reference(results / "reference" / "reference.json")
    systems = read_systems(study, by_run)
    report = summarise(study, by_run, reference, spreads, systems=systems, comparable_spreads=comparable)
    if counted is None or not counted.there or not report.by_steps:
        return report
    of_rows = [finding for finding in study.findings if finding.steps is not None]
    return replace(report, replicated=answers(of_rows, counted.there, report.first.prompts, growing=True))


def summarise(
    study: ReportStudy,
    results: dict[str, tuple[Result, ...]],
    reference: ReferenceResult | None,
    spreads: Mapping[Measure, RunSpread] | None = None,
    growing: bool = False,
    systems: Mapping[str, SystemRuns] | None = None,
    comparable_spreads: Mapping[Measure, RunSpread] | None = None,
) -> Report:
    """Every row's estimates and the answers to the findings, from each run's results, one at least.

    growing: the results are those of a study that is looked at again and again. systems, comparable_spreads: as
    `eval.findings.page.answers` has them. Raises InputError as `collect` does.
    """
    flat = {f"{run}, seed {r.seed} on {processor_of(r)}": r for run in study.runs for r in results[run]}
    slices = _common_slices(flat)
    fits: dict[tuple[Slice, str], Fit] = {}
    measurements: dict[tuple[str, Slice], Measurement] = {}
    for where in slices:
        sets = {run: [_system(result, where) for result in results[run]] for run in study.runs}
        for metric in sorted({name for found in sets.values() for s in found for name in s.metrics}):
            if (made := _fit(results, where, metric, spreads)) is not None:
                fits[where, metric] = made
        for run in study.runs:
            measurements[run, where] = _measure(run, sets[run], where, fits)
    report = Report(
        study,
        slices,
        measurements,
        _protocols(flat),
        results,
        reference,
        fits,
        systems=systems or {},
        comparable_spreads=comparable_spreads or {},
    )
    for where in slices:
        for metric in report.metrics(where):
            _check_column(report, where, metric)
    prompts = report.first.prompts if study.findings else ""
    asked = answers(study.findings, results, prompts, spreads, growing, report.systems, comparable_spreads)
    of_rows = [finding for finding in study.findings if finding.steps is not None]
    every = sorted({where.steps for where in slices}) if of_rows else []
    by_steps = {
        steps: answers([replace(f, steps=steps) for f in of_rows], results, prompts, spreads)
        for steps in every
    }
    return replace(report, answers=asked, by_steps=by_steps)


def read_systems(study: ReportStudy, results: Mapping[str, Sequence[Result]]) -> dict[str, SystemRuns]:
    """The results of every system that has some, by its label with steps.

    results: the table's, which a student's are at a number of steps that the table samples. Raises InputError where a
    file is missing or broken.
    """
    found = {}
    for system in study.systems:
        own = results.get(system.run or "", ())
        if any(each.steps == system.steps for result in own for each in result.systems):
            read: tuple[Result | SystemResult, ...] = tuple(own)
        else:
            read = tuple(read_system_result(Path(file)) for file in system.results)
        if read:
            found[system.label] = SystemRuns(system.name, system.steps, system.run, read)
    return found


def _fit(
    results: Mapping[str, Sequence[Result]],
    where: Slice,
    metric: str,
    spreads: Mapping[Measure, RunSpread] | None,
    comparable: bool = False,
) -> Fit | None:
    """How the rows' means and differences follow from the runs; None where nothing says how far runs spread."""
    try:
        found = [
            o
            for run in results
            for o in observations(run, results[run], metric, where.steps, where.prompts, comparable)
        ]
        return fit_measure(found, (metric, where.steps, where.prompts), spreads)
    except ValueError:
        return None


def _system(result: Result, where: Slice) -> ResultSystem:
    return next(s for s in result.systems if Slice(s.steps, s.prompts) == where)


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


def _common_slices(read: Mapping[str, Result]) -> tuple[Slice, ...]:
    """The slices of all results, by prompt set in the order of the first result, then by steps.

    Raises InputError where a result lacks a slice.
    """
    every = {key: [Slice(s.steps, s.prompts) for s in result.systems] for key, result in read.items()}
    union = list(dict.fromkeys(where for slices in every.values() for where in slices))
    absent = [(key, where) for key, slices in every.items() for where in union if where not in slices]
    lacking = [f"  {name}: {where}" for name, where in absent]
    if lacking or not union:
        raise InputError("measured for some runs only; score these too:\n" + "\n".join(lacking))
    prompts = list(dict.fromkeys(where.prompts for where in union))
    return tuple(sorted(union, key=lambda where: (prompts.index(where.prompts), where.steps)))


def _measure(
    run: str, systems: Sequence[ResultSystem], where: Slice, fits: Mapping[tuple[Slice, str], Fit]
) -> Measurement:
    """One row's estimates in one slice, from a system of each of its runs. Raises InputError where they differ."""
    names, images = sorted(systems[0].metrics), systems[0].images
    if any(system.images != images or sorted(system.metrics) != names for system in systems):
        raise InputError(f"{run}, {where}: the seeds differ in images or in metrics")
    found = {
        name: estimate(name, run, [s.metrics[name] for s in systems], fits.get((where, name)))
        for name in names
    }
    return Measurement(images, found)


def estimate(metric: str, run: str, values: Sequence[Metric], made: Fit | None) -> Estimate:
    """One metric over a row's runs (at least one). Raises InputError where protocols or groups differ.

    The total variance is that between runs, which holds seed and processor, and those over images and reference images,
    which all runs share and more runs do not lessen. A share stays between 0 and 1.
    """
    first, n = values[0], len(values)
    protocols = sorted({each.protocol for each in values})
    if len(protocols) > 1:
        raise InputError(f"seeds of one run were measured under different protocols: {', '.join(protocols)}")
    if any(set(each.groups) != set(first.groups) for each in values):
        raise InputError("seeds of one run have different attribute groups")
    sd = stdev(each.value for each in values) if n > 1 else None
    value = fmean(each.value for each in values)
    low, high = first.interval or (None, None)
    covers = (first.interval_covers or "not stated") if first.interval else ""
    if made is None and n > 1:  # one run's interval is not that of a mean
        low, high, covers = None, None, ""
        if metric in LOGARITHMIC and min(each.value for each in values) > 0:
            value = geometric_mean(each.value for each in values)
    if made is not None:
        mean = made.mean(run)
        logarithmic = metric in LOGARITHMIC
        value = math.exp(mean.estimate) if logarithmic else mean.estimate
        shared = _shared_errors(values, logarithmic)
        low, high = replace(mean, error=math.hypot(mean.error, *shared)).interval()
        if logarithmic:
            low, high = math.exp(low), math.exp(high)
        if any(metric == name and facts.share for name, facts in METRICS.items()):
            low, high = max(0.0, low), min(1.0, high)
        covers = f"total: images{', reference' * (len(shared) > 1)}, seed, processor (95%, runs {n})"
    return Estimate(
        value=value,
        low=low,
        high=high,
        covers=covers,
        runs=n,
        seed_sd=sd,
        stderr=fmean(each.stderr for each in values if each.stderr is not None)
        if first.stderr is not None
        else None,
        protocol=first.protocol,
        groups={name: fmean(each.groups[name] for each in values) for name in first.groups},
    )


def _shared_errors(values: Sequence[Metric], relative: bool) -> list[float]:
    """The mean standard errors over images and, where runs state it, over reference images, relative to the value."""
    units = [each.value if relative else 1.0 for each in values]
    images = [
        error / unit for v, unit in zip(values, units, strict=True) if (error := image_error(v)) is not None
    ]
    reference = [
        v.reference_stderr / unit
        for v, unit in zip(values, units, strict=True)
        if v.reference_stderr is not None
    ]
    return [fmean(errors) for errors in (images, reference) if errors]


def budget(report: Report, where: Slice, metric: str) -> dict[str, float] | None:
    """The standard deviations that a value of one run is made of, of FID as fractions of it, means over the rows.

    `between runs`: training seed and processor together. `processor`: what the processors differ by, where there are
    several. None where nothing says how far runs spread.
    """
    made = report.fits.get((where, metric))
    if made is None:
        return None
    relative = metric in LOGARITHMIC
    values = [_system(result, where).metrics[metric] for found in report.results.values() for result in found]
    images = [error / (v.value if relative else 1.0) for v in values if (error := image_error(v)) is not None]
    reference = [
        v.reference_stderr / (v.value if relative else 1.0) for v in values if v.reference_stderr is not None
    ]
    trained = [row for row in made.rows if row not in made.fixed]
    parts = {"between runs": math.sqrt(fmean(made.spread.of(row).value for row in trained))}
    if len(made.processors) > 1:
        shifts = list(made.processors.values())
        parts["processor"] = stdev(shifts)
    parts |= {
        name: fmean(errors) for name, errors in (("images", images), ("reference", reference)) if errors
    }
    return parts


def _protocols(read: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
    """Every protocol that a number stands under, by hash. Raises InputError for one without its own hash."""
    merged: dict[str, dict[str, Any]] = {}
    for source, result in read.items():
        used = {metric.protocol for system in result.systems for metric in system.metrics.values()}
        if absent := sorted(used - set(result.protocols)):
            raise InputError(f"{source}: protocols not described: {', '.join(absent)}")
        for name in sorted(used):
            if (found := protocol_id(result.protocols[name])) != name:
                raise InputError(f"{source}: what is called protocol {name} is protocol {found}")
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
