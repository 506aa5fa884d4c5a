"""What is each metric, which way is better, and what does its interval cover? Said here once, for every reader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from add.config.run import MetricName

NEIGHBOURS = 5
"""The k of precision, recall, density and coverage: as the authors of the last two choose (arXiv 2002.09797).

Precision and recall were published with 3 (arXiv 1904.06991); one k for the four is what their packages compute.
"""

_ROUNDING = 0.01
"""How far a value may lie beyond what is possible: FID of two equal sets is 0 but for the rounding of its root."""

_BALLS = f"out to its {NEIGHBOURS}th neighbour in its own set, as many of either"


@dataclass(frozen=True)
class MetricFacts:
    """definition: the estimator in words, which a protocol states. covers: what its interval does.

    share: it lies between 0 and 1, and so does its interval. least, most: no value lies outside, but by rounding.
    """

    definition: str
    covers: str
    smaller_is_better: bool = False
    share: bool = False
    least: float = -math.inf
    most: float = math.inf

    def possible(self, value: float) -> bool:
        """Whether a measurement can have given this value."""
        least, most = (0.0, 1.0) if self.share else (self.least, self.most)
        return least - _ROUNDING <= value <= most + _ROUNDING


METRICS: Mapping[MetricName, MetricFacts] = {
    "fid": MetricFacts(
        "squared Frechet distance of Gaussians, covariance with n - 1, float64",
        "images (influence function, 95%)",
        smaller_is_better=True,
        least=0.0,
    ),
    "kid": MetricFacts(
        "unbiased squared MMD of all images, kernel (x.y / d + 1)^3",
        "images (jackknife, 95%)",
        smaller_is_better=True,
    ),
    "cmmd": MetricFacts(
        "1000 times the unbiased squared MMD of unit image embeddings, kernel exp(-|x - y|^2 / (2 * 10^2))",
        "images (jackknife, 95%)",
        smaller_is_better=True,
    ),
    "clip_score": MetricFacts(
        "mean cosine of image and prompt embeddings", "images (standard error, 95%)", least=-1.0, most=1.0
    ),
    "alignment": MetricFacts(
        "share of images with every stated attribute right by the oracle",
        "images (Wilson, 95%)",
        share=True,
    ),
    "precision": MetricFacts(
        f"share of images inside the ball of a real image {_BALLS}", "images (Wilson, 95%)", share=True
    ),
    "recall": MetricFacts(
        f"share of real images inside the ball of a generated image {_BALLS}",
        "real images (Wilson, 95%)",
        share=True,
    ),
    "density": MetricFacts(
        f"mean number by {NEIGHBOURS} of the balls of real images that hold an image, each {_BALLS}",
        "images (standard error, 95%)",
        least=0.0,
    ),
    "coverage": MetricFacts(
        "share of real images with a generated one nearer than their 5th real neighbour, as many of either",
        "real images (Wilson, 95%)",
        share=True,
    ),
    "vendi_score": MetricFacts(
        "mean over prompts of the Vendi score of the images of one prompt, cosine of features",
        "prompts (standard error, 95%)",
        least=1.0,
    ),
}
"""In the order of all outputs."""


def definition_of(metric: MetricName, images_a_prompt: int | None = None) -> str:
    """A metric's definition as its protocol states it; of a set with many images a prompt, how many these are."""
    definition = METRICS[metric].definition
    return definition if images_a_prompt is None else f"{definition}; {images_a_prompt} images a prompt"
