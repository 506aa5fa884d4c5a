"""Precision, recall, density and coverage, against their definitions in plain loops and what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics import manifold
from eval.metrics.manifold import neighbourhoods

NAMES = ("precision", "recall", "density", "coverage")


def four(generated: np.ndarray, real: np.ndarray, nearest: int = 5) -> dict[str, float]:
    found = neighbourhoods(generated, real, nearest)
    means = (found.inside.mean(), found.recalled.mean(), found.densities.mean(), found.covered.mean())
    return dict(zip(NAMES, map(float, means), strict=True))


def radius(x: np.ndarray, i: int, nearest: int) -> float:
    return sorted(float(np.linalg.norm(x[i] - other)) for j, other in enumerate(x) if j != i)[nearest - 1]


def plain(generated: np.ndarray, real: np.ndarray, nearest: int) -> dict[str, float]:
    """As the package prdc 0.2 defines them, with all distances in full."""
    far = np.array([[float(np.linalg.norm(y - x)) for x in generated] for y in real])
    of_real = np.array([radius(real, j, nearest) for j in range(len(real))])
    of_generated = np.array([radius(generated, i, nearest) for i in range(len(generated))])
    held = far < of_real[:, None]
    return {
        "precision": float(held.any(axis=0).mean()),
        "recall": float((far < of_generated).any(axis=1).mean()),
        "density": float(held.sum(axis=0).mean() / nearest),
        "coverage": float((far.min(axis=1) < of_real).mean()),
    }


def pair(n: int = 60, m: int = 60, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 1.5


@pytest.mark.parametrize("nearest", [1, 3, 5])
@pytest.mark.parametrize("block", [7, 1024])
def test_they_are_their_definitions(nearest: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "_BLOCK", block)
    found = four(*pair(), nearest)
    assert found == pytest.approx(plain(*pair(), nearest), rel=1e-12)
    assert len(set(found.values())) == 4, "the pair tells the four apart"


def test_as_many_images_of_either_set_are_taken() -> None:
    generated, real = pair(40, 90)
    assert four(generated, real) == pytest.approx(plain(generated, real[:40], 5))
    assert four(real, generated) == pytest.approx(plain(real[:40], generated, 5))


def test_a_kind_that_is_left_out_lowers_recall_and_coverage_alone() -> None:
    rng = np.random.default_rng(2)
    real = np.concatenate([rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 20])
    order = rng.permutation(400)
    both = np.concatenate([rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 20])[order]
    whole, half = four(both, real[order]), four(rng.normal(size=(400, 4)), real[order])
    assert min(whole.values()) > 0.9
    assert half["coverage"] == pytest.approx(0.5, abs=0.05)
    assert half["recall"] == pytest.approx(0.5, abs=0.05)
    assert half["precision"] > 0.9


def test_images_far_from_all_real_ones_lower_precision_and_density_alone() -> None:
    rng = np.random.default_rng(3)
    real, good = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    good[::2] += 50
    found = four(good, real)
    assert found["precision"] == pytest.approx(0.5, abs=0.05)
    assert found["density"] == pytest.approx(0.5, abs=0.1)
    assert found["recall"] > 0.9


def test_an_outlier_among_the_real_images_raises_precision_and_not_density() -> None:
    """What density was made for: one distant real image's ball holds everything between."""
    rng = np.random.default_rng(4)
    real, wrong = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 30
    real[0] = 60
    found = four(wrong, real)
    assert found["precision"] > 0.9
    assert found["density"] == pytest.approx(0.2, abs=0.01), "each is in one ball, of 5"


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="5 images of either set have no 5 neighbours"):
        four(np.zeros((9, 2)), np.zeros((5, 2)))
