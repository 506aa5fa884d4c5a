"""What stands around the numbers, as JSON values: protocols and the columns that use them, provenance, times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from add.errors import InputError
from eval.result import ResultProvenance
from reports.cells import Report
from reports.layout import ABSENT, steps_text, style_of
from reports.study import flatten

Pairs = tuple[tuple[str, str], ...]


def protocols(report: Report) -> list[dict[str, Any]]:
    """Every protocol's hash, columns and settings, in the order of the columns that use it."""
    used: dict[str, list[str]] = {}
    for where in report.slices:
        for metric in report.metrics(where):
            protocol = report.estimates(where, metric)[report.study.runs[0]].protocol
            column = f"{style_of(metric).title}, {where.prompts}, {steps_text(where.steps)}"
            used.setdefault(protocol, []).append(column)
    return [
        {"name": name, "used_by": "; ".join(columns), "settings": flatten(report.protocols[name])}
        for name, columns in used.items()
    ]


def provenance(report: Report) -> dict[str, Any]:
    """Where all results together come from. `training`: train.json without times, versions and weights.

    Raises InputError where the weights of one network have two hashes.
    """
    sources = [result.provenance for found in report.results.values() for result in found]
    left_out = {"versions", "weights", "seed", "spec_hash", "diagnosis"}  # the last has a table of its own
    facts = (
        {key: value for key, value in source.train.items() if key not in left_out and "seconds" not in key}
        for source in sources
    )
    return {
        "commits": ", ".join(sorted({source.commit or "not recorded" for source in sources})),
        "hardware": _merged(source.hardware for source in sources),
        "sampling": _merged(how for source in sources for how in _sampled(source)),
        "training": [(f"training: {key}", value) for key, value in _merged(facts)],
        "versions": _merged(source.versions for source in sources),
        "weights": _weights(report),
    }


def _sampled(source: ResultProvenance) -> Iterator[dict[str, Any]]:
    """How each sample set was drawn, under its number of steps, and how many prompts its text encoders cut off."""
    for name, how in source.sampling.items():
        yield {name.rpartition("-")[2].replace("step", "-step"): how.get("sampler", {})}
        yield {"prompts cut off": {name: how.get("truncated_prompts", ABSENT.value)}}


def _weights(report: Report) -> Pairs:
    weights: dict[str, str] = {}
    for run, result in ((run, result) for run, found in report.results.items() for result in found):
        trained = result.provenance.train.get("weights")
        stated = {**(trained if isinstance(trained, dict) else {}), **result.provenance.weights}
        for name, digest in flatten(stated):
            if name and weights.setdefault(name, digest) != digest:
                raise InputError(
                    f"{run} seed {result.seed}: weights '{name}' have hash {digest}, another run's {weights[name]}: "
                    "the runs cannot be compared; train them again from the same weights"
                )
    return tuple(sorted(weights.items()))


def _merged(trees: Iterable[dict[str, Any]]) -> Pairs:
    """Flattened values of several results; where they differ, all values, sorted."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for key, value in flatten(tree):
            if key:
                found.setdefault(key, set()).add(value)
    return tuple((key, "; ".join(sorted(values))) for key, values in sorted(found.items()))


def times(report: Report) -> dict[str, list[str]]:
    """How long training, sampling and scoring of each run took, summed over its training seeds."""
    return {run: [_duration(seconds) for seconds in _seconds(report, run)] for run in report.study.runs}


def training_time(report: Report) -> str | None:
    """How long training took for all runs together; None if it was not recorded."""
    total = sum(_seconds(report, run)[0] or 0.0 for run in report.study.runs)
    return _duration(total) if total else None


def _seconds(report: Report, run: str) -> tuple[float | None, ...]:
    sources = [result.provenance for result in report.results[run]]
    recorded = [(s.train.get("wall_seconds"), s.sample_seconds, s.score_seconds) for s in sources]
    return tuple(_total(values) for values in zip(*recorded, strict=True))


def _total(values: Iterable[Any]) -> float | None:
    """The sum of recorded seconds (a number, or one for each sample set); None if nothing was recorded."""
    flat = chain.from_iterable(value.values() if isinstance(value, dict) else [value] for value in values)
    numbers = [float(number) for number in flat if isinstance(number, int | float)]
    return sum(numbers) if numbers else None


def _duration(seconds: float | None) -> str:
    """Seconds for a reader: "48 s", "12 min", "3.4 h"."""
    if seconds is None:
        return ABSENT.value
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
