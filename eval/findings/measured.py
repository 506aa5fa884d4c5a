"""What do results say of a row? Its values as observations, what computed them, and how far its runs spread."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from eval.findings.contrasts import Fit, Observation, RunSpread, fit
from eval.findings.verdicts import transformed
from eval.result import Result, SystemResult

Results = Mapping[str, Sequence[Result]]
"""All results of each run, whatever their seed and processor."""
Measure = tuple[str, int, str]
"""A metric, the number of steps, and the prompt set."""


def measure_spreads(
    results: Results, protocols: Collection[str], comparable: bool = False
) -> dict[Measure, RunSpread]:
    """How far runs of one row spread, of everything that the results measure, under `protocols`, often enough.

    comparable: of the images that are compared between numbers of steps, as `observations` has it.
    """
    measures = dict.fromkeys(
        (metric, system.steps, system.prompts)
        for found in results.values()
        for result in found
        for system in result.systems
        for metric, measured in (system.comparable if comparable else system).metrics.items()
        if measured.protocol in protocols
    )
    spreads = {}
    for metric, steps, prompts in measures:
        try:
            found = [
                o
                for run in results
                for o in observations(run, results[run], metric, steps, prompts, comparable)
            ]
            spreads[metric, steps, prompts] = fit(found).spread
        except ValueError:  # a value without a logarithm, or no row with two runs
            continue
    return spreads


def observations(
    run: str, results: Sequence[Result], metric: str, steps: int, prompts: str, comparable: bool = False
) -> Iterator[Observation]:
    """One run's values of one metric. Raises ValueError where one has no place on the scale of contrasts.

    comparable: of the images that are compared between numbers of steps (`eval.result.ResultSystem.first`).
    """
    for result in results:
        for system in result.systems:
            metrics = (system.comparable if comparable else system).metrics
            if (system.steps, system.prompts) == (steps, prompts) and metric in metrics:
                value = transformed(metric, metrics[metric].value)
                yield Observation(run, result.seed, processor_of(result), value)


def processor_of(result: Result | SystemResult) -> str:
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
