"""Which records of a study that grows still count? Those of the present table: as plain values, and held against one.

Code, settings and networks change while a study grows. A record stays in its store, but counts no longer where the run,
the method, a network or the measurement that it is of is another one now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from add.config.resolve import Table
from add.config.run import MetricName
from add.config.scale import CocoPromptsSpec, PromptsSpec, RepeatedPromptsSpec, Scale
from add.identity import METHOD, networks_of, spec_hash
from eval.metrics.catalogue import METRICS, definition_of
from eval.result import Result

Kind = Literal["scale", "run", "weights", "method", "spec", "images", "protocol"]
"""What a record is of another one of; of `images` it lacks some."""
_CLIP: tuple[MetricName, ...] = ("clip_score", "cmmd")
_ORACLE: tuple[MetricName, ...] = ("alignment",)


@dataclass(frozen=True)
class Mismatch:
    """Why a result is not of the present table, in a sentence without its subject."""

    kind: Kind
    message: str


@dataclass(frozen=True)
class PresentStudy:
    """The present table and its measurement, as far as a record can be held against them without data at hand.

    specs: each run's spec hash. weights: by run, the SHA-256 of each network that it loads, where it is stated.
    images: by prompt set and number of steps. protocols: by prompt set and metric, what the scale states of the
    protocol; a record's other fields (of data, of networks without a stated hash) are held against other records.
    """

    scale: str
    specs: dict[str, str]
    weights: dict[str, dict[str, str]]
    images: dict[str, dict[int, int]]
    protocols: dict[str, dict[str, dict[str, Any]]]


def present_study(scale: Scale, table: Table) -> PresentStudy:
    """What a scale and its table ask of a record."""
    sets = scale.sampling.prompts
    return PresentStudy(
        scale=scale.name,
        specs={name: spec_hash(run) for name, run in table.runs.items()},
        weights={
            name: {key: network.sha256 for key, network in networks_of(run).items() if network.sha256}
            for name, run in table.runs.items()
        },
        images={
            name: {steps: _count(prompts, steps) for steps in scale.sampling.steps}
            for name, prompts in sets.items()
        },
        protocols={
            name: {metric: _stated(scale, prompts, metric) for metric in METRICS}
            for name, prompts in sets.items()
        },
    )


def mismatches(result: Result, study: PresentStudy) -> Iterator[Mismatch]:
    """Why a result is not of the present table, what explains most first; nothing where it is."""
    if result.scale != study.scale:
        yield Mismatch("scale", f"is of scale '{result.scale}', the study is of '{study.scale}'")
    elif result.run not in study.specs:
        yield Mismatch("run", f"is of the run '{result.run}', which the table does not have")
    else:
        yield from _training(result, study)
        yield from _images(result, study)
        yield from _measurement(result, study)


def _training(result: Result, study: PresentStudy) -> Iterator[Mismatch]:
    """The first reason why it is not of this run as it is now."""
    train, run = result.provenance.train, result.run
    stated = train.get("weights")
    stated = stated if isinstance(stated, dict) else {}
    for name, sha256 in study.weights.get(run, {}).items():
        if name not in stated:
            yield Mismatch("weights", f"does not say by which {name} it was trained")
            return
        if stated[name] != sha256:
            message = f"was trained from other weights: {name} is {str(stated[name])[:12]}, here it is {sha256[:12]}"
            yield Mismatch("weights", message)
            return
    if train.get("method") != METHOD:
        message = f"was trained by version {train.get('method')} of the method, here it is {METHOD}"
        yield Mismatch("method", message)
    elif result.spec_hash != study.specs[run]:
        message = f"is of another spec of {run}: {result.spec_hash}, here it is {study.specs[run]}"
        yield Mismatch("spec", message)


def _images(result: Result, study: PresentStudy) -> Iterator[Mismatch]:
    there = {(system.prompts, system.steps): system for system in result.systems}
    for name, counts in study.images.items():
        for steps, count in counts.items():
            where = f"'{name}' at {steps} step(s)"
            if (system := there.get((name, steps))) is None:
                yield Mismatch("images", f"has no samples of {where}")
            elif system.images != count:
                asked = f"measured {system.images} images of {where}, the scale asks for {count}"
                yield Mismatch("images", asked)
            elif f"{name}-{steps}step" not in result.provenance.sample_sha256:
                yield Mismatch("images", f"does not say which images of {where} were measured")


def _measurement(result: Result, study: PresentStudy) -> Iterator[Mismatch]:
    """The first figure that was measured otherwise than the scale states now."""
    for system in result.systems:
        for metric, measured in system.metrics.items():
            stated = study.protocols.get(system.prompts, {}).get(metric, {})
            protocol = result.protocols.get(measured.protocol, {})
            for field, there, here in _differences(protocol, stated):
                message = (
                    f"was measured under another protocol: {metric} of '{system.prompts}' at {system.steps} step(s) "
                    f"has {field} {there!r}, here it is {here!r}"
                )
                yield Mismatch("protocol", message)
                return


def _count(prompts: PromptsSpec, steps: int) -> int:
    present = prompts.present if isinstance(prompts, CocoPromptsSpec) else None
    return present or prompts.at(steps).count


def _stated(scale: Scale, prompts: PromptsSpec, metric: MetricName) -> dict[str, Any]:
    """The fields of a metric's protocol (`eval.metrics.protocol.Protocol`) that follow from the scale's values."""
    evaluation = scale.evaluation
    if metric in _CLIP:
        sha256 = evaluation.clip.sha256
    elif metric in _ORACLE:
        sha256 = evaluation.oracle.sha256 if evaluation.oracle is not None else None
    else:
        sha256 = evaluation.extractor.sha256
    definition = definition_of(metric)
    if isinstance(prompts, RepeatedPromptsSpec):
        definition, prompts = definition_of(metric, prompts.images), prompts.of
    rule: dict[str, Any] = {"kind": prompts.kind}
    if isinstance(prompts, CocoPromptsSpec):
        first = prompts.caption_rule == "first"
        rule |= {"caption_rule": prompts.caption_rule, "rule_seed": None if first else prompts.rule_seed}
    else:
        rule |= {
            "exclude_challenges": list(prompts.exclude_challenges),
            "rule_seed": prompts.rule_seed,
        }
    return {
        "definition": definition,
        "sampling_seed": scale.sampling.seed,
        "prompts": rule,
        "image_rule": {"resolution": evaluation.resolution, "crop": evaluation.crop},
        "network": {"sha256": sha256} if sha256 else {},
        "reference": {"count": evaluation.reference.count},
    }


def _differences(
    protocol: Mapping[str, Any], stated: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(field, the protocol's, the stated) of each field that both have and that differs."""
    for key, here in stated.items():
        there = protocol.get(key)
        if isinstance(here, Mapping):
            if isinstance(there, Mapping):
                yield from _differences(there, here, f"{above}{key}.")
        elif key in protocol and there != here:
            yield f"{above}{key}", there, here
