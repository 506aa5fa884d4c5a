"""KID against a plain loop, clean-fid, and what an unbiased estimate must do."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics import distances
from eval.metrics.distances import kernel_distance, mean_kernel


def sets(n: int = 17, m: int = 23, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(0.2, 1, (n, d)).astype(np.float32), generator.normal(0, 1.1, (m, d))


def plain(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(np.float64) @ b.astype(np.float64) / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def test_agrees_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sets()
    expected = plain(x, y)
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-10)
    assert kernel_distance(x, y, within_reference=mean_kernel(y)).value == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(distances, "_BLOCK", 5)
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-10), "the blocks lose rows"


def test_agrees_with_clean_fid_on_whole_sets() -> None:
    """With a subset as large as the sets, clean-fid's estimate is of all images too."""
    fid = pytest.importorskip("cleanfid.fid")
    x, y = sets(30, 30)
    theirs = fid.kernel_distance(x.astype(np.float64), y, num_subsets=1, max_subset_size=1000)
    assert kernel_distance(x, y).value == pytest.approx(theirs, rel=1e-9)


def test_the_error_is_the_jackknife_over_images() -> None:
    x, y = sets()
    left = np.array([plain(np.delete(x, i, 0), y) for i in range(len(x))])
    expected = np.sqrt((len(x) - 1) / len(x) * np.square(left - left.mean()).sum())
    found = kernel_distance(x, y)
    assert found.error == pytest.approx(expected, rel=1e-8)
    assert found.interval == pytest.approx((found.value - 1.96 * expected, found.value + 1.96 * expected))


def test_sets_of_one_distribution_are_nought_apart_on_average() -> None:
    """Unbiased: the mean over draws lies within three standard errors of 0, for as few as 8 images."""
    generator = np.random.default_rng(1)
    values = [
        kernel_distance(generator.normal(size=(8, 4)), generator.normal(size=(12, 4))).value
        for _ in range(400)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)
    assert min(values) < 0
    shifted = [
        kernel_distance(generator.normal(1, 1, (8, 4)), generator.normal(size=(12, 4))).value
        for _ in range(50)
    ]
    assert np.mean(shifted) > 5 * np.std(values) / np.sqrt(50)


def test_the_error_matches_the_spread_of_repeated_draws() -> None:
    generator = np.random.default_rng(2)
    reference = generator.normal(size=(200, 4))
    found = [kernel_distance(generator.normal(0.5, 1, (100, 4)), reference) for _ in range(150)]
    spread = np.std([one.value for one in found])
    assert 0.75 < np.mean([one.error for one in found]) / spread < 1.35


@pytest.mark.parametrize(("n", "m", "d"), [(2, 9, 4), (9, 1, 4), (9, 9, 5)])
def test_what_cannot_be_compared_is_refused(n: int, m: int, d: int) -> None:
    with pytest.raises(ValueError, match="do not compare"):
        kernel_distance(np.ones((n, 4)), np.ones((m, d)))
