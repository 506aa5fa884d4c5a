"""Denoising Diffusion GAN: the posterior of a large step, the sampler that draws from it, and who sees x_t."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from add.batch import Batch, draw_batch
from add.data.training_set import open_training_set
from add.models.diffusion import unet_output
from add.noise import NoiseSchedule, coefficients
from baselines.denoising_diffusion_gan import DenoisingDiffusionGan, posterior, real_pair
from baselines.train import counted, make_method
from tests.baselines.test_progressive import SD21, gaussian, schedule
from tests.support.rivals import smoke_rival

CHAIN = (1000, 750, 500, 250, 0)
STEPS = list(itertools.pairwise(CHAIN))


def alpha_bar(timestep: int, zero_snr: bool) -> float:
    """The product of 1 - beta of Stable Diffusion's schedule by its formula, in float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    roots = (1 - betas).cumprod(0).sqrt()
    if zero_snr:
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return float(roots[timestep] ** 2)


@pytest.mark.parametrize("zero_snr", [True, False])
@pytest.mark.parametrize(("position", "to"), STEPS)
def test_the_posterior_is_the_conditional_of_the_joint_gaussian(position: int, to: int, zero_snr: bool):
    noise = schedule() if zero_snr else NoiseSchedule.from_scheduler(SD21)
    x0, x_t = torch.tensor([[0.7], [-1.3]]), torch.tensor([[0.2], [2.1]])
    whole = torch.full((2,), position)
    mean, deviation = posterior(noise, x0, x_t, whole, torch.full_like(whole, to))
    # (x_s, x_t) given x_0 has means a_s x_0, a_t x_0, variances 1 - a^2 and covariance a_t / a_s (1 - a_s^2).
    at = alpha_bar(position - 1, zero_snr)
    of_s = alpha_bar(to - 1, zero_snr) if to else 1.0
    covariance = (at / of_s) ** 0.5 * (1 - of_s)
    gain = covariance / (1 - at)
    expected = of_s**0.5 * x0.double() + gain * (x_t.double() - at**0.5 * x0.double())
    torch.testing.assert_close(mean.double(), expected, rtol=1e-4, atol=1e-4)
    variance = 1 - of_s - gain * covariance
    assert float(deviation[0]) ** 2 == pytest.approx(variance, rel=1e-3, abs=1e-6)


def test_a_step_of_known_numbers():
    # alpha_s^2 = 0.8, alpha_t^2 = 0.2: r = 1/2, beta = 3/4, sigma_s^2 = 0.2, sigma_t^2 = 0.8.
    alphas = torch.tensor([0.8, 0.2]).sqrt()
    noise = NoiseSchedule(alphas, torch.tensor([0.2, 0.8]).sqrt(), "sample")
    position, to = torch.tensor([2]), torch.tensor([1])
    mean, deviation = posterior(noise, torch.tensor([[1.0]]), torch.tensor([[1.0]]), position, to)
    assert float(mean) == pytest.approx((0.8**0.5 * 0.75 + 0.5 * 0.2) / 0.8)
    assert float(deviation) ** 2 == pytest.approx(0.75 * 0.2 / 0.8)


@pytest.mark.parametrize(("position", "to"), STEPS)
def test_a_real_pair_has_the_moments_of_the_process_and_the_posteriors_regression(position: int, to: int):
    noise, n = schedule(), 200_000
    draws = torch.Generator().manual_seed(0)
    first, more = torch.randn(2, n, 1, generator=draws)
    where = torch.full((n,), position), torch.full((n,), to)
    x_s, x_t = real_pair(noise, torch.full((n, 1), 0.5), first, more, *where)
    at, of_s = (alpha_bar(p - 1, True) if p else 1.0 for p in (position, to))
    for x, level in ((x_s, of_s), (x_t, at)):
        assert float(x.mean()) == pytest.approx(0.5 * level**0.5, abs=0.01)
        assert float(x.var()) == pytest.approx(1 - level, abs=0.01)
    # What is left of x_s after the posterior's mean is its noise, and independent of x_t.
    mean, deviation = posterior(noise, torch.full((n, 1), 0.5), x_t, *where)
    rest = x_s - mean
    assert float(rest.std()) == pytest.approx(float(deviation[0]), abs=0.01)
    assert abs(float((rest * (x_t - x_t.mean())).mean())) < 0.01


def test_the_saved_scheduler_draws_from_the_posterior(smoke: Path, tmp_path: Path):
    from diffusers import DDPMScheduler

    method = make_method(smoke_rival("denoising_diffusion_gan"), 0, "cpu", None)
    method.save(tmp_path)
    scheduler = DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    noise, given = method.network.schedule, gaussian(method.network.schedule, 0.3, 0.6)
    assert json.loads((tmp_path / "student.json").read_text())["timesteps"] == {"4": [999, 749, 499, 249]}
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    theirs = ours = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for (position, to), t in zip(STEPS, scheduler.timesteps, strict=True):
        whole = torch.full((8,), position)
        x0, eps = given(theirs, t.expand(8))
        alpha, sigma = coefficients(noise, t.expand(8), 2)
        theirs = scheduler.step(alpha * eps - sigma * x0, t, theirs, generator=generators[0]).prev_sample
        mean, deviation = posterior(noise, given(ours, whole - 1)[0], ours, whole, torch.full_like(whole, to))
        ours = mean + deviation * torch.randn(8, 3, generator=generators[1])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert float(deviation[0]) == 0


def made(**training: Any) -> tuple[DenoisingDiffusionGan, Batch]:
    spec = smoke_rival("denoising_diffusion_gan", **training)
    method = make_method(spec, 0, "cpu", None)
    assert isinstance(method, DenoisingDiffusionGan)
    data = open_training_set(spec.data.train)
    return method, draw_batch(spec, data, 32, method.network.latent_shape, 0, 0, 0)


def test_the_discriminator_depends_on_both_latents_on_the_timestep_and_on_the_caption(smoke: Path):
    method, batch = made()
    text = method.text(batch)
    pair = torch.cat([batch.noise, batch.noise_t], 1)

    def logits(pair: Tensor, t: int) -> Tensor:
        with torch.no_grad():
            return unet_output(method.judge, pair, torch.full_like(batch.s, t), text)

    first = logits(pair, 499)
    assert first.shape == (len(batch.s),)
    for channel in (0, pair.shape[1] // 2):
        changed = pair.clone()
        changed[0, channel] += 1
        second = logits(changed, 499)
        assert not torch.equal(second[0], first[0])
        torch.testing.assert_close(second[1:], first[1:])
    assert not torch.allclose(logits(pair, 249), first)
    text = method.network.embed(["a small red circle"] * len(batch.s))
    assert not torch.allclose(logits(pair, 499), first)


def test_each_timestep_goes_to_the_next_lower_one_and_the_lowest_to_the_clean_latents(smoke: Path):
    method, _ = made(student_timesteps=(499, 999), student_timestep_weights=(1.0, 1.0))
    assert (int(method.following[1000]), int(method.following[500])) == (500, 0)


def test_each_loss_updates_its_own_network_and_no_teacher_is_asked(smoke: Path):
    method, batch = made()
    names = ("student", "discriminator")
    before = {n: [p.detach().clone() for p in method.modules[n].parameters()] for n in names}
    calls = {kind: {"images": 0, "differentiated": 0} for kind in method.counted}
    with counted(method, calls):
        values = method.update(batch, 0)
    n = len(batch.s)
    assert calls["teacher"]["images"] == calls["decoder"]["images"] == 0
    assert calls["discriminator"] == {"images": 2 * n, "differentiated": 2 * n}
    for name in names:
        pairs = zip(before[name], method.modules[name].parameters(), strict=True)
        assert any(not torch.equal(old, new) for old, new in pairs)
        assert all(p.grad is None for p in method.modules[name].parameters())
    assert float(values["r1"]) > 0
