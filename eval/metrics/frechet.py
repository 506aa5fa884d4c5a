"""The Fréchet distance of two Gaussians, d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): FID's last step.

Heusel et al., arXiv 1706.08500, equation 6. With C = L L^T for both, the trace of the root is the sum of the
singular values of L1^T L2, so no matrix square root is needed; the usual case takes them as the roots of the
eigenvalues of the symmetric L1^T C2 L1, at a quarter of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONDITION = 1e-9
"""Below this ratio of squared Cholesky pivots, eigenvalues lose the digits that singular values keep."""


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d; divisor n - 1), both float64, of the features of `count` images."""

    mean: Array
    covariance: Array
    count: int


@dataclass(frozen=True)
class Interval:
    """A 95% interval: value - 1.96 sd to value + 1.96 sd; `deviation` is sd."""

    low: float
    high: float
    deviation: float


def statistics(features: NDArray[np.floating]) -> Statistics:
    """Mean and covariance of features (n, d), n >= 2. Raises ValueError where they are not finite."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images as (n, d), not {features.shape}")
    x = features.astype(np.float64)
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"the features of image {row} are not finite")
    mean = x.mean(axis=0)
    centred = x - mean
    return Statistics(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Fréchet distance, as FID is reported. Also for fewer images than dimensions."""
    return _distance(a, b, _trace_of_root(a.covariance, b.covariance))


def frechet_distance_reference(a: Statistics, b: Statistics) -> float:
    """The same by the textbook: scipy's square root of the product. Slow; here to check the fast one."""
    from scipy.linalg import sqrtm

    root = sqrtm(a.covariance @ b.covariance)
    return _distance(a, b, float(np.trace(root).real))


def bootstrap_interval(
    features: NDArray[np.floating], reference: Statistics, resamples: int, seed: int = 0
) -> Interval:
    """What the choice of images does to the distance of features (n, d) from a fixed reference.

    The bootstrap of FID is biased upwards (a resample has fewer distinct images, and FID falls with their
    number), so its percentiles would miss the value. The interval is therefore the value +- 1.96 standard
    deviations of the bootstrap values. It covers the images, neither the training seed nor the reference.
    """
    value = frechet_distance(statistics(features), reference)
    return interval_of(value, bootstrap_values(features, reference, resamples, seed))


def interval_of(value: float, values: Array) -> Interval:
    """value +- 1.96 standard deviations of the bootstrap's `values` (resamples,)."""
    deviation = float(values.std(ddof=1))
    return Interval(value - 1.96 * deviation, value + 1.96 * deviation, deviation)


def bootstrap_values(
    features: NDArray[np.floating], reference: Statistics, resamples: int, seed: int = 0
) -> Array:
    """The distance of each of `resamples` resamples of features (n, d), float64 (resamples,).

    Which images are drawn depends on n, `resamples` and `seed` alone: values of two feature sets of the same
    images are paired. Raises ValueError on fewer than 2 resamples.
    """
    if resamples < 2:
        raise ValueError(f"a deviation needs at least 2 resamples, not {resamples}")
    x = features.astype(np.float64)
    n = len(x)
    shift = x.mean(axis=0)
    x = x - shift  # the weighted covariance below subtracts the mean's square: keep it small
    projected = x @ _factor(reference.covariance)  # its covariance is L^T C L, without forming C
    squares = np.einsum("nd,nd->n", x, x)
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for k in range(resamples):
        weight = np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)
        mean = weight @ x / n
        middle = weight @ projected / n
        inner = ((projected * weight[:, None]).T @ projected - n * np.outer(middle, middle)) / (n - 1)
        trace = (weight @ squares - n * (mean @ mean)) / (n - 1)
        root = np.sqrt(np.linalg.eigvalsh(inner).clip(min=0)).sum()
        gap = mean + shift - reference.mean
        values[k] = gap @ gap + trace + np.trace(reference.covariance) - 2 * root
    return values


def _distance(a: Statistics, b: Statistics, trace_of_root: float) -> float:
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root)


def _trace_of_root(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        raise ValueError(f"covariances of {len(a)} and {len(b)} features cannot be compared")
    left, right = _cholesky(a), _cholesky(b)
    if left is not None and right is not None:
        values = _eigenvalues(left.T @ b @ left)
        return float(np.sqrt(values.clip(min=0)).sum())
    product = (_factor(a) if left is None else left).T @ (_factor(b) if right is None else right)
    return float(np.linalg.svd(product, compute_uv=False).sum())


def _eigenvalues(matrix: Array) -> Array:
    from scipy.linalg import eigvalsh

    return np.asarray(eigvalsh(matrix, check_finite=False, overwrite_a=True))


def _cholesky(matrix: Array) -> Array | None:
    """The Cholesky factor, or None where the matrix is not well inside the positive definite ones."""
    try:
        factor: Array = np.linalg.cholesky(matrix).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return None
    pivots = np.square(np.diagonal(factor))
    return factor if pivots.min() > CONDITION * pivots.max() else None


def _factor(matrix: Array) -> Array:
    """L (d, r) with L L^T = matrix, for a positive semi-definite matrix of rank r."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > len(matrix) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))
