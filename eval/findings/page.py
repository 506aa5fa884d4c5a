"""One page of claims: the findings of the ablations and of the systems, judged on results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from add.config.resolve import Finding
from eval.findings.contrasts import Fit, Observation, RunSpread
from eval.findings.measured import Measure, Results, fit_measure, observations
from eval.findings.systems import SystemRuns, fit_systems
from eval.findings.verdicts import (
    DEFAULT_MARGIN,
    LEVEL,
    LOGARITHMIC,
    MARGINS,
    Claim,
    Judged,
    judge,
    look,
    transformed,
)
from eval.metrics.catalogue import METRICS


@dataclass(frozen=True)
class Answer:
    """A finding and what the results say of it; `judged` is None where they cannot be asked, and `reason` says why."""

    finding: Finding
    judged: Judged | None
    reason: str | None = None

    @property
    def verdict(self) -> str:
        """One word."""
        return self.judged.verdict if self.judged else "not tested"

    @property
    def published(self) -> float | None:
        """The published difference of the pair that decides, on the scale of contrasts."""
        if self.judged is None:
            return None
        row, other = (self.finding.published.get(run) for run in self.judged.pair)
        if row is None or other is None:
            return None
        return transformed(self.finding.metric, row) - transformed(self.finding.metric, other)


def answers(
    findings: Sequence[Finding],
    results: Results,
    prompts: str,
    spreads: Mapping[Measure, RunSpread] | None = None,
    growing: bool = False,
    systems: Mapping[str, SystemRuns] | None = None,
    comparable_spreads: Mapping[Measure, RunSpread] | None = None,
) -> tuple[Answer, ...]:
    """Every finding's answer, in order.

    prompts: the set that the values are of; of a metric that is not measured there, the first that it is measured on
    (the diversity within one prompt has a set of its own). spreads: how far runs spread, from another study, for
    results with one run a row. growing: the results are those of a study that is looked at again and again
    (`verdicts.look`). systems: by label with steps, for claims about these. comparable_spreads: as `spreads`, of the
    images that are compared between numbers of steps.
    """
    reasons: dict[int, str] = {}
    asked: dict[int, tuple[Claim, Fit, float]] = {}
    for k, finding in enumerate(findings):
        claim = claim_of(finding)
        try:
            level = LEVEL
            if finding.steps is None:
                made = fit_systems(finding, claim, systems or {}, prompts, comparable_spreads)
            else:
                measure = finding.metric, finding.steps, _set_of(finding, results, prompts)
                found = _seen(claim, results, measure)
                if growing:
                    found, level = look(found, claim)
                made = fit_measure(found, measure, spreads)
            if any(made.difference(*pair).error == 0 for pair in claim.pairs):
                raise ValueError("neither runs nor images vary, so that nothing can be tested")
            asked[k] = claim, made, level
        except ValueError as error:
            reasons[k] = str(error)
    judged = judge(*zip(*asked.values(), strict=True)) if asked else ()
    by_place = dict(zip(asked, judged, strict=True))
    return tuple(Answer(f, by_place.get(k), reasons.get(k)) for k, f in enumerate(findings))


def claim_of(finding: Finding) -> Claim:
    """A finding as what is tested."""
    margin = MARGINS.get(finding.metric, DEFAULT_MARGIN)
    if finding.margin is not None:
        margin = math.log1p(finding.margin) if finding.metric in LOGARITHMIC else finding.margin
    larger = not METRICS[finding.metric].smaller_is_better
    return Claim(finding.claim, finding.rows, finding.relation, finding.others, margin, larger)


def _set_of(finding: Finding, results: Results, prompts: str) -> str:
    """The prompt set that a finding's metric is measured on, `prompts` where that is one of several."""
    sets = [
        system.prompts
        for found in results.values()
        for result in found
        for system in result.systems
        if system.steps == finding.steps and finding.metric in system.metrics
    ]
    return prompts if prompts in sets or not sets else sets[0]


def _seen(claim: Claim, results: Results, measure: Measure) -> tuple[Observation, ...]:
    """What there is of all rows, of which the variance between runs is. Raises ValueError where that is not enough."""
    if not claim.pairs or set(claim.rows) & set(claim.others):
        raise ValueError("its rows are one run: their values are equal")
    found = {run: list(observations(run, results[run], *measure)) for run in results}
    if lacking := [run for run in claim.runs if not found.get(run)]:
        whom = "" if len(lacking) == len(claim.runs) else f" of {', '.join(lacking)}"
        raise ValueError(f"{measure[0]} was not measured{whom}")
    return tuple(o for values in found.values() for o in values)
