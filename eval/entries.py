"""From what the networks said to the metrics of a result: value, interval, and the protocol of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.data.coco import read_captions
from add.models.weights import file_hash
from eval.images import stated_subset
from eval.metrics.alignment import Scene, alignment, scenes_of
from eval.metrics.clip_score import clip_score
from eval.metrics.features import RESIZE_FILTER
from eval.metrics.frechet import Statistics, bootstrap_interval, frechet_distance, statistics
from eval.metrics.kid import kernel_distance
from eval.metrics.networks import MetricNetworks, NetworkOutputs, measure
from eval.metrics.protocol import ImageRule, NetworkIdentity, PromptRule, Protocol, SourceIdentity, Subset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from add.config.scale import CocoPromptsSpec, EvaluationSpec, PartiPromptsSpec
    from eval.stage import MeasureValues

DEFINITIONS = {
    "fid": "squared Frechet distance of Gaussians, covariance with n - 1, float64",
    "kid": "unbiased squared MMD of all images, kernel (x.y / d + 1)^3",
    "clip_score": "mean cosine of image and prompt embeddings",
    "alignment": "share of images with every stated attribute right by the oracle",
}
COVERS = {
    "fid": "images (bootstrap, 95%)",
    "kid": "images (jackknife, 95%)",
    "clip_score": "images (standard error, 95%)",
    "alignment": "images (Wilson, 95%)",
}


@dataclass(frozen=True)
class ReferenceFeatures:
    """The real images that FID and KID compare with: features (m, d) and what follows from them alone."""

    source: SourceIdentity
    features: NDArray[np.float32]
    statistics: Statistics
    within_kernel: float


@dataclass(frozen=True)
class ScoredSet:
    """Metrics of one image set as in result.json, and the protocols they name; `features` for further use."""

    metrics: dict[str, dict[str, Any]]
    protocols: dict[str, dict[str, Any]]
    features: NDArray[np.float32] | None


def score_images(
    batches: Iterable[NDArray[np.uint8]],
    prompts: Sequence[str],
    name: str,
    values: MeasureValues,
    panel: MetricNetworks,
    reference: ReferenceFeatures,
) -> ScoredSet:
    """Every metric that applies to images made for (or, real ones, described by) the prompts of set `name`.

    FID and KID need a set whose prompts describe photographs (kind coco); alignment needs scenes.
    """
    photographs = values.prompts[name].kind == "coco"
    scenes = _scenes(values.evaluation, panel, prompts)
    measured = measure(
        batches,
        extractor=panel.extractor if photographs else None,
        clip=panel.clip,
        prompts=prompts,
        oracle=panel.oracle if scenes is not None else None,
    )
    metrics = _metrics(measured, scenes, reference, values.evaluation.bootstrap)
    protocols: dict[str, dict[str, Any]] = {}
    rule = prompt_rule(values.prompts[name], name, len(prompts))
    for metric, entry in metrics.items():
        protocol = _protocol(metric, values, rule, panel, reference.source)
        entry["protocol"] = protocol.id()
        protocols[protocol.id()] = protocol.values()
    return ScoredSet(metrics, protocols, measured.features)


def image_rule(evaluation: EvaluationSpec) -> ImageRule:
    """How images reach the networks."""
    return ImageRule(
        resolution=evaluation.resolution,
        crop=evaluation.crop,
        resize_filter=f"{RESIZE_FILTER}; CLIP: its own",
    )


def prompt_rule(config: CocoPromptsSpec | PartiPromptsSpec, name: str, count: int) -> PromptRule:
    """Where the `count` prompts of set `name` come from. Raises OSError where the file cannot be read."""
    file = config.annotations if config.kind == "coco" else config.file
    facts: dict[str, Any] = {"name": name, "kind": config.kind, "file": file, "count": count}
    facts["sha256"] = file_hash(Path(file))
    if config.kind == "coco":
        drawn = config.caption_rule == "random"
        return PromptRule(
            **facts,
            caption_rule=config.caption_rule,
            rule_seed=config.rule_seed if drawn else None,
            subset=subset_of(config),
        )
    return PromptRule(**facts, exclude_challenges=config.exclude_challenges, rule_seed=config.rule_seed)


def subset_of(config: CocoPromptsSpec) -> Subset | None:
    """The part of the listed photographs that a set is restricted to; None where it is not.

    Raises InputError.
    """
    if config.present is None:
        return None
    file = Path(config.annotations)
    names = list(read_captions(file).names.values())
    there = stated_subset(file, names, config.present)
    digest = hashlib.sha256("\n".join(there).encode()).hexdigest()
    return Subset(present=len(there), listed=len(names), sha256=digest)


def rank_note(images: int, references: int, dimensions: int) -> str | None:
    """What a reader of an FID must know where a covariance of its features is singular; else None.

    n images give a covariance of rank n - 1 at most. The distance is then still defined, but most directions
    were never measured, and its bias depends strongly on n.
    """
    if min(images, references) > dimensions:
        return None
    return (
        f"FID of {images} images against {references} in {dimensions} features: a covariance has a rank of at "
        f"most {min(images, references) - 1}; compare only with FIDs of the same numbers of images"
    )


def _scenes(evaluation: EvaluationSpec, panel: MetricNetworks, prompts: Sequence[str]) -> list[Scene] | None:
    if panel.scenes is None or evaluation.oracle is None:
        return None
    return scenes_of(prompts, panel.scenes, Path(evaluation.oracle.scenes))


def _metrics(
    measured: NetworkOutputs, scenes: list[Scene] | None, reference: ReferenceFeatures, resamples: int
) -> dict[str, dict[str, Any]]:
    metrics: dict[str, dict[str, Any]] = {}
    if measured.features is not None:
        value = frechet_distance(statistics(measured.features), reference.statistics)
        spread = bootstrap_interval(measured.features, reference.statistics, resamples)
        metrics["fid"] = _entry("fid", value, (spread.low, spread.high))
        count, dimensions = measured.features.shape
        if note := rank_note(count, reference.statistics.count, dimensions):
            metrics["fid"]["note"] = note
        kid = kernel_distance(measured.features, reference.features, within_reference=reference.within_kernel)
        metrics["kid"] = _entry("kid", kid.value, kid.interval)
    if measured.cosines is not None:
        score = clip_score(measured.cosines)
        metrics["clip_score"] = {
            **_entry("clip_score", score.value, score.interval),
            "stderr": score.error,
        }
    if measured.answers is not None and scenes is not None:
        right = alignment(measured.answers, scenes)
        metrics["alignment"] = {
            **_entry("alignment", right.value, right.interval),
            "groups": right.groups,
        }
    return metrics


def _entry(metric: str, value: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"value": value, "interval": list(interval), "interval_covers": COVERS[metric]}


def _protocol(
    metric: Any, values: MeasureValues, prompts: PromptRule, panel: MetricNetworks, reference: SourceIdentity
) -> Protocol:
    networks: dict[str, NetworkIdentity | None] = {
        "fid": panel.extractor.network,
        "kid": panel.extractor.network,
        "clip_score": panel.clip.network,
        "alignment": panel.oracle.extractor.network if panel.oracle else None,
    }
    network = networks[metric]
    oracle = values.evaluation.oracle
    if network is None:
        raise ValueError(f"{metric} was measured without its network")
    scenes = None
    if metric == "alignment" and oracle is not None and panel.scenes is not None:
        file = Path(oracle.scenes)
        scenes = SourceIdentity(file=oracle.scenes, sha256=file_hash(file), count=len(panel.scenes))
    return Protocol(
        schema=1,
        metric=metric,
        definition=DEFINITIONS[metric],
        images=prompts.count,
        sampling_seed=values.seed,
        prompts=prompts,
        image_rule=image_rule(values.evaluation),
        network=network,
        reference=reference if metric in ("fid", "kid") else None,
        scenes=scenes,
    )
