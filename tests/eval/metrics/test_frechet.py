"""The Fréchet term: against the textbook, a closed form, clean-fid, and its own properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from eval.metrics.distances import (
    Statistics,
    deviation_of_mean,
    frechet_distance,
    influence,
    statistics,
)
from eval.metrics.measure import ImageDistance, ReferenceFeatures, image_distance
from eval.metrics.protocol import SourceIdentity
from tests.support.bootstrap import bootstrap_values


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """(n, d) correlated features with scales over two decades, as networks have them."""
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(d, d)) / np.sqrt(d) * np.logspace(-1, 1, d)
    return generator.normal(size=(n, d)) @ mix + shift


def pair(n: int, d: int, seed: int = 0) -> tuple[Statistics, Statistics]:
    return statistics(features(n, d, seed)), statistics(features(n + 7, d, seed + 1, 0.3))


def frechet_distance_reference(a: Statistics, b: Statistics) -> float:
    """The textbook: scipy's square root of the product. Slow; here to check the fast one."""
    gap = a.mean - b.mean
    root = float(np.trace(sqrtm(a.covariance @ b.covariance)).real)
    return float(gap @ gap + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def test_statistics_are_numpys() -> None:
    x = features(50, 6, 0).astype(np.float32)
    found = statistics(x)
    assert found.count == 50
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 17, 64])
def test_agrees_with_the_textbook_to_1e_8(d: int) -> None:
    a, b = pair(4 * d + 8, d)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance_reference(a, b), rel=1e-8)


def test_agrees_with_clean_fid_to_1e_8() -> None:
    fid = pytest.importorskip("cleanfid.fid")
    a, b = pair(300, 48)
    theirs = fid.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert frechet_distance(a, b) == pytest.approx(float(theirs), rel=1e-8)


@given(
    st.lists(st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(-20, 20)] * 2), min_size=1, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_the_closed_form_of_diagonal_covariances(rows: list[tuple[float, float, float, float]]) -> None:
    s1, s2, m1, m2 = np.array(rows).T
    a, b = Statistics(m1, np.diag(s1**2), 9), Statistics(m2, np.diag(s2**2), 9)
    expected = np.square(m1 - m2).sum() + np.square(s1 - s2).sum()
    # An eigenvalue that should be 0 is one of rounding, 1e-16 of the largest, and its root 1e-8.
    assert frechet_distance(a, b) == pytest.approx(
        expected, rel=1e-8, abs=1e-7 * (1 + s1.max() + s2.max()) ** 2
    )


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_it_is_a_distance_for_any_number_of_images(seed: int, d: int, n: int) -> None:
    """Symmetric, not negative, nought for the same set, unmoved by a common rotation; also where n < d."""
    x, y = features(n, d, seed), features(n + 3, d, seed + 1, 0.5)
    a, b = statistics(x), statistics(y)
    scale = np.trace(a.covariance) + np.trace(b.covariance)
    forth = frechet_distance(a, b)
    assert forth >= -1e-9 * scale
    assert frechet_distance(b, a) == pytest.approx(forth, rel=1e-7, abs=1e-7 * scale)
    assert abs(frechet_distance(a, a)) < 1e-7 * scale
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    turned = frechet_distance(statistics(x @ turn), statistics(y @ turn))
    assert turned == pytest.approx(forth, rel=1e-6, abs=1e-6 * scale)


def test_fewer_images_than_dimensions_against_an_exact_value() -> None:
    """tr (C1 C2)^(1/2) is the nuclear norm of X1 X2^T / n: no eigenvalue of a singular matrix is involved."""
    x, y = features(12, 40, 0), features(15, 40, 1, 0.5)
    a, b = statistics(x), statistics(y)
    product = (x - x.mean(0)) @ (y - y.mean(0)).T
    root = np.linalg.norm(product, "nuc") / np.sqrt(11 * 14)
    gap = a.mean - b.mean
    exact = gap @ gap + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-10)


def test_dead_features_change_nothing() -> None:
    """A unit that never fires makes both covariances singular, which Cholesky alone does not survive."""
    x, y = features(60, 8, 0), features(60, 8, 1, 0.2)
    padded = [statistics(np.hstack([z, np.zeros((60, 3))])) for z in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(
        frechet_distance(statistics(x), statistics(y)), rel=1e-10
    )


def test_what_is_not_a_feature_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        statistics(np.ones((1, 4)))
    broken = np.ones((4, 4))
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="image 2 are not finite"):
        statistics(broken)
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(pair(20, 3)[0], pair(20, 4)[0])


def measured(x: np.ndarray, reference: np.ndarray) -> ImageDistance:
    source = SourceIdentity(file="reference", sha256="", count=len(reference))
    return image_distance(x, ReferenceFeatures(source, reference))


def test_the_interval_is_the_influences() -> None:
    x, y = features(60, 5, 0, 0.4), features(90, 5, 1)
    found = measured(x, y)
    assert found.value == frechet_distance(statistics(x), statistics(y))
    assert found.error == pytest.approx(influence(x, statistics(y)).std(ddof=1) / np.sqrt(60))
    assert found.reference_error == pytest.approx(influence(y, statistics(x)).std(ddof=1) / np.sqrt(90))
    assert found.interval is not None
    assert found.error is not None
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.value, rel=1e-12)
    assert high - low == pytest.approx(2 * 1.96 * found.error)


def test_the_interval_narrows_with_more_images() -> None:
    reference = features(400, 6, 1)
    few, many = (measured(features(n, 6, 2), reference).error for n in (80, 1280))
    assert few is not None
    assert many is not None
    assert many < 0.5 * few


@pytest.mark.parametrize(("images", "references"), [(8, 30), (30, 8)])
def test_no_interval_of_as_few_images_as_features(images: int, references: int) -> None:
    found = measured(features(images, 8, 0), features(references, 8, 1))
    assert found.value > 0
    assert (found.error, found.interval, found.reference_error) == (None, None, None)
    assert found.note is not None
    assert "rank of at most 7" in found.note


def test_an_images_influence_is_the_distances_derivative() -> None:
    """Against the change of the distance when one image is weighted a little more than the others."""
    x, y = features(200, 6, 0, 0.4), features(260, 6, 1)
    reference, found = statistics(y), influence(x, statistics(y))
    assert abs(found.mean()) < 1e-9 * np.abs(found).max()
    step = 1e-5
    for i in (0, 17, 199):
        weight = np.full(200, (1 - step) / 200)
        weight[i] += step
        mean = weight @ x
        # n / (n - 1), as the distance's covariance has it
        covariance = (x - mean).T @ ((x - mean) * weight[:, None]) * 200 / 199
        moved = frechet_distance(Statistics(mean, covariance, 200), reference)
        assert (moved - frechet_distance(statistics(x), reference)) / step == pytest.approx(
            found[i], rel=0.01
        )


@pytest.mark.parametrize(("n", "d", "shift"), [(1000, 16, 0.0), (1000, 64, 0.3)])
def test_the_influence_gives_the_bootstraps_spread(n: int, d: int, shift: float) -> None:
    x, reference = features(n, d, 2, shift), statistics(features(n + 500, d, 1))
    spread = bootstrap_values(x, reference, 300).std(ddof=1)
    assert deviation_of_mean(influence(x, reference)) == pytest.approx(spread, rel=0.15)


def test_the_influence_gives_the_spread_of_fresh_image_sets() -> None:
    """What it is for: the truth, which the bootstrap stands for."""
    reference = statistics(features(3000, 24, 1))
    mix = np.random.default_rng(5).normal(size=(24, 24)) / 5
    generator = np.random.default_rng(6)
    sets = [generator.normal(size=(800, 24)) @ mix + 0.1 for _ in range(200)]
    truth = np.std([frechet_distance(statistics(x), reference) for x in sets], ddof=1)
    assert deviation_of_mean(influence(sets[0], reference)) == pytest.approx(truth, rel=0.15)


def test_a_dead_feature_has_no_influence() -> None:
    x, y = features(60, 8, 0), features(60, 8, 1, 0.2)
    padded = [np.hstack([z, np.zeros((60, 3))]) for z in (x, y)]
    np.testing.assert_allclose(
        influence(padded[0], statistics(padded[1])), influence(x, statistics(y)), rtol=1e-6
    )


def test_no_error_is_stated_of_fewer_images_than_features() -> None:
    with pytest.raises(ValueError, match="8 images do not say how a distance of 8 features varies"):
        influence(features(8, 8, 0), statistics(features(30, 8, 1)))
