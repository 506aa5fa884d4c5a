"""One page of claims: the findings of the ablations, judged on results."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from add.config.resolve import Finding
from eval.findings.contrasts import Fit, Observation, RunSpread, fit
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
from eval.result import Result

Results = Mapping[str, Sequence[Result]]
"""All results of each run, whatever their seed and processor."""
Measure = tuple[str, int, str]
"""A metric, the student's steps, and the prompt set."""


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
) -> tuple[Answer, ...]:
    """Every finding's answer, in order.

    prompts: the set that the values are of; of a metric that is not measured there, the first that it is measured on
    (the diversity within one prompt has a set of its own). spreads: how far runs spread, from another study, for
    results with one run a row. growing: the results are those of a study that is looked at again and again
    (`verdicts.look`).
    """
    reasons: dict[int, str] = {}
    asked: dict[int, tuple[Claim, Fit, float]] = {}
    for k, finding in enumerate(findings):
        claim = claim_of(finding)
        its_set = _set_of(finding, results, prompts)
        found, reason = _seen(finding, claim, results, its_set)
        if reason is None:
            level = LEVEL
            if growing:
                found, level = look(found, claim)
            try:
                made = fit_measure(found, (finding.metric, finding.steps, its_set), spreads)
                asked[k] = claim, made, level
            except ValueError as error:
                reason = str(error)
        if reason is not None:
            reasons[k] = reason
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


def measure_spreads(results: Results, protocols: Collection[str]) -> dict[Measure, RunSpread]:
    """How far runs of one row spread, of everything that the results measure, under `protocols`, often enough."""
    measures = dict.fromkeys(
        (metric, system.steps, system.prompts)
        for found in results.values()
        for result in found
        for system in result.systems
        for metric, measured in system.metrics.items()
        if measured.protocol in protocols
    )
    spreads = {}
    for metric, steps, prompts in measures:
        try:
            found = [o for run in results for o in observations(run, results[run], metric, steps, prompts)]
            spreads[metric, steps, prompts] = fit(found).spread
        except ValueError:  # a value without a logarithm, or no row with two runs
            continue
    return spreads


def observations(
    run: str, results: Sequence[Result], metric: str, steps: int, prompts: str
) -> Iterator[Observation]:
    """One run's values of one metric. Raises ValueError where one has no place on the scale of contrasts."""
    for result in results:
        for system in result.systems:
            if (system.steps, system.prompts) == (steps, prompts) and metric in system.metrics:
                value = transformed(metric, system.metrics[metric].value)
                yield Observation(run, result.seed, processor_of(result), value)


def processor_of(result: Result) -> str:
    """What computed a result: another one is another draw."""
    return processor_name(result.provenance.hardware)


def processor_name(hardware: Mapping[str, Any]) -> str:
    """What tells machines apart that `eval.result.hardware` describes: the accelerator, where there is one.

    Of a processor it is the marketing name with family, model, stepping and the instructions that PyTorch uses, since
    cloud machines of several generations have one name. Records that do not state these have the name alone.
    """
    if accelerator := hardware.get("accelerator"):
        return str(accelerator)
    numbers = [hardware[key] for key in ("family", "model", "stepping") if hardware.get(key) is not None]
    kind = [f"family/model/stepping {'/'.join(map(str, numbers))}"] if numbers else []
    kind += [str(hardware["simd"])] if hardware.get("simd") else []
    name = str(hardware.get("processor") or "unknown")
    return f"{name} ({', '.join(kind)})" if kind else name


def fit_measure(
    found: Sequence[Observation], measure: Measure, spreads: Mapping[Measure, RunSpread] | None
) -> Fit:
    """`fit`, with another study's spread where these results have one run a row. Raises ValueError as it does."""
    alone = len({o.row for o in found}) == len(found)
    return fit(found, spreads.get(measure) if spreads and alone else None)


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


def _seen(
    finding: Finding, claim: Claim, results: Results, prompts: str
) -> tuple[tuple[Observation, ...], str | None]:
    """What there is of all rows, of which the pooled variance is, and why that is not enough."""
    if not claim.pairs or set(claim.rows) & set(claim.others):
        return (), "its rows are one run: their values are equal"
    found = {}
    try:
        for run in results:
            found[run] = list(observations(run, results[run], finding.metric, finding.steps, prompts))
    except ValueError as error:
        return (), str(error)
    if lacking := [run for run in claim.runs if not found.get(run)]:
        whom = "" if len(lacking) == len(claim.runs) else f" of {', '.join(lacking)}"
        return (), f"{finding.metric} was not measured{whom}"
    return tuple(o for values in found.values() for o in values), None
