"""Images shown to the metric networks once, and what follows: each metric with its interval and its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.config.run import MetricName
from add.config.types import FEWEST_IMAGES
from add.errors import InputError
from eval.metrics.alignment import (
    Clip,
    Oracle,
    Scene,
    alignment,
    clip_score,
    load_clip,
    load_oracle,
    scenes_of,
    wilson,
)
from eval.metrics.catalogue import METRICS, NEIGHBOURS, definition_of
from eval.metrics.distances import (
    Estimated,
    KernelDistance,
    Statistics,
    cmmd,
    deviation_of_mean,
    extrapolated,
    frechet_distance,
    gaussian,
    influence,
    kernel_distance,
    mean_kernel,
    statistics,
)
from eval.metrics.diversity import vendi_score
from eval.metrics.features import RESIZE_FILTER, Extractor, ImageBatch, load_extractor
from eval.metrics.manifold import neighbourhoods
from eval.metrics.protocol import (
    ImageRule,
    NetworkIdentity,
    PromptRule,
    Protocol,
    SourceIdentity,
    StatisticsIdentity,
)
from eval.prompts import prompt_rule
from eval.result import Metric

if TYPE_CHECKING:
    from add.config.scale import EvaluationSpec
    from eval.stage import MeasureValues

Features = NDArray[np.float32]

ONLY_FID = "compared with statistics alone: KID, CMMD, precision, recall, density and coverage need images"


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

    features: float32 (n, d). embeddings: float32 (n, e), CLIP's of the images, of length 1. cosines: float64 (n,),
    image against prompt. answers: the oracle's, by group.
    """

    features: NDArray[np.float32] | None
    embeddings: NDArray[np.float32] | None
    cosines: NDArray[np.float64] | None
    answers: list[dict[str, str]] | None

    def first(self, count: int) -> NetworkOutputs:
        """Those of the first `count` images."""
        return NetworkOutputs(*(None if each is None else each[:count] for each in vars(self).values()))


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
    """The real images that are compared with: features (m, d), CLIP's embeddings (m, e) of length 1 where they were
    asked for, and what follows from these alone, once."""

    source: SourceIdentity
    features: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and covariance."""
        return statistics(self.features)

    @cached_property
    def within_kernel(self) -> float:
        """KID's term of the reference alone."""
        return mean_kernel(self.features)

    @cached_property
    def within_gaussian(self) -> float:
        """CMMD's term of the reference alone. Raises ValueError without embeddings."""
        if self.embeddings is None:
            raise ValueError("the reference has no embeddings")
        return mean_kernel(self.embeddings, gaussian)


@dataclass(frozen=True)
class ReferenceStatistics:
    """The mean and covariance that FID compares with, without the images behind them; `rank` of the covariance.

    checked: whether the file states by which settings it was made, and they are those that measure.
    """

    source: StatisticsIdentity
    statistics: Statistics
    rank: int
    checked: bool = False


Reference = ReferenceFeatures | ReferenceStatistics


@dataclass(frozen=True)
class ImageDistance:
    """FID, or FID-infinity, of one image set, and what a paired difference of two such sets needs.

    influence: of each image (n,), and standard errors over the images and over the reference; empty and None where one
    of both has no more images than features, the latter None also for statistics without images. fit_error: that
    of an extrapolation, else 0. note: `rank_note` or `statistics_note`.
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
    prompts: Sequence[str] | None = None,
    oracle: Oracle | None = None,
) -> NetworkOutputs:
    """Show each image, uint8 (n, H, W, 3) a batch, to the networks given; cosines need one prompt an image.

    Raises whatever `batches` raises: nothing is returned for a set that is not whole.
    """
    features: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    cosines: list[NDArray[np.float64]] = []
    answers: list[dict[str, str]] = []
    done = 0
    for images in batches:
        batch = ImageBatch(images)
        if extractor is not None:
            features.append(extractor(batch))
        if clip is not None:
            found = clip.embeddings(images)
            embeddings.append(found.astype(np.float32))
            if prompts is not None:
                cosines.append(clip.similarities(found, prompts[done : done + len(images)]))
        if oracle is not None:
            answers += oracle.answers(batch)
        done += len(images)
    if prompts is not None and done != len(prompts):
        raise ValueError(f"{done} images and {len(prompts)} prompts do not pair up")
    return NetworkOutputs(
        np.concatenate(features) if extractor is not None else None,
        np.concatenate(embeddings) if clip is not None else None,
        np.concatenate(cosines) if clip is not None and prompts is not None else None,
        answers if oracle is not None else None,
    )


@dataclass(frozen=True)
class _Entries:
    """The metrics of one image set, as they are found, each with its protocol."""

    prompts: PromptRule
    images: int
    values: MeasureValues
    metrics: dict[str, Metric] = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        metric: MetricName,
        value: float,
        interval: tuple[float, float] | None,
        network: NetworkIdentity,
        compared_with: Mapping[str, Any],
        definition: str = "",
        **more: Any,
    ) -> None:
        """Enter one metric.

        compared_with: fields of the protocol. definition: where it is not the catalogue's. more: fields of
        `eval.result.Metric`; those that are None are left out.
        """
        protocol = Protocol(
            schema=1,
            metric=metric,
            definition=definition or METRICS[metric].definition,
            images=self.images,
            sampling_seed=self.values.seed,
            prompts=self.prompts,
            image_rule=image_rule(self.values.evaluation),
            network=network,
            **compared_with,
        )
        self.protocols[protocol.id()] = protocol.values()
        stated: dict[str, Any] = {key: each for key, each in more.items() if each is not None}
        if interval is not None:
            stated |= {"interval": interval, "interval_covers": METRICS[metric].covers}
        self.metrics[metric] = Metric(value=value, protocol=protocol.id(), **stated)


def score_images(
    batches: Iterable[NDArray[np.uint8]],
    prompts: Sequence[str],
    name: str,
    values: MeasureValues,
    networks: MetricNetworks,
    reference: Reference,
) -> ScoredSet:
    """Every metric that applies to images made for (or, real ones, described by) the prompts of set `name`.

    What compares with the reference needs a set whose prompts describe photographs (kind coco); of a reference of
    statistics alone there is FID, whose note says so. Alignment needs scenes. Raises InputError where only some prompts
    have a scene.
    """
    photographs = values.prompts[name].kind == "coco"
    outputs = measure(
        batches,
        extractor=networks.extractor if photographs else None,
        clip=networks.clip,
        prompts=prompts,
        oracle=networks.oracle if _scenes(networks, prompts) is not None else None,
    )
    return score_outputs(outputs, prompts, name, values, networks, reference)


def score_outputs(
    outputs: NetworkOutputs,
    prompts: Sequence[str],
    name: str,
    values: MeasureValues,
    networks: MetricNetworks,
    reference: Reference,
) -> ScoredSet:
    """The same of images that the networks have seen; `outputs` are those of one image a prompt."""
    oracle, scenes = networks.oracle, _scenes(networks, prompts)
    rule = prompt_rule(values.prompts[name], name, len(prompts))
    found = _Entries(rule, rule.count, values)
    scores = ImageScores()
    if outputs.features is not None and outputs.embeddings is not None:
        fid = _compared(outputs.features, outputs.embeddings, reference, networks, found)
        scores = replace(scores, fid=fid.influence.tolist())
    if outputs.cosines is not None:
        scores = replace(scores, clip_score=outputs.cosines.tolist())
        score = clip_score(outputs.cosines)
        cut = networks.clip.truncated(prompts)
        note = f"CLIP's tokenizer cut {cut} of {len(prompts)} prompts, whose ends the score does not see"
        more: dict[str, Any] = {
            "stderr": score.error,
            "truncated_prompts": cut,
            "note": note if cut else None,
        }
        found.add("clip_score", score.value, score.interval, networks.clip.network, {}, **more)
    if oracle is not None and scenes is not None and outputs.answers is not None:
        right = alignment(outputs.answers, scenes)
        scores = replace(scores, alignment=right.right, answers=outputs.answers)
        to = {"scenes": oracle.source}
        found.add("alignment", right.value, right.interval, oracle.extractor.network, to, groups=right.groups)
    return ScoredSet(found.metrics, found.protocols, outputs, scores)


def _scenes(networks: MetricNetworks, prompts: Sequence[str]) -> list[Scene] | None:
    """What the prompts ask for; None where nothing says so, or there is no oracle. Raises InputError as `scenes_of`."""
    oracle = networks.oracle
    return None if oracle is None else scenes_of(prompts, oracle.scenes, oracle.source.file)


def _compared(
    features: Features, embeddings: Features, reference: Reference, networks: MetricNetworks, found: _Entries
) -> ImageDistance:
    """Enter what compares images, by features (n, d) and embeddings (n, e), with the reference; returns FID."""
    network = networks.extractor.network
    fid = image_distance(features, reference)
    errors: dict[str, Any] = {"stderr": fid.error, "reference_stderr": fid.reference_error}
    if isinstance(reference, ReferenceStatistics):
        note = "; ".join(filter(None, (fid.note, ONLY_FID)))
        found.add(
            "fid", fid.value, fid.interval, network, {"statistics": reference.source}, note=note, **errors
        )
        return fid
    to = {"reference": reference.source}
    found.add("fid", fid.value, fid.interval, network, to, note=fid.note, **errors)
    kid = image_kernel_distance(features, reference)
    found.add("kid", kid.value, kid.interval, network, to, stderr=kid.error)
    if reference.embeddings is not None:
        within = reference.within_gaussian
        distance = cmmd(embeddings, reference.embeddings, within_reference=within)
        found.add("cmmd", distance.value, distance.interval, networks.clip.network, to, stderr=distance.error)
    if (n := min(len(features), len(reference.features))) > NEIGHBOURS:
        balls = neighbourhoods(features, reference.features, NEIGHBOURS)
        shares: dict[MetricName, NDArray[np.bool_]] = {
            "precision": balls.inside,
            "recall": balls.recalled,
            "coverage": balls.covered,
        }
        for metric, hits in shares.items():
            held = int(hits.sum())
            found.add(metric, held / n, wilson(held, n), network, to)
        density = Estimated(float(balls.densities.mean()), deviation_of_mean(balls.densities))
        found.add("density", density.value, density.interval, network, to, stderr=density.error)
    return fid


def score_diversity(
    batches: Iterable[NDArray[np.uint8]],
    prompts: Sequence[str],
    name: str,
    values: MeasureValues,
    networks: MetricNetworks,
) -> ScoredSet:
    """The diversity within one prompt, of images made for the prompts of set `name`, each with m seeds.

    prompts: (n,), the prompt of each image, or its id; each of at least two appears m >= 2 times, anywhere. The
    protocol's definition states m. Raises InputError where prompts appear unequally often.
    """
    outputs = measure(batches, extractor=networks.extractor)
    if outputs.features is None or len(outputs.features) != len(prompts):
        raise ValueError(f"the images and {len(prompts)} prompts do not pair up")
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(place)
    counts = sorted({len(each) for each in places.values()})
    if len(counts) != 1 or counts[0] < 2 or len(places) < 2:
        raise InputError(
            f"the diversity of prompt set '{name}' needs two prompts or more, each with the same number of images, "
            f"two at least; there are {len(places)} prompts with {', '.join(map(str, counts))} images"
        )
    score = vendi_score(outputs.features[list(places.values())])
    rule = prompt_rule(values.prompts[name], name, len(places))
    found = _Entries(rule, len(prompts), values)
    definition = definition_of("vendi_score", counts[0])
    network = networks.extractor.network
    found.add("vendi_score", score.value, score.interval, network, {}, definition, stderr=score.error)
    return ScoredSet(found.metrics, found.protocols, outputs, ImageScores())


def image_distance(features: Features, reference: Reference, infinity: bool = False) -> ImageDistance:
    """FID (or FID-infinity) of features (n, d), n >= 3. The errors cover images, not the training seed.

    Raises InputError on fewer images than 3 on either side, TooFewImagesError where no extrapolation is possible.
    """
    real = reference.features if isinstance(reference, ReferenceFeatures) else None
    if (fewest := min(len(each) for each in (features, real) if each is not None)) < FEWEST_IMAGES:
        raise InputError(
            f"FID and KID with their intervals need {FEWEST_IMAGES} images or more, and a set has {fewest}"
        )
    if infinity:
        fit = extrapolated(features, reference.statistics)
    else:
        fit = Estimated(frechet_distance(statistics(features), reference.statistics), 0.0)
    if isinstance(reference, ReferenceFeatures):
        note = rank_note(len(features), len(reference.features), features.shape[1])
    else:
        note = statistics_note(len(features), reference.rank, features.shape[1])
    if note:
        return ImageDistance(fit.value, np.empty(0), None, fit.error, note)
    found = influence(features, reference.statistics)
    of_reference = None if real is None else deviation_of_mean(influence(real, statistics(features)))
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


def statistics_note(images: int, rank: int, dimensions: int) -> str | None:
    """As `rank_note`, against statistics whose covariance has the rank `rank`."""
    if images > dimensions and rank == dimensions:
        return None
    return (
        f"FID of {images} images against statistics of rank {rank} in {dimensions} features: a covariance has a rank "
        f"of at most {min(images - 1, rank)}; compare only with FIDs of as many images against the same statistics"
    )
