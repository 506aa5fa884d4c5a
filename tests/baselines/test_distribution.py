"""Diff-Instruct and DMD2: the direction is a KL divergence's gradient, and two networks learn at two time scales."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from add.batch import draw_batch
from add.data.training_set import open_training_set
from add.noise import NoiseSchedule, coefficients, diffuse
from baselines.diff_instruct import denoising_loss, kl_direction, with_gradient
from baselines.dmd2 import matching_direction
from baselines.train import make_method
from tests.baselines.test_progressive import gaussian, schedule
from tests.support.rivals import smoke_rival


@pytest.mark.parametrize("step", [100, 300, 500])
def test_the_direction_is_the_gradient_of_the_kl_divergence_between_gaussians(step: int):
    noise = schedule()
    mean, spread = torch.tensor(0.4, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    draws = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 100_000, 1, generator=draws)
    t = torch.full((len(z),), step)
    x = mean + spread * z
    fake, real = gaussian(noise, 0.4, 0.5), gaussian(noise, -0.2, 0.8)
    with_gradient(x, kl_direction(noise, fake, real, x.detach(), eps, t)).backward()
    assert mean.grad is not None
    assert spread.grad is not None
    # KL(N(a m, a^2 d^2 + s^2) || N(a m', a^2 d'^2 + s^2)) differentiated by m and d, times sigma^2.
    alpha, sigma = float(noise.alphas[step]), float(noise.sigmas[step])
    own, goal = (alpha**2 * d**2 + sigma**2 for d in (0.5, 0.8))
    assert float(mean.grad) == pytest.approx(sigma**2 * alpha**2 * 0.6 / goal, rel=0.05)
    expected = sigma**2 * alpha**2 * 0.5 * (1 / goal - 1 / own)
    assert float(spread.grad) == pytest.approx(expected, rel=0.05)


def test_at_equal_scores_nothing_moves():
    noise, x, t = schedule(), torch.randn(8, 2), torch.full((8,), 500)
    same = gaussian(noise, 0.1, 0.7)
    for direction in (kl_direction, matching_direction):
        assert float(direction(noise, same, same, x, torch.randn(8, 2), t).abs().max()) == 0


def test_dmds_direction_has_the_scale_of_the_distance_to_the_teachers_estimate():
    noise, x, eps, t = schedule(), torch.randn(8, 2, 3), torch.randn(8, 2, 3), torch.full((8,), 500)
    fake, real = gaussian(noise, 0.4, 0.5), gaussian(noise, -0.2, 0.8)
    x_t = diffuse(noise, x, eps, t)
    goal = real(x_t, t)[0]
    for k in range(8):
        expected = (fake(x_t, t)[0] - goal)[k] / (x - goal)[k].abs().mean()
        torch.testing.assert_close(matching_direction(noise, fake, real, x, eps, t)[k], expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_denoising_loss_is_zero_for_what_the_network_should_say(prediction: str):
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    noise = NoiseSchedule.from_scheduler({**config, "prediction_type": prediction})
    x, eps = torch.randn(2, 4, 3)
    t = torch.tensor([1, 300, 600, 999])
    x_t = diffuse(noise, x, eps, t)
    alpha, sigma = coefficients(noise, t, 2)
    right: dict[str, Tensor] = {"epsilon": (x_t - alpha * x) / sigma, "v_prediction": alpha * eps - sigma * x}
    output = right.get(prediction, x)
    assert float(denoising_loss(noise, output, x, eps, t)) < 1e-9
    assert float(denoising_loss(noise, output + 1, x, eps, t)) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("kind", ["diff_instruct", "dmd2"])
def test_the_fake_network_learns_every_step_and_the_student_every_second(smoke: Path, kind: str):
    spec = smoke_rival(kind, steps=4)
    method = make_method(spec, 0, "cpu", None)
    data = open_training_set(spec.data.train)
    for step in range(4):
        batch = draw_batch(spec, data, 32, method.network.latent_shape, 0, step, 0)
        before = {n: [p.clone() for p in m.parameters()] for n, m in method.modules.items()}
        method.update(batch, step)
        moved = {
            name: any(not torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True))
            for name, module in method.modules.items()
        }
        assert moved.pop("student") == (step % 2 == 1)
        assert all(moved.values())


def test_diff_instruct_uses_no_real_image_and_dmd2_does(smoke: Path):
    for kind, blind in (("diff_instruct", True), ("dmd2", False)):
        spec, found = smoke_rival(kind, steps=2), []
        for factor in (1.0, 0.5):
            method = make_method(spec, 0, "cpu", None)
            data = open_training_set(spec.data.train)
            batch = draw_batch(spec, data, 32, method.network.latent_shape, 0, 1, 0)
            method.update(type(batch)(**{**vars(batch), "real": batch.real * factor}), 0)
            found.append([p.clone() for p in method.modules["fake"].parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) == blind
