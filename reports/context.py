"""What stands around the numbers: protocols and where they are used, provenance, times, reference values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from add.errors import InputError
from reports.cells import Report
from reports.render.layout import steps_text, style_of
from reports.study import flatten

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ProtocolText:
    """One protocol: its hash, the columns that stand under it, and every setting as text."""

    name: str
    used_by: tuple[str, ...]
    settings: Pairs


@dataclass(frozen=True)
class RunTime:
    """Seconds that one run took, summed over its training seeds; None where it was not recorded."""

    run: str
    train: float | None
    sample: float | None
    score: float | None


@dataclass(frozen=True)
class ReportProvenance:
    """What all results together say of where they come from."""

    commits: tuple[str, ...]
    hardware: Pairs
    versions: Pairs
    weights: Pairs
    times: tuple[RunTime, ...]


def protocol_texts(report: Report) -> tuple[ProtocolText, ...]:
    """Every protocol in the order of the columns that use it."""
    used: dict[str, list[str]] = {}
    for where in report.slices:
        for metric in report.metrics(where):
            estimate = report.estimate(report.study.runs[0], where, metric)
            if estimate is not None:
                column = f"{style_of(metric).title}, {where.prompts}, {steps_text(where.steps)}"
                used.setdefault(estimate.protocol, []).append(column)
    return tuple(
        ProtocolText(name, tuple(columns), flatten(report.protocols[name])) for name, columns in used.items()
    )


def provenance(report: Report) -> ReportProvenance:
    """Provenance over all results. Raises InputError where one network's weights have two hashes."""
    sources = [result.provenance for result in report.results.values()]
    weights: dict[str, str] = {}
    for (run, seed), result in report.results.items():
        stated = {**_section(result.provenance.train, "weights"), **result.provenance.weights}
        for name, digest in flatten(stated):
            if name and weights.setdefault(name, digest) != digest:
                raise InputError(
                    f"{run} seed {seed}: weights '{name}' have hash {digest}, another run's {weights[name]}: "
                    "the runs cannot be compared; train them again from the same weights"
                )
    return ReportProvenance(
        commits=tuple(sorted({source.commit or "not recorded" for source in sources})),
        hardware=_merged(source.hardware for source in sources),
        versions=_merged(source.versions for source in sources),
        weights=tuple(sorted(weights.items())),
        times=tuple(_times(report, run) for run in report.study.runs),
    )


def duration(seconds: float | None) -> str:
    """Seconds for a reader: "48 s", "12 min", "3.4 h"."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _merged(trees: Iterable[dict[str, Any]]) -> Pairs:
    """Flattened values of several results; where they differ, all values, sorted."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for key, value in flatten(tree):
            if key:
                found.setdefault(key, set()).add(value)
    return tuple((key, "; ".join(sorted(values))) for key, values in sorted(found.items()))


def _times(report: Report, run: str) -> RunTime:
    sources = [report.results[run, seed].provenance for seed in report.study.seeds]
    return RunTime(
        run=run,
        train=_total(source.train.get("wall_seconds") for source in sources),
        sample=_total(source.sample_seconds for source in sources),
        score=_total(source.score_seconds for source in sources),
    )


def _total(values: Iterable[Any]) -> float | None:
    """The sum of recorded seconds (a number, or one for each sample set); None where nothing is recorded."""
    numbers = [
        float(number)
        for value in values
        for number in (value.values() if isinstance(value, dict) else [value])
        if isinstance(number, int | float)
    ]
    return sum(numbers) if numbers else None


def train_facts(report: Report) -> Pairs:
    """What train.json says beyond times (device, threads, steps, versions), merged over runs."""
    left_out = {"versions", "weights", "seed", "spec_hash"}
    trees = [
        {k: v for k, v in result.provenance.train.items() if k not in left_out and "seconds" not in k}
        for result in report.results.values()
    ]
    return tuple((f"training: {key}", value) for key, value in _merged(trees))
