"""Claims across systems, each by its own number of steps: ADD by one step against LCM by one, ADD by four against the
teacher by 25.

A system that was trained here is a row with one observation for each training seed. One that was not (a teacher, a
pipeline, images of others) has one value, of which the error over images counts. Values are of as many images as all
numbers of steps have, and under one protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from add.config.resolve import Finding
from eval.findings.contrasts import Fit, Observation, RunSpread, Variance, fit
from eval.findings.measured import Measure, processor_of
from eval.findings.verdicts import LOGARITHMIC, Claim, transformed
from eval.result import Metric, Result, SystemResult, image_error


@dataclass(frozen=True)
class SystemRuns:
    """One system by one number of steps: a result for each training seed, or one alone where nothing was trained here.

    name: without the steps; what is by other steps, and has the same name, is the same student. run: of the table, for
    a student of ours.
    """

    name: str
    steps: int
    run: str | None
    results: tuple[Result | SystemResult, ...]

    def values(self, metric: str, prompts: str) -> Iterator[tuple[Result | SystemResult, Metric]]:
        """One metric of the images that are compared between numbers of steps, result by result."""
        for result in self.results:
            for system in result.systems:
                measured = system.comparable.metrics.get(metric)
                if (system.steps, system.prompts) == (self.steps, prompts) and measured is not None:
                    yield result, measured


def fit_systems(
    finding: Finding,
    claim: Claim,
    systems: Mapping[str, SystemRuns],
    prompts: str,
    spreads: Mapping[Measure, RunSpread] | None,
) -> Fit:
    """What a claim about systems is tested on.

    systems: by label with steps. The variance between runs of a system is that of all students by as many steps: by
    others they spread otherwise (the miniature's default 2.8 times as far in log FID by four as by one). spreads: how
    far runs spread, from another study, for systems with one training seed each. Raises ValueError with the reason why
    the claim cannot be tested.
    """
    return _fit(claim.runs, finding.metric, systems, prompts, spreads)


def fit_system(
    label: str,
    metric: str,
    systems: Mapping[str, SystemRuns],
    prompts: str,
    spreads: Mapping[Measure, RunSpread] | None,
) -> Fit | None:
    """The same for the mean of one system; None where nothing was trained here, or nothing says how far runs spread."""
    if not any(result.seed is not None for result in systems[label].results):
        return None
    try:
        return _fit((label,), metric, systems, prompts, spreads)
    except ValueError:
        return None


def _fit(
    asked: Sequence[str],
    metric: str,
    systems: Mapping[str, SystemRuns],
    prompts: str,
    spreads: Mapping[Measure, RunSpread] | None,
) -> Fit:
    """asked: the systems, by label, that means or differences are asked for."""
    steps = {systems[label].steps for label in asked if label in systems}
    found = {
        label: list(system.values(metric, prompts))
        for label, system in systems.items()
        if label in asked or (system.steps in steps and len({r.seed for r in system.results} - {None}) > 1)
    }
    if lacking := [label for label in asked if not found.get(label)]:
        whom = "" if len(lacking) == len(asked) else f" of {', '.join(lacking)}"
        raise ValueError(f"{metric} was not measured{whom}")
    protocols = {measured.protocol for label in asked for _, measured in found[label]}
    if len(protocols) > 1:
        raise ValueError(f"{metric} of its systems was measured under {len(protocols)} protocols")
    rows = {
        label: [_observation(label, metric, *each) for each in values]
        for label, values in found.items()
        if values and {measured.protocol for _, measured in values} == protocols
    }
    trained = [label for label, row in rows.items() if any(o.error is None for o in row)]
    every = [o for row in rows.values() for o in row]
    if not trained:
        return fit(every)
    if not any(len(rows[label]) > 1 for label in trained):
        return fit(every, _spread({label: systems[label] for label in trained}, metric, prompts, spreads))
    by_steps = {
        k: fit([o for label in trained if systems[label].steps == k for o in rows[label]]).spread
        for k in sorted({systems[label].steps for label in trained})
    }
    own = {label: by_steps[systems[label].steps].of(label) for label in trained}
    return fit(every, RunSpread(own[trained[0]], own))


def _observation(label: str, metric: str, result: Result | SystemResult, measured: Metric) -> Observation:
    value = transformed(metric, measured.value)
    if result.seed is not None:
        return Observation(label, result.seed, processor_of(result), value)
    error = image_error(measured)
    if error is None:
        raise ValueError(f"{label} has no training seed, and its {metric} states no error over images")
    relative = measured.value if metric in LOGARITHMIC else 1.0
    return Observation(label, None, processor_of(result), value, error / relative)


def _spread(
    trained: Mapping[str, SystemRuns],
    metric: str,
    prompts: str,
    spreads: Mapping[Measure, RunSpread] | None,
) -> RunSpread:
    """How far single runs spread, by what another study says of runs by as many steps."""
    variances: dict[str, Variance] = {}
    for label, system in trained.items():
        spread = (spreads or {}).get((metric, system.steps, prompts))
        if spread is None:
            raise ValueError(
                f"No study says how far runs by {system.steps} step(s) spread ({label}): give more seeds, or grow the "
                "replication"
            )
        variances[label] = spread.of(system.run or "")
    return RunSpread(next(iter(variances.values())), variances)
