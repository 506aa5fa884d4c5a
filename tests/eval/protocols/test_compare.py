"""The interval of a difference between two protocols."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.distances import deviation_of_mean, jackknife_error
from eval.metrics.measure import ReferenceFeatures, image_distance, image_kernel_distance
from eval.metrics.protocol import SourceIdentity
from eval.protocols.compare import FeatureDistances, difference

WIDTH = 2 * 1.96


def distances(features: np.ndarray, reference: ReferenceFeatures) -> FeatureDistances:
    return FeatureDistances(image_distance(features, reference), image_kernel_distance(features, reference))


@pytest.fixture(scope="module")
def reference() -> ReferenceFeatures:
    source = SourceIdentity(file="real", sha256="0" * 64, count=500)
    return ReferenceFeatures(source, np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32))


def test_the_interval_of_some_of_the_images_less_all_is_as_wide_as_draws_spread(reference):
    """Breaks when images that are in both sets count twice: the interval is then 1.7 times as wide."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(300):
        features = random.normal(0.3, 1.2, size=(300, 4)).astype(np.float32)
        whole, half = (distances(features[:n], reference) for n in (300, 150))
        found.append(difference(half, whole, paired=True))
    for figures in ([each.fid for each in found], [each.kid for each in found]):
        spread = np.std([figure.value for figure in figures], ddof=1)
        stated = np.mean([figure.high - figure.low for figure in figures]) / WIDTH
        assert 0.88 <= stated / spread <= 1.12


def test_sets_of_one_size_have_the_error_of_their_difference_image_by_image(reference):
    """The reference implementation: the standard error of the images' differences."""
    random = np.random.default_rng(2)
    features = random.normal(0.3, 1.2, size=(200, 4)).astype(np.float32)
    one, base = (distances(f, reference) for f in (features, features + 0.1 * random.normal(size=(200, 4))))
    found = difference(one, base, paired=True)
    fid = deviation_of_mean(one.fid.influence - base.fid.influence)
    kid = jackknife_error(one.kid.left_out - base.kid.left_out)
    assert found.fid.high - found.fid.low == pytest.approx(WIDTH * fid, rel=1e-3)
    assert found.kid.high - found.kid.low == pytest.approx(WIDTH * kid, rel=1e-3)
