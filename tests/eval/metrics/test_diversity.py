"""The Vendi score of each prompt's images: values that are known, and its definition by another way."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.diversity import vendi_score, vendi_scores


def test_identical_images_are_one_and_orthogonal_ones_are_m() -> None:
    same = np.repeat(np.random.default_rng(0).normal(size=(1, 1, 8)), 5, axis=1)
    assert vendi_scores(same) == pytest.approx([1], abs=1e-9)
    assert vendi_scores(np.eye(5)[None]) == pytest.approx([5], rel=1e-12)
    pairs = np.eye(2)[[0, 0, 0, 1, 1, 1]][None]
    assert vendi_scores(pairs) == pytest.approx([2], rel=1e-9), "two kinds, three times each"
    uneven = np.eye(2)[[0, 0, 0, 1]][None]
    assert vendi_scores(uneven) == pytest.approx([np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))])


def test_it_is_the_entropy_of_the_eigenvalues_of_the_cosines() -> None:
    """By the singular values of the normalised features, as the authors' score_dual has it."""
    x = np.random.default_rng(1).normal(0.5, 1, (3, 6, 4)).astype(np.float32)
    for features, score in zip(x.astype(np.float64), vendi_scores(x), strict=True):
        rows = features / np.linalg.norm(features, axis=1, keepdims=True)
        p = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
        assert score == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_brightness_is_no_diversity_and_order_does_not_count() -> None:
    x = np.random.default_rng(2).normal(size=(2, 5, 7))
    scaled = x * np.array([1, 2, 3, 4, 5])[:, None]
    assert vendi_scores(scaled) == pytest.approx(vendi_scores(x), rel=1e-9)
    assert vendi_scores(x[:, ::-1]) == pytest.approx(vendi_scores(x), rel=1e-9)


def test_the_error_is_over_prompts() -> None:
    x = np.random.default_rng(3).normal(0.3, 1, (40, 4, 6))
    found, each = vendi_score(x), vendi_scores(x)
    assert found.value == pytest.approx(each.mean())
    assert found.error == pytest.approx(each.std(ddof=1) / np.sqrt(40))


def test_what_has_no_diversity_is_refused() -> None:
    x = np.ones((3, 4, 5))
    for shape in (x[0], x[:, :1]):
        with pytest.raises(ValueError, match="at least 2 images a prompt"):
            vendi_scores(shape)
    with pytest.raises(ValueError, match="at least 2 prompts"):
        vendi_score(x[:1])
    for value in (0, np.nan):
        broken = x.copy()
        broken[1, 2] = value
        with pytest.raises(ValueError, match="image 2 of prompt 1 have no direction"):
            vendi_scores(broken)
