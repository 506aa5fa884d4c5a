"""Images shown to the metric networks once, and what follows: each metric with its interval and its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from add.config.types import FEWEST_IMAGES
from add.errors import InputError
from eval.metrics.alignment import (
    Alignment,
    Clip,
    Oracle,
    alignment,
    clip_score,
    load_clip,
    load_oracle,
    scenes_of,
)
from eval.metrics.distances import (
    Estimated,
    KernelDistance,
    Statistics,
    bootstrap_values,
    extrapolated,
    frechet_distance,
    kernel_distance,
    mean_kernel,
    statistics,
)
from eval.metrics.features import RESIZE_FILTER, Extractor, ImageBatch, load_extractor
from eval.metrics.protocol import ImageRule, NetworkIdentity, Protocol, SourceIdentity
from eval.prompts import prompt_rule
from eval.result import Metric

if TYPE_CHECKING:
    from add.config.scale import EvaluationSpec
    from eval.stage import MeasureValues

Features = NDArray[np.float32]
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
    """The networks that measure; `oracle` where the scale has one."""

    extractor: Extractor
    clip: Clip
    oracle: Oracle | None

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
    """The real images that FID and KID compare with: features (m, d), and what follows from them alone, once."""

    source: SourceIdentity
    features: NDArray[np.float32]

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and covariance."""
        return statistics(self.features)

    @cached_property
    def within_kernel(self) -> float:
        """KID's term of the reference alone."""
        return mean_kernel(self.features)


@dataclass(frozen=True)
class FeatureDistances:
    """How far one image set is from a reference, and what a paired difference of two such sets needs.

    resamples: FID of each bootstrap resample, float64 (resamples,). fit_error: that of an extrapolation, else 0; it is
    part of FID's error. note: `rank_note`.
    """

    fid: Estimated
    fit_error: float
    resamples: NDArray[np.float64]
    kid: KernelDistance
    note: str | None


@dataclass(frozen=True)
class ScoredSet:
    """Metrics of one image set, and their protocols by id; `features` for further use."""

    metrics: dict[str, Metric]
    protocols: dict[str, dict[str, Any]]
    features: NDArray[np.float32] | None


def load_metric_networks(evaluation: EvaluationSpec, device: str = "cpu") -> MetricNetworks:
    """Load all networks that `evaluation` names. Raises WeightsError, InputError."""
    return MetricNetworks(
        load_extractor(evaluation.extractor, device),
        load_clip(evaluation.clip, device),
        load_oracle(evaluation.oracle, device) if evaluation.oracle is not None else None,
    )


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
    oracle = networks.oracle
    scenes = None if oracle is None else scenes_of(prompts, oracle.scenes, oracle.source.file)
    outputs = measure(
        batches,
        extractor=networks.extractor if photographs else None,
        clip=networks.clip,
        prompts=prompts,
        oracle=oracle if scenes is not None else None,
    )
    rule = prompt_rule(values.prompts[name], name, len(prompts))
    metrics: dict[str, Metric] = {}
    protocols: dict[str, dict[str, Any]] = {}

    def add(
        metric: MetricName,
        found: Estimated | Alignment,
        network: NetworkIdentity,
        compared_with: dict[str, SourceIdentity],
        **more: Any,
    ) -> None:
        protocol = Protocol(
            schema=1,
            metric=metric,
            definition=DEFINITIONS[metric],
            images=rule.count,
            sampling_seed=values.seed,
            prompts=rule,
            image_rule=image_rule(values.evaluation),
            network=network,
            **compared_with,
        )
        protocols[protocol.id()] = protocol.values()
        covers = COVERS[metric]
        metrics[metric] = Metric(
            value=found.value, interval=found.interval, interval_covers=covers, protocol=protocol.id(), **more
        )

    if (features := outputs.features) is not None:
        network, to = networks.extractor.network, {"reference": reference.source}
        distances = feature_distances(features, reference, values.evaluation.bootstrap)
        add("fid", distances.fid, network, to, **({"note": distances.note} if distances.note else {}))
        add("kid", distances.kid, network, to)
    if outputs.cosines is not None:
        score = clip_score(outputs.cosines)
        cut = networks.clip.truncated(prompts)
        note = f"CLIP's tokenizer cut {cut} of {len(prompts)} prompts, whose ends the score does not see"
        more = {"stderr": score.error, "truncated_prompts": cut, **({"note": note} if cut else {})}
        add("clip_score", score, networks.clip.network, {}, **more)
    if oracle is not None and scenes is not None and outputs.answers is not None:
        right = alignment(outputs.answers, scenes)
        add("alignment", right, oracle.extractor.network, {"scenes": oracle.source}, groups=right.groups)
    return ScoredSet(metrics, protocols, outputs.features)


def feature_distances(
    features: Features, reference: ReferenceFeatures, resamples: int, infinity: bool = False
) -> FeatureDistances:
    """FID (or FID-infinity) and KID of features (n, d), n >= 3.

    The bootstrap of FID is biased upwards (a resample has fewer distinct images, and FID falls with their
    number), so its percentiles would miss the value. FID's error is therefore the standard deviation of the
    bootstrap values. It covers the images, neither the training seed nor the reference. Raises InputError on fewer
    images than 3 on either side, TooFewImagesError where no extrapolation is possible.
    """
    if (fewest := min(len(features), len(reference.features))) < FEWEST_IMAGES:
        raise InputError(
            f"FID and KID with their intervals need {FEWEST_IMAGES} images or more, and a set has {fewest}"
        )
    if infinity:
        fit = extrapolated(features, reference.statistics)
    else:
        fit = Estimated(frechet_distance(statistics(features), reference.statistics), 0.0)
    values = bootstrap_values(features, reference.statistics, resamples)
    return FeatureDistances(
        Estimated(fit.value, math.hypot(float(values.std(ddof=1)), fit.error)),
        fit.error,
        values,
        kernel_distance(features, reference.features, within_reference=reference.within_kernel),
        rank_note(len(features), len(reference.features), features.shape[1]),
    )


def image_rule(evaluation: EvaluationSpec) -> ImageRule:
    """How images reach the networks."""
    return ImageRule(
        resolution=evaluation.resolution,
        crop=evaluation.crop,
        resize_filter=f"{RESIZE_FILTER}; CLIP: its own",
    )


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
