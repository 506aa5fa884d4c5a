"""Kernel Inception distance: the unbiased squared MMD of two feature sets under k(x, y) = (x.y / d + 1)^3.

Binkowski et al., arXiv 1801.01401, equation 4. The estimate uses all images at once (no subsets, so no
seed); its expectation does not depend on their number, which FID's does. It may be negative where the two
sets are alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK = 1024  # rows of a kernel matrix that are in memory at once


@dataclass(frozen=True)
class KernelDistance:
    """The squared MMD and its standard error over the measured images (jackknife; the reference is fixed).

    left_out: float64 (n,), the value without image i.
    """

    value: float
    error: float
    left_out: Array = field(repr=False, compare=False)

    @property
    def interval(self) -> tuple[float, float]:
        """value -+ 1.96 standard errors."""
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error


def kernel_distance(
    features: NDArray[np.floating], reference: NDArray[np.floating], *, within_reference: float | None = None
) -> KernelDistance:
    """KID of features (n, d) against reference (m, d), n >= 3 and m >= 2.

    `within_reference` is `mean_kernel(reference)`, where it is known already. Raises ValueError on other
    shapes.
    """
    x, y = features.astype(np.float64), reference.astype(np.float64)
    n = len(x)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or n < 3 or len(y) < 2:
        raise ValueError(f"features {x.shape} and reference {y.shape} do not compare")
    within = mean_kernel(y) if within_reference is None else within_reference
    own = _row_sums(x, x) - _diagonal(x)
    cross = _row_sums(x, y)
    value = own.sum() / (n * (n - 1)) + within - 2 * cross.sum() / (n * len(y))
    # Leaving image i out: its row and column leave the first sum, its row the last one.
    left = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (cross.sum() - cross) / ((n - 1) * len(y))
    return KernelDistance(float(value), jackknife_error(left), left)


def jackknife_error(left_out: Array) -> float:
    """The standard error of an estimate whose values without image i are left_out (n,)."""
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))


def mean_kernel(y: NDArray[np.floating]) -> float:
    """The mean of k over all pairs of different rows of y (m, d), m >= 2."""
    y64 = y.astype(np.float64)
    return float((_row_sums(y64, y64) - _diagonal(y64)).sum() / (len(y64) * (len(y64) - 1)))


def _row_sums(x: Array, y: Array) -> Array:
    rows = [_kernel(x[i : i + _BLOCK] @ y.T, x.shape[1]).sum(axis=1) for i in range(0, len(x), _BLOCK)]
    return np.concatenate(rows)


def _diagonal(x: Array) -> Array:
    return _kernel(np.einsum("nd,nd->n", x, x), x.shape[1])


def _kernel(products: Array, dimension: int) -> Array:
    base = products / dimension + 1
    return np.asarray(base * base * base)
