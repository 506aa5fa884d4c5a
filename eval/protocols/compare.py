"""FID and KID by each protocol, and how far each is from the base: with what the same images' noise explains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError
from eval.metrics.frechet import (
    Statistics,
    bootstrap_values,
    frechet_distance,
    statistics,
)
from eval.metrics.kid import KernelDistance, jackknife_error, kernel_distance, mean_kernel
from eval.metrics.measure import rank_note

POINTS = 15
"""Subset sizes, evenly spread; the number in the paper's code."""

SMALLEST = 5
"""The smallest subset is the whole divided by this, but has more images than features."""

Features = NDArray[np.float32]


class TooFewImagesError(InputError):
    """No line can be drawn: covariances of subsets would be singular, and their bias not linear in 1 / n."""


@dataclass(frozen=True)
class Extrapolation:
    """`value` at 1 / n = 0; `error` is the standard error of the line's intercept over the choice of subsets."""

    value: float
    error: float


def extrapolated(features: NDArray[np.floating], reference: Statistics, seed: int = 0) -> Extrapolation:
    """FID-infinity of features (n, d). Raises TooFewImagesError unless n is more than 2 d + 2."""
    n, dimensions = features.shape
    smallest = max(n // SMALLEST, dimensions + 2)
    if 2 * smallest > n:
        raise TooFewImagesError(
            f"FID-infinity of {dimensions} features needs {2 * dimensions + 4} images or more, {n} are there"
        )
    generator = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(smallest, n, POINTS).astype(int))
    values = [
        frechet_distance(statistics(features[generator.permutation(n)[:size]]), reference) for size in sizes
    ]
    return _intercept(1 / sizes, np.array(values))


def _intercept(x: NDArray[np.float64], y: NDArray[np.float64]) -> Extrapolation:
    """Least squares of y = a + b x: a and its standard error."""
    design = np.stack([np.ones_like(x), x], axis=1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ solution
    variance = residual @ residual / max(len(x) - 2, 1)
    covariance = variance * np.linalg.inv(design.T @ design)
    return Extrapolation(float(solution[0]), float(np.sqrt(covariance[0, 0])))


@dataclass(frozen=True)
class Figure:
    """A value and its 95% interval over images (value -+ 1.96 standard errors)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, error: float) -> Figure:
        """From a standard error."""
        return cls(value, value - 1.96 * error, value + 1.96 * error)

    @property
    def beyond_noise(self) -> bool:
        """For a difference: whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ReferenceFigures:
    """What follows from a reference's features (m, d) alone, once."""

    features: Features

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and covariance."""
        return statistics(self.features)

    @cached_property
    def within(self) -> float:
        """KID's term of the reference alone."""
        return mean_kernel(self.features)


@dataclass(frozen=True)
class MeasuredFigures:
    """One protocol's figures. `resamples`: FID of each bootstrap resample, paired over protocols of equal
    `keys`; `fit_error` is that of an extrapolation, else 0.
    """

    keys: tuple[str, ...]
    fid: float
    fit_error: float
    resamples: NDArray[np.float64]
    kid: KernelDistance
    note: str | None

    @property
    def fid_error(self) -> float:
        """The standard error of FID over images, and over the fit where there is one."""
        return math.hypot(float(self.resamples.std(ddof=1)), self.fit_error)


@dataclass(frozen=True)
class Difference:
    """From the base, FID and KID; `paired`: both were taken of images for the same prompts."""

    fid: Figure
    kid: Figure
    paired: bool


def measured(
    features: Features, keys: tuple[str, ...], reference: ReferenceFigures, resamples: int, infinity: bool
) -> MeasuredFigures:
    """Both metrics of features (n, d), n >= 3. Raises TooFewImagesError where no extrapolation is possible."""
    value, fit_error = frechet_distance(statistics(features), reference.statistics), 0.0
    if infinity:
        found = extrapolated(features, reference.statistics)
        value, fit_error = found.value, found.error
    return MeasuredFigures(
        keys,
        value,
        fit_error,
        bootstrap_values(features, reference.statistics, resamples),
        kernel_distance(features, reference.features, within_reference=reference.within),
        rank_note(len(features), len(reference.features), features.shape[1]),
    )


def difference(one: MeasuredFigures, base: MeasuredFigures) -> Difference:
    """`one` less `base`. Paired where the images have the same keys, or else with both errors in full.

    Pairing takes the noise that both share out of the interval: resample by resample (FID), image left out by
    image left out (KID). An extrapolation adds the error of its fit.
    """
    paired = one.keys == base.keys
    if paired:
        spread = float((one.resamples - base.resamples).std(ddof=1))
        kid_error = jackknife_error(one.kid.left_out - base.kid.left_out)
        fid_error = math.hypot(spread, one.fit_error, base.fit_error) if one is not base else 0.0
    else:
        fid_error = math.hypot(one.fid_error, base.fid_error)
        kid_error = math.hypot(one.kid.error, base.kid.error)
    return Difference(
        Figure.of(one.fid - base.fid, fid_error),
        Figure.of(one.kid.value - base.kid.value, kid_error),
        paired,
    )


@dataclass(frozen=True)
class ProtocolRow:
    """One protocol: what it changes in the base, why that moves FID, and the figures or why there are none.

    `published`: for a paper's protocol, axis by axis what it states. `note`: what the figures rest on.
    `other_unit`: another network's distances, from which no difference is taken.
    """

    name: str
    changes: tuple[str, ...]
    why: str
    published: tuple[str, ...] = ()
    images: int | None = None
    fid: Figure | None = None
    kid: Figure | None = None
    difference: Difference | None = None
    other_unit: bool = False
    fid_protocol: str | None = None
    kid_protocol: str | None = None
    note: str | None = None
    not_scored: str | None = None


@dataclass(frozen=True)
class ProtocolComparison:
    """The rows, base first, and all protocols by id. `facts` says what was scored against what."""

    rows: tuple[ProtocolRow, ...]
    protocols: dict[str, dict[str, Any]]
    facts: dict[str, Any]
