"""CMMD against a direct double sum, and against what its authors' code computes."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics import distances
from eval.metrics.distances import cmmd, gaussian, mean_kernel


def unit(n: int, seed: int, shift: float = 0.0, d: int = 8) -> np.ndarray:
    x = np.random.default_rng(seed).normal(shift, 1, (n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def k(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.exp(-np.square(a - b).sum() / (2 * 10**2)))


def plain(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return 1000 * (xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m))


def test_agrees_with_a_double_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = unit(17, 0, 0.4), unit(23, 1)
    expected = plain(x, y)
    assert cmmd(x, y).value == pytest.approx(expected, rel=1e-9)
    assert cmmd(x, y, within_reference=mean_kernel(y, gaussian)).value == pytest.approx(expected, rel=1e-9)
    assert cmmd(x.astype(np.float32), y.astype(np.float32)).value == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(distances, "_BLOCK", 5)
    assert cmmd(x, y).value == pytest.approx(expected, rel=1e-9), "the blocks lose rows"


def test_the_authors_code_adds_what_images_have_with_themselves() -> None:
    """Their estimate is the biased one: the docstring says by how much it is larger."""
    x, y = unit(30, 0, 0.4), unit(40, 1)
    theirs = 1000 * (
        np.mean([[k(a, b) for b in x] for a in x])
        + np.mean([[k(a, b) for b in y] for a in y])
        - 2 * np.mean([[k(a, b) for b in y] for a in x])
    )
    bias = 1000 * ((1 - mean_kernel(x, gaussian)) / len(x) + (1 - mean_kernel(y, gaussian)) / len(y))
    assert bias > 0.1
    assert cmmd(x, y).value == pytest.approx(theirs - bias, rel=1e-9)


def test_the_error_is_the_jackknife_over_images() -> None:
    x, y = unit(12, 0, 0.4), unit(15, 1)
    left = np.array([plain(np.delete(x, i, 0), y) for i in range(len(x))])
    expected = np.sqrt((len(x) - 1) / len(x) * np.square(left - left.mean()).sum())
    assert cmmd(x, y).error == pytest.approx(expected, rel=1e-7)


def test_embeddings_that_are_not_normalised_are_refused() -> None:
    x, y = unit(12, 0), unit(15, 1)
    for pair in ((2 * x, y), (x, 2 * y)):
        with pytest.raises(ValueError, match="length 1"):
            cmmd(*pair)
    with pytest.raises(ValueError, match="do not compare"):
        cmmd(x, unit(15, 1, d=9))
