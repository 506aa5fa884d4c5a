"""The bootstrap of FID, plain: the reference implementation beside its standard error by influence function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.metrics.distances import Statistics, frechet_distance, statistics


def bootstrap_values(
    features: NDArray[np.floating], reference: Statistics, resamples: int, seed: int = 0
) -> NDArray[np.float64]:
    """FID of each of `resamples` resamples of features (n, d), float64 (resamples,)."""
    generator, n = np.random.default_rng(seed), len(features)
    drawn = (features[generator.integers(0, n, n)] for _ in range(resamples))
    return np.array([frechet_distance(statistics(x), reference) for x in drawn])
