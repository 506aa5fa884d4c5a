"""What stands around the numbers: the protocols and the columns that use them, provenance, and times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from add.errors import InputError
from eval.result import ResultProvenance
from reports.cells import Report
from reports.layout import steps_text, style_of
from reports.study import flatten

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ProtocolText:
    """One protocol: its hash, the columns that stand under it, and every setting as text."""

    name: str
    used_by: tuple[str, ...]
    settings: Pairs


def protocol_texts(report: Report) -> tuple[ProtocolText, ...]:
    """Every protocol in the order of the columns that use it."""
    used: dict[str, list[str]] = {}
    for where in report.slices:
        for metric in report.metrics(where):
            protocol = report.estimates(where, metric)[report.study.runs[0]].protocol
            column = f"{style_of(metric).title}, {where.prompts}, {steps_text(where.steps)}"
            used.setdefault(protocol, []).append(column)
    return tuple(
        ProtocolText(name, tuple(columns), flatten(report.protocols[name])) for name, columns in used.items()
    )


@dataclass(frozen=True)
class RunTime:
    """Seconds that one run took, summed over its training seeds; None where it was not recorded."""

    run: str
    train: float | None
    sample: float | None
    score: float | None


@dataclass(frozen=True)
class ReportProvenance:
    """Where all results together come from. `training`: what train.json says beyond times, versions and weights."""

    commits: tuple[str, ...]
    hardware: Pairs
    training: Pairs
    versions: Pairs
    weights: Pairs
    times: tuple[RunTime, ...]


def provenance(report: Report) -> ReportProvenance:
    """Provenance over all results. Raises InputError where the weights of one network have two hashes."""
    sources = [result.provenance for result in report.results.values()]
    return ReportProvenance(
        commits=tuple(sorted({source.commit or "not recorded" for source in sources})),
        hardware=_merged(source.hardware for source in sources),
        training=tuple((f"training: {key}", value) for key, value in _merged(map(_train_facts, sources))),
        versions=_merged(source.versions for source in sources),
        weights=_weights(report),
        times=tuple(_times(report, run) for run in report.study.runs),
    )


def _weights(report: Report) -> Pairs:
    weights: dict[str, str] = {}
    for (run, seed), result in report.results.items():
        trained = result.provenance.train.get("weights")
        stated = {**(trained if isinstance(trained, dict) else {}), **result.provenance.weights}
        for name, digest in flatten(stated):
            if name and weights.setdefault(name, digest) != digest:
                raise InputError(
                    f"{run} seed {seed}: weights '{name}' have hash {digest}, another run's {weights[name]}: "
                    "the runs cannot be compared; train them again from the same weights"
                )
    return tuple(sorted(weights.items()))


def _train_facts(source: ResultProvenance) -> dict[str, Any]:
    left_out = {"versions", "weights", "seed", "spec_hash"}
    return {k: v for k, v in source.train.items() if k not in left_out and "seconds" not in k}


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
    """The sum of recorded seconds (a number, or one for each sample set); None if nothing was recorded."""
    numbers = [
        float(number)
        for value in values
        for number in (value.values() if isinstance(value, dict) else [value])
        if isinstance(number, int | float)
    ]
    return sum(numbers) if numbers else None


def duration(seconds: float | None) -> str:
    """Seconds for a reader: "48 s", "12 min", "3.4 h"."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
