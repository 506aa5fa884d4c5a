"""Augmentation: identity at strength 0, ranges, gradients, reproducible draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from add.augment import augment, colour, cutout, random_crop, translate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_strength_zero_is_the_identity_and_draws_nothing():
    """Breaks when a run without augmentation is changed, or its random stream moves."""
    images, g = torch.randn(4, 3, 16, 16), generator()
    before = g.get_state()
    assert torch.equal(augment(images, 0.0, g), images)
    assert torch.equal(g.get_state(), before)
    with pytest.raises(ValueError, match=r"1\.5"):
        augment(images, 1.5, g)


@settings(max_examples=20, deadline=None)
@given(strength=st.floats(0.01, 1), seed=st.integers(0, 999), size=st.sampled_from([(16, 16), (8, 32)]))
def test_shape_finite_and_reproducible(strength, seed, size):
    """Breaks when a draw comes from global randomness, or an odd size or strength trips the geometry."""
    images = torch.randn(5, 3, *size, generator=generator(1))
    first, second = (augment(images, strength, generator(seed)) for _ in range(2))
    assert first.shape == images.shape
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()


def test_samples_and_calls_have_their_own_draws():
    """Breaks when the whole batch, or real and generated images, share one draw."""
    images, g = torch.randn(1, 3, 32, 32).expand(6, -1, -1, -1), generator()
    first, second = augment(images, 1.0, g), augment(images, 1.0, g)
    assert not torch.equal(first, second)
    assert all(not torch.equal(first[0], first[b]) for b in range(1, 6))


def test_gradient_reaches_the_images():
    """Breaks when an operation is not differentiable: the student would not be trained through it."""
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, 1.0, generator(3)), (images,))


def test_colour_stays_in_its_ranges():
    images = torch.zeros(2000, 3, 2, 2)
    brightness = colour(images, 0.5, generator())[:, 0, 0, 0]
    assert 0.24 < float(brightness.max()) <= 0.25
    assert -0.25 <= float(brightness.min()) < -0.24
    contrast = torch.ones(2000, 3, 1, 2) * torch.tensor([-1.0, 1.0])
    spread = colour(contrast, 1.0, generator()).flatten(1)
    spread = (spread[:, 1] - spread[:, 0]) / 2
    assert 0.5 <= float(spread.min()) < 0.51
    assert 1.49 < float(spread.max()) <= 1.5


def test_translation_moves_by_up_to_an_eighth_and_fills_with_zero():
    """Breaks when the shift wraps around, is too large, or only goes one way."""
    images = torch.zeros(400, 1, 16, 16)
    images[:, :, 8, 8] = 1
    moved = translate(images, 1.0, generator())
    at = moved.flatten(1).argmax(1)
    assert moved.sum() == 400
    assert set((at // 16).tolist()) == set((at % 16).tolist()) == {6, 7, 8, 9, 10}
    assert translate(torch.ones(50, 1, 16, 16), 1.0, generator()).flatten(1).min(1).values.min() == 0


def test_cutout_is_a_square_of_a_fifth_of_the_side():
    holes = (cutout(torch.ones(300, 1, 20, 20), 1.0, generator()) == 0).flatten(1).sum(1)
    assert int(holes.max()) == 16  # 4 x 4 inside, less at the border
    assert int(holes.min()) >= 4
    assert int((cutout(torch.ones(300, 1, 20, 20), 0.5, generator()) == 0).flatten(1).sum(1).max()) == 4


def test_crop_is_one_window_for_the_batch_with_its_probability():
    """Breaks when samples get different windows, or small images are touched."""
    rows = torch.arange(24.0).view(1, 1, 24, 1).expand(3, 3, 24, 24)
    g = generator()
    results = [random_crop(rows, 16, 0.5, g) for _ in range(400)]
    cropped = [r for r in results if r.shape[-1] == 16]
    assert all(r.shape in ((3, 3, 16, 16), (3, 3, 24, 24)) for r in results)
    assert 150 < len(cropped) < 250
    assert {float(r[0, 0, 0, 0]) for r in cropped} == set(range(9))
    assert all(torch.equal(r[0], r[2]) for r in cropped)
    state = g.get_state()
    assert random_crop(rows, 24, 1.0, g) is rows
    assert random_crop(rows, 16, 0.0, g) is rows
    assert torch.equal(g.get_state(), state)
    with pytest.raises(ValueError, match="probability 2"):
        random_crop(rows, 16, 2, g)
