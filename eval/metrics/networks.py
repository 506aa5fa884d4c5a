"""Every measuring network of a scale, fed by one decode of each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.metrics.alignment import Oracle, Scene, load_oracle, read_scenes
from eval.metrics.clip_score import Clip, load_clip
from eval.metrics.features import Extractor, ImageBatch, load_extractor

if TYPE_CHECKING:
    from add.config.scale import EvaluationSpec


@dataclass(frozen=True)
class MetricNetworks:
    """The networks; `oracle` and `scenes` (prompt -> scene) where the scale has them."""

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
    """What the networks say about n images, in their order; None for what was not asked.

    features: float32 (n, d). cosines: float64 (n,), image against prompt. answers: the oracle's, by group.
    """

    features: NDArray[np.float32] | None
    cosines: NDArray[np.float64] | None
    answers: list[dict[str, str]] | None


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
