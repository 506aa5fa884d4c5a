"""How far two sets of features lie apart: the Fréchet distance (FID, FID-infinity), the kernel distances (KID, CMMD).

FID is the distance of two Gaussians, d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al., arXiv
1706.08500, equation 6). With C = L L^T for both, the trace of the root is the sum of the singular values of
L1^T L2, so no matrix square root is needed; the usual case takes them as the roots of the eigenvalues of the
symmetric L1^T L2 L2^T L1, at a quarter of the cost.

KID is the unbiased squared MMD under k(x, y) = (x.y / d + 1)^3 (Binkowski et al., arXiv 1801.01401, equation 4). The
estimate uses all images at once (no subsets, so no seed); its expectation does not depend on their number, which
FID's does. It may be negative where the two sets are alike.

CMMD is 1000 times the squared MMD of CLIP's unit image embeddings under exp(-|x - y|^2 / (2 sigma^2)), sigma 10
(Jayasumana et al., arXiv 2401.09603, section 4). The estimate is the unbiased one, as KID's. The authors' code keeps
each image's kernel with itself, which adds 1000 times the mean of 1 - k within a set, by its number of images, for
either set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError

Array = NDArray[np.float64]
Kernel = Callable[[Array, int], Array]
"""k of pairs of rows, from their inner products and the number d of features."""

CONDITION = 1e-9
"""Below this ratio of squared Cholesky pivots, eigenvalues lose the digits that singular values keep."""

POINTS = 15
"""FID-infinity's subset sizes, evenly spread; the number in the paper's code."""

SMALLEST = 5
"""The smallest subset is the whole divided by this, and has at least this many images a feature.

With fewer a feature, FID is no straight line in 1 / n, and the stated error is far too small.
"""

BANDWIDTH = 10.0
CMMD_UNIT = 1e-3
"""Of CMMD, as published: the kernel's sigma, and the squared MMD that counts as 1."""

_BLOCK = 1024  # rows of a kernel matrix that are in memory at once


class TooFewImagesError(InputError):
    """No line can be drawn: covariances of subsets would be singular, and their bias not linear in 1 / n."""


@dataclass(frozen=True)
class Estimated:
    """A value and its standard error, which is over the measured images unless the maker says otherwise."""

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """95%: value -+ 1.96 standard errors."""
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error


@dataclass(frozen=True)
class KernelDistance(Estimated):
    """The squared MMD; its error is the jackknife's, with the reference fixed.

    left_out: float64 (n,), the value without image i, less what the reference alone adds.
    """

    left_out: Array = field(repr=False, compare=False)


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d; divisor n - 1), both float64, of the features of `count` images.

    count: None where they came without images.
    """

    mean: Array
    covariance: Array
    count: int | None


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
    root = _trace_of_root(a.covariance, b.covariance)
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def influence(features: NDArray[np.floating], reference: Statistics) -> Array:
    """What each image adds to the Fréchet distance, float64 (n,), of mean zero: its influence function.

    The distance's derivative at the images' mean and covariance C, in the direction of one image x: 2 (m1 - m2).(x -
    m1) + (x - m1)^T (1 - T) (x - m1) - tr((1 - T) C), where T takes the images' Gaussian to the reference's, T = L
    (L^T C L)^(-1/2) L^T with L L^T the reference's covariance. The distance's standard error over the images is the
    values' deviation by sqrt(n) (delta method); paired sets have paired values. Raises ValueError on n <= d, where
    the covariance has directions that were never measured.
    """
    n, dimensions = features.shape
    if n <= dimensions:
        raise ValueError(f"{n} images do not say how a distance of {dimensions} features varies")
    own = statistics(features)
    x = features.astype(np.float64) - own.mean
    projected = x @ _factor(reference.covariance)
    values, vectors = np.linalg.eigh(projected.T @ projected / (n - 1))
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    # x^T T x, of each image: in the eigenvectors' basis T is diagonal.
    moved = np.square(projected @ vectors[:, kept]) @ (1 / np.sqrt(values[kept]))
    found = 2 * x @ (own.mean - reference.mean) + np.einsum("nd,nd->n", x, x) - moved
    return np.asarray(found - found.mean())


def deviation_of_mean(values: Array) -> float:
    """The standard error of a mean whose terms are values (n,)."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def extrapolated(features: NDArray[np.floating], reference: Statistics, seed: int = 0) -> Estimated:
    """FID-infinity of features (n, d): FID on a line in 1 / n, at 0 (Chong and Forsyth, arXiv 1911.07023).

    The error is the intercept's, over the choice of subsets. Raises TooFewImagesError unless n is at least 10 d.
    """
    n, dimensions = features.shape
    smallest = max(n // SMALLEST, SMALLEST * dimensions)
    if 2 * smallest > n:
        raise TooFewImagesError(
            f"FID-infinity of {dimensions} features needs {2 * SMALLEST * dimensions} images or more, {n} are there"
        )
    generator = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(smallest, n, POINTS).astype(int))
    values = [
        frechet_distance(statistics(features[generator.permutation(n)[:size]]), reference) for size in sizes
    ]
    return _intercept(1 / sizes, np.array(values))


def polynomial(products: Array, dimension: int) -> Array:
    """KID's kernel, (x.y / d + 1)^3."""
    base = products / dimension + 1
    return np.asarray(base * base * base)


def gaussian(products: Array, dimension: int) -> Array:
    """CMMD's kernel, exp(-|x - y|^2 / (2 sigma^2)), of rows of length 1."""
    return np.asarray(np.exp((products - 1) / BANDWIDTH**2))


def kernel_distance(
    features: NDArray[np.floating],
    reference: NDArray[np.floating],
    kernel: Kernel = polynomial,
    *,
    within_reference: float | None = None,
) -> KernelDistance:
    """The squared MMD under `kernel`, by default KID, of features (n, d) and reference (m, d), n >= 3 and m >= 2.

    `within_reference` is `mean_kernel(reference, kernel)`, where it is known already. Raises ValueError on other
    shapes.
    """
    x, y = features.astype(np.float64), reference.astype(np.float64)
    n = len(x)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or n < 3 or len(y) < 2:
        raise ValueError(f"features {x.shape} and reference {y.shape} do not compare")
    within = mean_kernel(y, kernel) if within_reference is None else within_reference
    own = _row_sums(x, x, kernel) - _diagonal(x, kernel)
    cross = _row_sums(x, y, kernel)
    value = own.sum() / (n * (n - 1)) + within - 2 * cross.sum() / (n * len(y))
    # Leaving image i out: its row and column leave the first sum, its row the last one.
    left = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (cross.sum() - cross) / ((n - 1) * len(y))
    return KernelDistance(float(value), jackknife_error(left), left)


def cmmd(
    embeddings: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    within_reference: float | None = None,
) -> KernelDistance:
    """CMMD of CLIP's image embeddings (n, d) and (m, d), rows of length 1, n >= 3 and m >= 2.

    `within_reference` is `mean_kernel(reference, gaussian)`, where it is known already. Raises ValueError on other
    shapes or lengths.
    """
    for rows in (embeddings, reference):
        if rows.ndim == 2 and not np.allclose(np.einsum("nd,nd->n", rows, rows), 1, atol=1e-4):
            raise ValueError("CMMD compares embeddings of length 1, and some have another length")
    found = kernel_distance(embeddings, reference, gaussian, within_reference=within_reference)
    return KernelDistance(found.value / CMMD_UNIT, found.error / CMMD_UNIT, found.left_out / CMMD_UNIT)


def jackknife_error(left_out: Array) -> float:
    """The standard error of an estimate whose values without image i are left_out (n,)."""
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))


def mean_kernel(y: NDArray[np.floating], kernel: Kernel = polynomial) -> float:
    """The mean of `kernel` over all pairs of different rows of y (m, d), m >= 2."""
    y64 = y.astype(np.float64)
    return float((_row_sums(y64, y64, kernel) - _diagonal(y64, kernel)).sum() / (len(y64) * (len(y64) - 1)))


def _trace_of_root(a: Array, b: Array) -> float:
    from scipy.linalg import eigvalsh
    from scipy.linalg.blas import dsyrk, dtrmm

    if a.shape != b.shape:
        raise ValueError(f"covariances of {len(a)} and {len(b)} features cannot be compared")
    left, right = _cholesky(a), _cholesky(b)
    if left is not None and right is not None:
        # P = L1^T L2 by a triangular product, P P^T by a symmetric one: half the work of plain products each.
        product = dtrmm(1.0, left, right, lower=1, trans_a=1)
        values = eigvalsh(dsyrk(1.0, product, lower=1), lower=True, check_finite=False, overwrite_a=True)
        return float(np.sqrt(values.clip(min=0)).sum())
    product = (_factor(a) if left is None else left).T @ (_factor(b) if right is None else right)
    return float(np.linalg.svd(product, compute_uv=False).sum())


def _cholesky(matrix: Array) -> Array | None:
    """The lower Cholesky factor, or None where the matrix is not well inside the positive definite ones."""
    from scipy.linalg.lapack import dpotrf

    factor, failed = dpotrf(matrix, lower=1, clean=1)
    if failed:
        return None
    pivots = np.square(np.diagonal(factor))
    return np.asarray(factor) if pivots.min() > CONDITION * pivots.max() else None


def _factor(matrix: Array) -> Array:
    """L (d, r) with L L^T = matrix, for a positive semi-definite matrix of rank r."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > len(matrix) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _intercept(x: Array, y: Array) -> Estimated:
    """Least squares of y = a + b x: a and its standard error."""
    design = np.stack([np.ones_like(x), x], axis=1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ solution
    variance = residual @ residual / max(len(x) - 2, 1)
    covariance = variance * np.linalg.inv(design.T @ design)
    return Estimated(float(solution[0]), float(np.sqrt(covariance[0, 0])))


def _row_sums(x: Array, y: Array, kernel: Kernel) -> Array:
    rows = [kernel(x[i : i + _BLOCK] @ y.T, x.shape[1]).sum(axis=1) for i in range(0, len(x), _BLOCK)]
    return np.concatenate(rows)


def _diagonal(x: Array, kernel: Kernel) -> Array:
    return kernel(np.einsum("nd,nd->n", x, x), x.shape[1])
