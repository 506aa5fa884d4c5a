"""Coverage, against its definition in plain loops and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.distances import coverage


def plain(generated: np.ndarray, real: np.ndarray, nearest: int) -> list[bool]:
    """Equation 4 of arXiv 2002.09797, one real image after the other."""
    held = []
    for i, y in enumerate(real):
        neighbours = sorted(float(np.linalg.norm(y - other)) for j, other in enumerate(real) if j != i)
        held.append(any(float(np.linalg.norm(y - x)) < neighbours[nearest - 1] for x in generated))
    return held


def test_it_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    generated, real = rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) * 1.5
    for nearest in (1, 5):
        assert coverage(generated, real, nearest).tolist() == plain(generated, real, nearest)


def test_as_many_images_of_either_set_are_taken() -> None:
    rng = np.random.default_rng(1)
    generated, real = rng.normal(size=(40, 3)), rng.normal(size=(90, 3))
    assert coverage(generated, real).tolist() == plain(generated, real[:40], 5)
    assert coverage(real, generated).tolist() == plain(real[:40], generated, 5)


def test_a_kind_that_is_left_out_is_not_covered() -> None:
    rng = np.random.default_rng(2)
    real = np.concatenate([rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 20])
    order = rng.permutation(400)
    both = np.concatenate([rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 20])[order]
    one = rng.normal(size=(400, 4))
    assert coverage(both, real[order]).mean() > 0.9
    assert coverage(one, real[order]).mean() == pytest.approx(0.5, abs=0.05)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="5 real images have no 5 neighbours"):
        coverage(np.zeros((9, 2)), np.zeros((5, 2)))
