"""FID-infinity: what FID would be of infinitely many images (Chong and Forsyth, arXiv 1911.07023).

FID of n images is biased upwards by a term that falls about as 1 / n, and by another amount for each
generator. The distance is taken of random subsets of several sizes and extrapolated on a straight line in
1 / n to 0. The reference stays as it is: its own bias remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.frechet import Statistics, frechet_distance, statistics

POINTS = 15
"""Subset sizes, evenly spread; the number in the paper's code."""

SMALLEST = 5
"""The smallest subset is the whole over this, but more images than features."""


class TooFewImagesError(ValueError):
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
