"""Guidance and progressive distillation: a linear model's guidance, and two teacher steps as one of the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from add.batch import draw_batch
from add.data.training_set import open_training_set
from add.noise import NoiseSchedule, coefficients, diffuse, epsilon_from, x0_from
from baselines.ddim import ddim, estimates, grid, levels, sample
from baselines.guidance_distillation import guidance_loss, truncated_snr_loss
from baselines.progressive import two_step_target
from baselines.spec import ProgressiveSpec
from baselines.train import make_method
from tests.support.rivals import RIVALS, smoke_rival

SD21 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR = {**SD21, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def schedule() -> NoiseSchedule:
    return NoiseSchedule.from_scheduler(ZERO_SNR)


def gaussian(noise: NoiseSchedule, mean: float, deviation: float):
    """The exact estimates for data N(mean, deviation^2)."""

    def given(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = coefficients(noise, t, z.ndim)
        variance = alpha**2 * deviation**2 + sigma**2
        eps = sigma * (z - alpha * mean) / variance
        return mean + alpha * deviation**2 * (z - alpha * mean) / variance, eps

    return given


def test_the_distilled_model_equals_guidance_w_on_a_linear_model():
    noise, w = schedule(), 3.0
    matrix = {"text": 0.7, "null": 0.2}

    def teacher(z: Tensor, t: Tensor, conditioning: str) -> Tensor:
        return matrix[conditioning] * z + (1.0 if conditioning == "text" else 0.5)

    # A linear student v = a z + b, by least squares on the loss.
    weights = torch.zeros(2, requires_grad=True)
    draws = torch.Generator().manual_seed(0)
    optimiser = torch.optim.LBFGS([weights], max_iter=50)
    t = torch.randint(0, 1000, (512,), generator=draws)
    z = torch.randn(512, 2, generator=draws)

    def student(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        output = weights[0] * z + weights[1]
        return x0_from(noise, output, z, t), epsilon_from(noise, output, z, t)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = guidance_loss(noise, student, estimates(teacher, noise, w), z, t)
        loss.backward()
        return loss

    optimiser.step(closure)
    slope, offset = 0.2 + w * (0.7 - 0.2), 0.5 + w * (1.0 - 0.5)
    torch.testing.assert_close(weights.detach(), torch.tensor([slope, offset]), rtol=1e-3, atol=1e-3)


def test_two_teacher_steps_equal_one_step_with_the_target_on_a_known_ode():
    noise, steps = schedule(), 4
    teacher = gaussian(noise, 0.3, 0.6)
    draws = torch.Generator().manual_seed(0)
    positions = grid(len(noise), 2 * steps)
    for start in range(0, 2 * steps, 2):
        position, middle, to = (torch.full((64,), positions[start + k]) for k in range(3))
        z = diffuse(noise, *torch.randn(2, 64, 3, generator=draws), position - 1)
        target = two_step_target(noise, teacher, z, position, middle, to)
        # The student's own step, written out: its noise follows from z and its x_0.
        alpha, sigma = levels(noise, position, 2)
        next_alpha, next_sigma = levels(noise, to, 2)
        reached = next_alpha * target + next_sigma * (z - alpha * target) / sigma
        two = ddim(noise, teacher, ddim(noise, teacher, z, position, middle), middle, to)
        torch.testing.assert_close(reached, two, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(target, teacher(z, position - 1)[0], atol=1e-2), "one step would have done"


def test_for_data_at_one_point_every_target_is_that_point():
    noise = schedule()
    position, middle, to = (torch.full((8,), p) for p in (1000, 750, 500))
    target = two_step_target(noise, gaussian(noise, 0.3, 0.0), torch.randn(8, 3), position, middle, to)
    torch.testing.assert_close(target, torch.full((8, 3), 0.3), rtol=1e-4, atol=1e-4)


def test_the_weight_is_the_truncated_snr():
    noise = schedule()
    for t in (10, 900, 999):
        alpha, sigma = float(noise.alphas[t]), float(noise.sigmas[t])
        found = float(truncated_snr_loss(noise, torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([t])))
        assert found == pytest.approx(max(alpha**2 / sigma**2, 1.0))


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 25])
def test_a_chain_is_that_of_diffusers_scheduler(steps: int):
    from diffusers import DDIMScheduler

    noise, scheduler = schedule(), DDIMScheduler(**ZERO_SNR, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    teacher = gaussian(noise, 0.3, 0.6)
    x = start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        x0, eps = teacher(x, t.expand(4))
        alpha, sigma = coefficients(noise, t.expand(4), 2)
        x = scheduler.step(alpha * eps - sigma * x0, t, x).prev_sample
    torch.testing.assert_close(sample(noise, teacher, start, grid(1000, steps))[-1], x, rtol=1e-4, atol=1e-4)


def settings(**changes: object) -> ProgressiveSpec:
    return ProgressiveSpec.model_validate({"kind": "progressive", **RIVALS["progressive"], **changes})


def test_the_schedule_halves_down_to_the_last():
    found = settings(guidance_share=0.2, first=8, last=1, last_share=0.4).stages(100)
    assert found == [(None, 20), (8, 16), (4, 16), (2, 16), (1, 32)]
    assert settings(guidance_share=0.0, first=4, last=4, last_share=1.0).stages(7) == [(4, 7)]
    with pytest.raises(ValueError, match="train longer"):
        settings(guidance_share=0.2, first=8).stages(3)
    with pytest.raises(ValueError, match="power of two"):
        settings(first=6, last=1)


def test_at_a_stages_start_the_teacher_becomes_the_student(smoke: Path):
    spec = smoke_rival("progressive", steps=6)
    method = make_method(spec, 0, "cpu", None)
    data = open_training_set(spec.data.train)
    lengths = [length for _, length in settings().stages(6)]
    starts = {sum(lengths[:k]) for k in range(1, len(lengths))}
    seen = set()
    for step in range(6):
        batch = draw_batch(spec, data, 32, method.network.latent_shape, 0, step, 0)
        student = {k: v.clone() for k, v in method.student.state_dict().items()}
        before = {k: v.clone() for k, v in method.modules["teacher"].state_dict().items()}
        method.update(batch, step)
        after = method.modules["teacher"].state_dict()
        if step in starts:
            assert all(torch.equal(after[k], student[k]) for k in after)
            seen.add(step)
        else:
            assert all(torch.equal(after[k], before[k]) for k in after)
    assert seen == starts
