"""The realism score: the Gaussian's own formulas, and real photographs above blurred and noised ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from add.config.load import load_scale
from eval.preferences.raters.scores import fit_realism, shrunk_covariance
from tests.support.smoke import REPOSITORY


def slow_shrunk(values: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf (2004), equations of section 3.3, one image after the other."""
    count, width = values.shape
    centred = values - values.mean(axis=0)
    sample = sum(np.outer(x, x) for x in centred) / count
    inner = lambda a, b: float(np.trace(a @ b.T)) / width  # noqa: E731
    m = inner(sample, np.eye(width))
    d2 = inner(sample - m * np.eye(width), sample - m * np.eye(width))
    single = [np.outer(x, x) - sample for x in centred]
    b2 = min(d2, sum(inner(e, e) for e in single) / count**2)
    return np.asarray(b2 / d2 * m * np.eye(width) + (d2 - b2) / d2 * sample)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 10**6))
def test_the_covariance_is_ledoit_and_wolfs(count: int, width: int, seed: int):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, width)) @ generator.normal(size=(width, width))
    np.testing.assert_allclose(shrunk_covariance(values), slow_shrunk(values), rtol=1e-9, atol=1e-12)


def test_with_many_images_it_is_mahalanobis_distance():
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(200_000, 3)) @ np.diag([1.0, 3.0, 0.5]) + [1, 2, 3]).astype(np.float32)
    points = np.array([[1, 2, 3], [2, 2, 3], [1, 5, 3], [1, 2, 4]], dtype=np.float32)
    np.testing.assert_allclose(fit_realism(values).scores(points), [0, -1, -1, -2], atol=0.02)


def test_fewer_images_than_features_still_give_a_distance():
    values = np.random.default_rng(0).normal(size=(5, 60)).astype(np.float32)
    scores = fit_realism(values).scores(values)
    assert np.isfinite(scores).all()
    assert (scores < 0).all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((1, 4), np.float32), "at least 2 finite"),
        (np.ones((4,), np.float32), "at least 2 finite"),
        (np.full((4, 2), np.nan, np.float32), "at least 2 finite"),
        (np.ones((4, 2), np.float32), "do not vary"),
    ],
)
def test_a_reference_that_says_nothing_is_refused(features: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        fit_realism(features)


def test_features_of_another_network_are_refused():
    realism = fit_realism(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    with pytest.raises(ValueError, match="have 4 columns"):
        realism.scores(np.zeros((2, 5), np.float32))


@pytest.mark.slow
def test_real_photographs_beat_blurred_and_noised_ones(monkeypatch: pytest.MonkeyPatch):
    """By the miniature's own extractor, on photographs that the reference does not hold; chance would be 0.5."""
    from scipy.ndimage import gaussian_filter

    from eval.metrics.features import ImageBatch, load_extractor
    from mini.world import draw_photographs, draw_scenes, render

    monkeypatch.chdir(REPOSITORY)
    extractor = load_extractor(load_scale("config/mini.yaml").evaluation.extractor)
    pictures = render(draw_scenes("reference", 700), draw_photographs("reference", 700))
    realism = fit_realism(extractor(ImageBatch(pictures)))
    real = render(draw_scenes("val", 60), draw_photographs("val", 60))
    soft = np.rint(gaussian_filter(real.astype(np.float32), (0, 1, 1, 0), mode="nearest")).astype(np.uint8)
    grain = np.random.default_rng(0).normal(0, 16, real.shape)
    noised = np.rint(real + grain).clip(0, 255).astype(np.uint8)
    good = realism.scores(extractor(ImageBatch(real)))
    for name, images in (("blurred", soft), ("noised", noised)):
        bad = realism.scores(extractor(ImageBatch(images)))
        assert (good > bad).mean() > 0.9, f"{name}, the same scene on both sides"
        assert (good[:, None] > bad[None]).mean() > 0.9, f"{name}, any two scenes"
