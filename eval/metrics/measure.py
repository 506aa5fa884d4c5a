"""Images shown to the metric networks once, and what follows: each metric with its interval and its protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from add.data.coco import read_captions
from add.models.weights import file_hash
from eval.images import stated_subset
from eval.metrics.alignment import Oracle, Scene, alignment, load_oracle, read_scenes, scenes_of
from eval.metrics.clip_score import Clip, clip_score, load_clip
from eval.metrics.features import RESIZE_FILTER, Extractor, ImageBatch, load_extractor
from eval.metrics.frechet import Statistics, bootstrap_interval, frechet_distance, statistics
from eval.metrics.kid import kernel_distance
from eval.metrics.protocol import ImageRule, NetworkIdentity, PromptRule, Protocol, SourceIdentity, Subset
from eval.result import Metric

if TYPE_CHECKING:
    from add.config.scale import CocoPromptsSpec, EvaluationSpec, PartiPromptsSpec
    from eval.stage import MeasureValues

MetricName = Literal["fid", "kid", "clip_score", "alignment"]

DEFINITIONS: dict[MetricName, str] = {
    "fid": "squared Frechet distance of Gaussians, covariance with n - 1, float64",
    "kid": "unbiased squared MMD of all images, kernel (x.y / d + 1)^3",
    "clip_score": "mean cosine of image and prompt embeddings",
    "alignment": "share of images with every stated attribute right by the oracle",
}
COVERS: dict[MetricName, str] = {
    "fid": "images (bootstrap, 95%)",
    "kid": "images (jackknife, 95%)",
    "clip_score": "images (standard error, 95%)",
    "alignment": "images (Wilson, 95%)",
}


@dataclass(frozen=True)
class MetricNetworks:
    """The networks that measure; `oracle` and `scenes` (prompt -> scene) where the scale has them."""

    extractor: Extractor
    clip: Clip
    oracle: Oracle | None
    scenes: dict[str, Scene] | None

    def weights(self) -> dict[str, str]:
        """The sha256 of each network's weights."""
        found = {"extractor": self.extractor.network.sha256, "clip": self.clip.network.sha256}
        return found if self.oracle is None else found | {"oracle": self.oracle.extractor.network.sha256}


@dataclass(frozen=True)
class NetworkOutputs:
    """What the networks say about n images, in their order; None for a network that was not asked.

    features: float32 (n, d). cosines: float64 (n,), image against prompt. answers: the oracle's, by group.
    """

    features: NDArray[np.float32] | None
    cosines: NDArray[np.float64] | None
    answers: list[dict[str, str]] | None


@dataclass(frozen=True)
class ReferenceFeatures:
    """The real images that FID and KID compare with: features (m, d) and what follows from them alone."""

    source: SourceIdentity
    features: NDArray[np.float32]
    statistics: Statistics
    within_kernel: float


@dataclass(frozen=True)
class ScoredSet:
    """Metrics of one image set, and their protocols by id; `features` for further use."""

    metrics: dict[str, Metric]
    protocols: dict[str, dict[str, Any]]
    features: NDArray[np.float32] | None


def load_metric_networks(evaluation: EvaluationSpec, device: str = "cpu") -> MetricNetworks:
    """Load all networks that `evaluation` names. Raises WeightsError, InputError."""
    oracle = scenes = None
    if evaluation.oracle is not None:
        oracle = load_oracle(evaluation.oracle, device)
        scenes = read_scenes(Path(evaluation.oracle.scenes), oracle.groups)
    clip = load_clip(evaluation.clip, device)
    return MetricNetworks(load_extractor(evaluation.extractor, device), clip, oracle, scenes)


def measure(
    batches: Iterable[NDArray[np.uint8]],
    *,
    extractor: Extractor | None = None,
    clip: Clip | None = None,
    prompts: Sequence[str] = (),
    oracle: Oracle | None = None,
) -> NetworkOutputs:
    """Show each image, uint8 (n, H, W, 3) a batch, to the networks given; `clip` needs one prompt an image.

    Raises whatever `batches` raises: nothing is returned for a set that is not whole.
    """
    features: list[NDArray[np.float32]] = []
    cosines: list[NDArray[np.float64]] = []
    answers: list[dict[str, str]] = []
    done = 0
    for images in batches:
        batch = ImageBatch(images)
        if extractor is not None:
            features.append(extractor(batch))
        if clip is not None:
            cosines.append(clip.cosines(images, prompts[done : done + len(images)]))
        if oracle is not None:
            answers += oracle.answers(batch)
        done += len(images)
    if clip is not None and done != len(prompts):
        raise ValueError(f"{done} images and {len(prompts)} prompts do not pair up")
    return NetworkOutputs(
        np.concatenate(features) if extractor is not None else None,
        np.concatenate(cosines) if clip is not None else None,
        answers if oracle is not None else None,
    )


def score_images(
    batches: Iterable[NDArray[np.uint8]],
    prompts: Sequence[str],
    name: str,
    values: MeasureValues,
    networks: MetricNetworks,
    reference: ReferenceFeatures,
) -> ScoredSet:
    """Every metric that applies to images made for (or, real ones, described by) the prompts of set `name`.

    FID and KID need a set whose prompts describe photographs (kind coco); alignment needs scenes. Raises InputError
    where only some prompts have a scene.
    """
    photographs = values.prompts[name].kind == "coco"
    oracle = values.evaluation.oracle
    scenes = None
    if networks.scenes is not None and oracle is not None:
        scenes = scenes_of(prompts, networks.scenes, Path(oracle.scenes))
    outputs = measure(
        batches,
        extractor=networks.extractor if photographs else None,
        clip=networks.clip,
        prompts=prompts,
        oracle=networks.oracle if scenes is not None else None,
    )
    rule = prompt_rule(values.prompts[name], name, len(prompts))
    metrics: dict[str, Metric] = {}
    protocols: dict[str, dict[str, Any]] = {}

    def add(metric: MetricName, value: float, interval: tuple[float, float], **more: Any) -> None:
        protocol = _protocol(metric, values, rule, networks, reference.source)
        protocols[protocol.id()] = protocol.values()
        metrics[metric] = Metric(
            value=value, interval=interval, interval_covers=COVERS[metric], protocol=protocol.id(), **more
        )

    if (features := outputs.features) is not None:
        spread = bootstrap_interval(features, reference.statistics, values.evaluation.bootstrap)
        note = rank_note(len(features), reference.statistics.count, features.shape[1])
        fid = frechet_distance(statistics(features), reference.statistics)
        add("fid", fid, (spread.low, spread.high), **({"note": note} if note else {}))
        kid = kernel_distance(features, reference.features, within_reference=reference.within_kernel)
        add("kid", kid.value, kid.interval)
    if outputs.cosines is not None:
        score = clip_score(outputs.cosines)
        add("clip_score", score.value, score.interval, stderr=score.error)
    if outputs.answers is not None and scenes is not None:
        right = alignment(outputs.answers, scenes)
        add("alignment", right.value, right.interval, groups=right.groups)
    return ScoredSet(metrics, protocols, outputs.features)


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
    """The part of the listed photographs that a set is restricted to; None without one. Raises InputError."""
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


def _protocol(
    metric: MetricName,
    values: MeasureValues,
    prompts: PromptRule,
    networks: MetricNetworks,
    reference: SourceIdentity,
) -> Protocol:
    network: NetworkIdentity = networks.extractor.network
    scenes = None
    if metric == "clip_score":
        network = networks.clip.network
    elif metric == "alignment":
        oracle = values.evaluation.oracle
        if networks.oracle is None or networks.scenes is None or oracle is None:
            raise ValueError("alignment was measured without its network")
        network = networks.oracle.extractor.network
        file = Path(oracle.scenes)
        scenes = SourceIdentity(file=oracle.scenes, sha256=file_hash(file), count=len(networks.scenes))
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
