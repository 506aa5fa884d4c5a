"""FID-infinity: a line through 1/n is recovered, the bias goes, and too few images are refused."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.distances import (
    Statistics,
    TooFewImagesError,
    _intercept,
    extrapolated,
    frechet_distance,
    statistics,
)


def test_a_line_is_recovered_with_its_error() -> None:
    x = 1 / np.linspace(100, 500, 15)
    exact = _intercept(x, 7 + 300 * x)
    assert exact.value == pytest.approx(7)
    assert exact.error == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(0).normal(0, 0.5, (400, 15))
    found = [_intercept(x, 7 + 300 * x + row) for row in noise]
    spread = np.std([one.value for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.15)


def test_the_bias_of_few_images_goes() -> None:
    """The truth is known: 8 features, one normal with its mean moved by 0.5 in each, so a distance of 2."""
    reference = Statistics(np.full(8, 0.5), np.eye(8), 10**9)
    generator = np.random.default_rng(1)
    sets = [generator.normal(size=(200, 8)) for _ in range(60)]
    plain = np.array([frechet_distance(statistics(x), reference) for x in sets])
    infinite = np.array([extrapolated(x, reference, k).value for k, x in enumerate(sets)])
    error = plain.std() / np.sqrt(len(sets))
    assert plain.mean() - 2 > 3 * error, "nothing to correct: the test shows nothing"
    assert abs(infinite.mean() - 2) < 3 * infinite.std() / np.sqrt(len(sets))


def test_it_depends_on_features_and_seed_alone_and_refuses_subsets_with_few_images_a_feature() -> None:
    reference = Statistics(np.zeros(8), np.eye(8), 100)
    x = np.random.default_rng(2).normal(size=(120, 8)).astype(np.float32)
    assert extrapolated(x, reference, 3) == extrapolated(x, reference, 3)
    with pytest.raises(TooFewImagesError, match="8 features needs 80 images or more, 79 are there"):
        extrapolated(x[:79], reference)
    assert np.isfinite(extrapolated(x[:80], reference).value)
