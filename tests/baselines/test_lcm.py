"""Latent consistency: the boundary, and a loss that is zero for the exact consistency function of a known ODE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from add.noise import NoiseSchedule, coefficients, diffuse
from baselines.lcm import boundary_scalings, consistency_function, consistency_loss, teacher_step
from baselines.spec import LcmSpec
from tests.support.rivals import RIVALS

SD21 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def settings(**changes: object) -> LcmSpec:
    return LcmSpec.model_validate({"kind": "lcm", **RIVALS["lcm"], "huber": None, **changes})


def schedule() -> NoiseSchedule:
    return NoiseSchedule.from_scheduler({**SD21, "prediction_type": "sample"}).to(torch.device("cpu"))


def exact(deviation: float):
    """x_0 estimate and ODE solution for N(0, d^2): x_t / sqrt(alpha^2 d^2 + sigma^2) is constant."""
    noise = schedule()

    def spread(t: Tensor) -> Tensor:
        alpha, sigma = coefficients(noise, t, 2)
        return (alpha**2 * deviation**2 + sigma**2).sqrt()

    def teacher(x: Tensor, t: Tensor, conditioning: str) -> Tensor:
        alpha, _ = coefficients(noise, t, 2)
        return alpha * deviation**2 * x / spread(t) ** 2

    def solve(x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        return x * spread(t_next) / spread(t)

    return teacher, solve


def points(deviation: float, skip: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    t = torch.randint(1, 1000 // skip + 1, (256,), generator=draws) * skip - 1
    x0, eps = torch.randn(2, 256, 3, generator=draws)
    return diffuse(schedule(), deviation * x0, eps, t), t


def test_the_student_is_the_identity_at_timestep_0_and_the_networks_x0_far_from_it():
    x = torch.randn(4, 3, 2, 2)
    f = consistency_function(lambda x, t, c: x.new_full(x.shape, 7.0), schedule(), settings())
    torch.testing.assert_close(f(x, torch.zeros(4, dtype=torch.long)), x)
    torch.testing.assert_close(f(x, torch.full((4,), 999)), torch.full_like(x, 7), rtol=1e-4, atol=1e-4)


def test_the_boundary_scalings_are_those_of_the_scheduler_that_samples():
    from diffusers import LCMScheduler

    for scaling in (10.0, 0.1):
        scheduler = LCMScheduler(timestep_scaling=scaling)
        for t in (0, 1, 19, 499):
            ours = boundary_scalings(torch.tensor([t]), settings(timestep_scaling=scaling), 1)
            theirs = scheduler.get_scalings_for_boundary_condition_discrete(t)
            assert [float(value) for value in ours] == pytest.approx(theirs)


def test_the_loss_is_zero_for_the_exact_consistency_function_and_not_for_another():
    _, solve = exact(0.6)
    x, t = points(0.6, 20)

    def f(x: Tensor, t: Tensor) -> Tensor:
        return solve(x, t, torch.zeros_like(t))

    assert float(consistency_loss(f, f, solve, x, t, settings())) < 1e-12
    assert float(consistency_loss(lambda x, t: 1.1 * f(x, t), f, solve, x, t, settings())) > 1e-3
    assert float(consistency_loss(f, f, solve, x, t, settings(huber=0.001))) < 1e-6


def test_the_teachers_ddim_step_comes_near_the_ode_as_the_skip_shrinks():
    teacher, solve = exact(0.6)
    losses = []
    for skip in (40, 20, 10):
        x, t = points(0.6, skip)
        t_next = (t - skip).clamp(min=0)
        step = teacher_step(teacher, schedule(), x, t, t_next, 1.0)
        losses.append(float((step - solve(x, t, t_next)).square().mean()))
    assert losses[0] > 6 * losses[1] > 36 * losses[2]


def test_the_teachers_step_is_guided():
    noise = schedule()
    x, t = points(0.6, 20)
    t_next = t - 19

    def teacher(x: Tensor, t: Tensor, conditioning: str) -> Tensor:
        return x.new_full(x.shape, 2.0 if conditioning == "text" else 1.0)

    found = teacher_step(teacher, noise, x, t, t_next, 3.0)
    alpha, sigma = coefficients(noise, t, 2)
    next_alpha, next_sigma = coefficients(noise, t_next, 2)
    torch.testing.assert_close(found, next_alpha * 4 + next_sigma * (x - alpha * 4) / sigma)
