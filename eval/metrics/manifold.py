"""How much of each of two sets lies where the other does: precision, recall, density and coverage.

Each set's manifold is estimated by balls: one round each image, out to its k-th neighbour in its own set.

    precision   share of generated images in a ball of a real one (Kynkaanniemi et al., arXiv 1904.06991, equation 2)
    recall      share of real images in a ball of a generated one (there, equation 2 with the sets exchanged)
    density     mean number, by k, of real balls around a generated image (Naeem et al., arXiv 2002.09797, equation 3)
    coverage    share of real images whose ball holds a generated one (there, equation 4)

Precision and density speak of quality, recall and coverage of diversity. One distant real image has a ball that holds
much, which density and coverage forgive and precision and recall do not. All four depend on both numbers of images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eval.metrics.distances import Array

_BLOCK = 1024  # rows of a matrix of distances that are in memory at once


@dataclass(frozen=True)
class Neighbourhoods:
    """What the balls of n real and n generated images hold of each other. A ball is open: its edge is outside.

    holding: int64 (n,), how many real balls hold each generated image. recalled: bool (n,), whether each real image is
    in a ball of a generated one. covered: bool (n,), whether each real image's ball holds a generated one.
    """

    nearest: int
    holding: NDArray[np.int64] = field(repr=False)
    recalled: NDArray[np.bool_] = field(repr=False)
    covered: NDArray[np.bool_] = field(repr=False)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether each generated image is in a ball of a real one, bool (n,): precision is the mean."""
        return self.holding > 0

    @property
    def densities(self) -> Array:
        """What each generated image adds to density, float64 (n,): density is the mean."""
        return self.holding / self.nearest


def neighbourhoods(
    features: NDArray[np.floating], reference: NDArray[np.floating], nearest: int
) -> Neighbourhoods:
    """The balls of features (n, d) and reference (m, d) out to the `nearest`-th neighbour, by Euclidean distance.

    As many images are taken of either set, the first min(n, m). Raises ValueError where that is not more than
    `nearest`.
    """
    n = min(len(features), len(reference))
    if n <= nearest:
        raise ValueError(f"{n} images of either set have no {nearest} neighbours each")
    generated, real = features[:n].astype(np.float64), reference[:n].astype(np.float64)
    real_radius, generated_radius = _radii(real, nearest), _radii(generated, nearest)
    holding = np.zeros(n, np.int64)
    recalled, covered = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        distances = _squared_distances(real[rows], generated)
        in_real = distances < real_radius[rows, None]
        holding += in_real.sum(axis=0)
        covered[rows] = in_real.any(axis=1)
        recalled[rows] = (distances < generated_radius).any(axis=1)
    return Neighbourhoods(nearest, holding, recalled, covered)


def _radii(x: Array, nearest: int) -> Array:
    """The squared distance of each row of x (n, d) to its `nearest`-th neighbour among the others."""
    radii = np.empty(len(x))
    for start in range(0, len(x), _BLOCK):
        distances = _squared_distances(x[start : start + _BLOCK], x)
        own = np.arange(len(distances))
        distances[own, start + own] = 0.0  # a row's own image is the first of its nearest
        radii[start : start + _BLOCK] = np.partition(distances, nearest, axis=1)[:, nearest]
    return radii


def _squared_distances(x: Array, y: Array) -> Array:
    squares = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("nd,nd->n", y, y) - 2 * x @ y.T
    return np.asarray(squares.clip(min=0))
