"""Rectified flow: a reflowed coupling has straight paths, and a plain pipeline takes the flow's Euler steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from add.noise import NoiseSchedule, coefficients, epsilon_from, x0_from
from baselines.ddim import grid, sample
from baselines.rectified_flow import (
    euler_positions,
    flow_times,
    reflow_loss,
    straightness,
    timestep_at,
    velocity_loss,
)
from baselines.train import make_method
from tests.support.rivals import smoke_rival

ZERO_SNR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def schedule() -> NoiseSchedule:
    return NoiseSchedule.from_scheduler(ZERO_SNR)


def two_points(noise: NoiseSchedule):
    """The exact estimates for data at -1 and +1: x_0 = tanh(alpha z / sigma^2)."""

    def given(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = coefficients(noise, t, z.ndim)
        x0 = torch.tanh(alpha * z / sigma**2)
        return x0, (z - alpha * x0) / sigma

    return given


def test_a_reflowed_toy_coupling_has_straight_paths():
    torch.manual_seed(0)
    noise = schedule()
    teacher = two_points(noise)
    starts = torch.randn(512, 1)
    images = sample(noise, teacher, starts, grid(1000, 100))[-1]
    network = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def student(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        output = network(torch.cat([z, flow_times(noise)[t][:, None] * 2 - 1], 1))
        return x0_from(noise, output, z, t), epsilon_from(noise, output, z, t)

    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(400):
        rows = torch.randint(0, 512, (128,))
        loss = reflow_loss(noise, student, starts[rows], images[rows], torch.rand(128))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tried = torch.randn(256, 1)
    with torch.no_grad():
        before, after = (straightness(noise, flow, tried, 50) for flow in (teacher, student))
        one = sample(noise, student, tried, euler_positions(noise, 1))[-1]
        mean = sample(noise, teacher, tried, euler_positions(noise, 1))[-1]
    assert after < before / 3, (before, after)
    ends = sample(noise, teacher, tried, grid(1000, 100))[-1]
    assert float((one - ends).abs().mean()) < 0.5 * float((mean - ends).abs().mean())


def test_straight_paths_have_straightness_zero():
    noise = schedule()

    def one_point(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = coefficients(noise, t, z.ndim)
        return torch.full_like(z, 0.5), (z - alpha * 0.5) / sigma

    assert straightness(noise, one_point, torch.randn(16, 2), 10) < 1e-8


def test_the_loss_is_the_squared_error_of_the_velocity():
    noise = schedule()
    start, image, guess = torch.randn(3, 5, 2)
    t = torch.tensor([3, 200, 500, 900, 999])
    alpha, sigma = coefficients(noise, t, 2)
    r = sigma / (alpha + sigma)
    x = r * start + (1 - r) * image
    velocity = (guess - x) / r
    expected = (image - start - velocity).square().mean()
    torch.testing.assert_close(velocity_loss(noise, guess, image, t), expected, rtol=1e-3, atol=1e-4)


def test_times_and_timesteps_are_inverse():
    noise = schedule()
    t = torch.tensor([0, 17, 500, 999])
    assert torch.equal(timestep_at(noise, flow_times(noise)[t]), t)
    assert euler_positions(noise, 1) == [1000, 0]
    assert euler_positions(noise, 4) == sorted(euler_positions(noise, 4), reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_saved_pipeline_takes_the_flows_euler_steps(smoke: Path, tmp_path: Path, steps: int):
    from diffusers import DiffusionPipeline

    own = {"teacher_pairs": 0.5, "reflow": 0.5, "own_pairs": 0.0, "distil": 0.0}
    method = make_method(smoke_rival("rectified_flow", own, steps=2), 0, "cpu", None)
    method.save(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    start = torch.randn(1, *method.network.latent_shape, generator=torch.Generator().manual_seed(0))
    found = pipeline(
        "a red circle",
        num_inference_steps=steps,
        guidance_scale=1.0,
        latents=start.clone(),
        output_type="latent",
    ).images
    # By hand, in the flow's own coordinates: x += (r' - r) dx/dr.
    network, text = method.network, method.network.embed(["a red circle"])
    alphas, sigmas = network.schedule.alphas.tolist(), network.schedule.sigmas.tolist()
    timesteps = [1000 * (steps - k) // steps - 1 for k in range(steps)]
    x = start
    for k, t in enumerate(timesteps):
        scale = alphas[t] + sigmas[t]
        r = sigmas[t] / scale
        to = timesteps[k + 1] if k + 1 < steps else None
        r_next = 0.0 if to is None else sigmas[to] / (alphas[to] + sigmas[to])
        with torch.no_grad():
            v = network.predict(scale * x, torch.tensor([t]), text)
        x0 = alphas[t] * scale * x - sigmas[t] * v
        noise = alphas[t] * v + sigmas[t] * scale * x
        x = x + (r_next - r) * (noise - x0)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)
