"""Images shown to the metric networks once, and what follows: each metric with its interval and its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from add.config.types import FEWEST_IMAGES
from add.errors import InputError
from eval.metrics.alignment import (
    Clip,
    Oracle,
    alignment,
    clip_score,
    load_clip,
    load_oracle,
    scenes_of,
    wilson,
)
from eval.metrics.distances import (
    Estimated,
    KernelDistance,
    Statistics,
    coverage,
    deviation_of_mean,
    extrapolated,
    frechet_distance,
    influence,
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
MetricName = Literal["fid", "kid", "clip_score", "alignment", "coverage"]

DEFINITIONS: dict[MetricName, str] = {
    "fid": "squared Frechet distance of Gaussians, covariance with n - 1, float64",
    "kid": "unbiased squared MMD of all images, kernel (x.y / d + 1)^3",
    "clip_score": "mean cosine of image and prompt embeddings",
    "alignment": "share of images with every stated attribute right by the oracle",
    "coverage": "share of real images with a generated one nearer than their 5th real neighbour, as many of either",
}
NEIGHBOURS = 5
"""Of coverage, as its authors choose."""
COVERS: dict[MetricName, str] = {
    "fid": "images (influence function, 95%)",
    "kid": "images (jackknife, 95%)",
    "clip_score": "images (standard error, 95%)",
    "alignment": "images (Wilson, 95%)",
    "coverage": "real images (Wilson, 95%)",
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
class ImageScores:
    """The terms of a set's metrics by image, in the order of the set; empty for a metric without such terms.

    clip_score: cosines (n,). alignment: whether all is right (n,). fid: each image's influence (n,), of mean zero.
    answers: the oracle's, by group.
    """

    fid: Sequence[float] = ()
    clip_score: Sequence[float] = ()
    alignment: Sequence[bool] = ()
    answers: Sequence[Mapping[str, str]] = ()


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
class ImageDistance:
    """FID, or FID-infinity, of one image set, and what a paired difference of two such sets needs.

    influence: of each image (n,), and standard errors over the images and over the reference; empty and None where one
    of both has no more images than features. fit_error: that of an extrapolation, else 0. note: `rank_note`.
    """

    value: float
    influence: NDArray[np.float64]
    reference_error: float | None
    fit_error: float = 0.0
    note: str | None = None

    @property
    def error(self) -> float | None:
        """The standard error over the images, with the reference fixed, and of the fit."""
        return math.hypot(deviation_of_mean(self.influence), self.fit_error) if len(self.influence) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95%."""
        return None if self.error is None else Estimated(self.value, self.error).interval


@dataclass(frozen=True)
class ScoredSet:
    """Metrics of one image set, and their protocols by id; what the networks said of each image."""

    metrics: dict[str, Metric]
    protocols: dict[str, dict[str, Any]]
    outputs: NetworkOutputs
    images: ImageScores


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
        value: float,
        interval: tuple[float, float] | None,
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
        stated: dict[str, Any] = dict(more)
        if interval is not None:
            stated |= {"interval": interval, "interval_covers": COVERS[metric]}
        metrics[metric] = Metric(value=value, protocol=protocol.id(), **stated)

    scores = ImageScores()
    if (features := outputs.features) is not None:
        network, to = networks.extractor.network, {"reference": reference.source}
        fid = image_distance(features, reference)
        scores = replace(scores, fid=fid.influence.tolist())
        noted = {"note": fid.note} if fid.note else {}
        errors = {"stderr": fid.error, "reference_stderr": fid.reference_error} if fid.error else {}
        add("fid", fid.value, fid.interval, network, to, **noted, **errors)
        kid = image_kernel_distance(features, reference)
        add("kid", kid.value, kid.interval, network, to, stderr=kid.error)
        if min(len(features), len(reference.features)) > NEIGHBOURS:
            covered = coverage(features, reference.features, NEIGHBOURS)
            found = int(covered.sum())
            add("coverage", found / len(covered), wilson(found, len(covered)), network, to)
    if outputs.cosines is not None:
        scores = replace(scores, clip_score=outputs.cosines.tolist())
        score = clip_score(outputs.cosines)
        cut = networks.clip.truncated(prompts)
        note = f"CLIP's tokenizer cut {cut} of {len(prompts)} prompts, whose ends the score does not see"
        more = {"stderr": score.error, "truncated_prompts": cut, **({"note": note} if cut else {})}
        add("clip_score", score.value, score.interval, networks.clip.network, {}, **more)
    if oracle is not None and scenes is not None and outputs.answers is not None:
        right = alignment(outputs.answers, scenes)
        scores = replace(scores, alignment=right.right, answers=outputs.answers)
        to = {"scenes": oracle.source}
        add("alignment", right.value, right.interval, oracle.extractor.network, to, groups=right.groups)
    return ScoredSet(metrics, protocols, outputs, scores)


def image_distance(features: Features, reference: ReferenceFeatures, infinity: bool = False) -> ImageDistance:
    """FID (or FID-infinity) of features (n, d), n >= 3. The errors cover images, not the training seed.

    Raises InputError on fewer images than 3 on either side, TooFewImagesError where no extrapolation is possible.
    """
    if (fewest := min(len(features), len(reference.features))) < FEWEST_IMAGES:
        raise InputError(
            f"FID and KID with their intervals need {FEWEST_IMAGES} images or more, and a set has {fewest}"
        )
    if infinity:
        fit = extrapolated(features, reference.statistics)
    else:
        fit = Estimated(frechet_distance(statistics(features), reference.statistics), 0.0)
    if note := rank_note(len(features), len(reference.features), features.shape[1]):
        return ImageDistance(fit.value, np.empty(0), None, fit.error, note)
    found = influence(features, reference.statistics)
    of_reference = deviation_of_mean(influence(reference.features, statistics(features)))
    return ImageDistance(fit.value, found, of_reference, fit.error)


def image_kernel_distance(features: Features, reference: ReferenceFeatures) -> KernelDistance:
    """KID of features (n, d), n >= 3."""
    return kernel_distance(features, reference.features, within_reference=reference.within_kernel)


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
    were never measured, its bias depends strongly on n, and no error of it can be stated.
    """
    if min(images, references) > dimensions:
        return None
    return (
        f"FID of {images} images against {references} in {dimensions} features: a covariance has a rank of at "
        f"most {min(images, references) - 1}; compare only with FIDs of the same numbers of images"
    )
