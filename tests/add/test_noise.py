"""The forward process: coefficients, conversions, zero terminal SNR, the teacher's timesteps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from add.noise import (
    NoiseSchedule,
    coefficients,
    ddim_step,
    ddim_timesteps,
    diffuse,
    epsilon_from,
    student_input,
    x0_from,
)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def schedule(prediction="epsilon", **config):
    return NoiseSchedule.from_scheduler({**SD, "prediction_type": prediction, **config})


def output_from(schedule, x0, noise, t):
    """Output (B, ...) of a perfect network of this prediction type at x_t = alpha x_0 + sigma noise."""
    if schedule.prediction == "epsilon":
        return noise
    if schedule.prediction == "v_prediction":
        alpha, sigma = coefficients(schedule, t, x0.ndim)
        return alpha * noise - sigma * x0
    return x0


@pytest.mark.parametrize(
    ("t", "alpha", "sigma"),
    [(999, 0.0683, 0.9977), (749, 0.238, 0.9713), (499, 0.5269, 0.8499), (249, 0.8218, 0.5697)],
)
def test_coefficients_of_stable_diffusion_at_the_student_timesteps(t, alpha, sigma):
    """Breaks when alpha is confused with alpha^2 (alphas_cumprod), or the wrong beta schedule is built."""
    s = schedule()
    assert float(s.alphas[t]) == pytest.approx(alpha, abs=6e-5)
    assert float(s.sigmas[t]) == pytest.approx(sigma, abs=6e-5)


@pytest.mark.parametrize(
    "config",
    [
        SD,
        {**SD, "beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200},
        {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"trained_betas": [0.01, 0.02, 0.3], "num_train_timesteps": 3},
        {},
    ],
    ids=["scaled_linear", "linear", "cosine", "zero_snr", "trained", "defaults"],
)
def test_coefficients_are_those_of_diffusers(config):
    """Breaks when a config means something else to us than to the pipeline that samples the student."""
    from diffusers import DDIMScheduler, DDPMScheduler

    ours = NoiseSchedule.from_scheduler(config)
    for family in (DDIMScheduler, DDPMScheduler):
        theirs = family(**config)
        torch.testing.assert_close(ours.alphas, theirs.alphas_cumprod.sqrt(), rtol=2e-4, atol=2e-5)
        x0, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
        t = torch.tensor([1, 2, len(ours) - 1])
        torch.testing.assert_close(
            diffuse(ours, x0, noise, t), theirs.add_noise(x0, noise, t), rtol=1e-3, atol=2e-4
        )


def test_config_of_a_real_scheduler_object_is_accepted():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SD, prediction_type="v_prediction")
    assert NoiseSchedule.from_scheduler(scheduler.config).prediction == "v_prediction"


def test_rescaled_betas_with_epsilon_prediction_are_refused():
    """Breaks when x_0 = (x - sigma eps) / alpha silently becomes infinite at the last timestep."""
    with pytest.raises(ValueError, match=r"alpha = 0 at timestep 999.*divide by zero"):
        schedule("epsilon", rescale_betas_zero_snr=True)
    assert float(schedule("v_prediction", rescale_betas_zero_snr=True).alphas[-1]) == 0


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="beta_schedule 'sigmoid'"):
        schedule(beta_schedule="sigmoid")
    with pytest.raises(ValueError, match="prediction 'flow'"):
        schedule("flow")
    with pytest.raises(ValueError, match="not variance preserving"):
        NoiseSchedule(torch.ones(3), torch.ones(3), "epsilon")
    with pytest.raises(ValueError, match="must both have shape"):
        NoiseSchedule(torch.ones(3), torch.zeros(4), "epsilon")


@settings(max_examples=60, deadline=None)
@given(
    prediction=st.sampled_from(["epsilon", "v_prediction", "sample"]),
    t=st.lists(st.integers(1, 999), min_size=1, max_size=4),
    shape=st.sampled_from([(), (3,), (4, 2, 3)]),
    seed=st.integers(0, 2**16),
)
def test_round_trip_of_x0_epsilon_and_output(prediction, t, shape, seed):
    """Breaks when a sign or a coefficient of a conversion is wrong, or broadcasting mixes samples."""
    s = schedule(prediction)
    g = torch.Generator().manual_seed(seed)
    x0 = torch.randn(len(t), *shape, generator=g, dtype=torch.float64)
    noise = torch.randn(len(t), *shape, generator=g, dtype=torch.float64)
    steps = torch.tensor(t)
    x_t = diffuse(s, x0, noise, steps)
    output = output_from(s, x0, noise, steps)
    # float32 coefficients: alpha^2 + sigma^2 = 1 only to 1e-7, and epsilon divides by sigma >= 0.03
    torch.testing.assert_close(x0_from(s, output, x_t, steps), x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(epsilon_from(s, output, x_t, steps), noise, rtol=1e-5, atol=1e-5)


def test_last_timestep_feeds_pure_noise_and_keeps_its_coefficients():
    """Breaks when the image leaks into the student's input at T-1, or decoding divides by alpha = 0 there."""
    s = schedule()
    x0, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    t = torch.tensor([999, 998, 249])
    x_s = student_input(s, x0, noise, t)
    assert torch.equal(x_s[0], noise[0])
    assert torch.equal(x_s[1:], diffuse(s, x0, noise, t)[1:])
    eps = torch.randn_like(noise)
    decoded = x0_from(s, eps, x_s, t)
    assert torch.isfinite(decoded).all()
    torch.testing.assert_close(decoded[0], (noise[0] - 0.9977 * eps[0]) / 0.06826, rtol=1e-2, atol=1e-2)


def test_half_precision_is_computed_in_float32():
    s = schedule()
    x = torch.randn(2, 3, dtype=torch.bfloat16)
    assert diffuse(s, x, x, torch.tensor([1, 2])).dtype == torch.float32


@settings(max_examples=100, deadline=None)
@given(t=st.lists(st.integers(1, 999), min_size=1, max_size=5), steps=st.sampled_from([1, 2, 3, 4, 8]))
def test_teacher_timesteps_start_at_t_fall_evenly_and_never_reach_zero(t, steps):
    """Breaks when a chain visits t = 0, where there is nothing to denoise (a mistake of public codes)."""
    chain = ddim_timesteps(torch.tensor(t), steps)
    assert chain.shape == (steps, len(t))
    assert chain[0].tolist() == t
    assert int(chain.min()) >= 1
    assert bool((chain[1:] <= chain[:-1]).all())
    for column, start in zip(chain.T.tolist(), t, strict=True):
        assert all(abs(c - start * (steps - i) / steps) < 1 for i, c in enumerate(column))


def test_teacher_timesteps_refuse_zero():
    with pytest.raises(ValueError, match="t = 0"):
        ddim_timesteps(torch.tensor([5, 0]), 2)
    with pytest.raises(ValueError, match="at least one step"):
        ddim_timesteps(torch.tensor([5]), 0)
    assert ddim_timesteps(torch.tensor([980]), 4).flatten().tolist() == [980, 735, 490, 245]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_deterministic_chain_is_that_of_diffusers(prediction):
    """Breaks when the DDIM step is stochastic, uses a wrong coefficient, or mixes up where it goes next."""
    from diffusers import DDIMScheduler

    s = schedule(prediction)
    theirs = DDIMScheduler(
        **SD, prediction_type=prediction, clip_sample=False, timestep_spacing="leading", set_alpha_to_one=True
    )
    theirs.set_timesteps(4)  # 750, 500, 250, 0; its last step is replaced by our x_0
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) / 3

    def model(x, t):
        return torch.einsum("ij,bjhw->bihw", weight, x).tanh() + t / 1000

    x = expected = torch.randn(2, 4, 3, 3)
    for now, then in ((750, 500), (500, 250)):
        t = torch.full((2,), now)
        output = model(x, now)
        x = ddim_step(s, x0_from(s, output, x, t), epsilon_from(s, output, x, t), torch.full((2,), then))
        expected = theirs.step(model(expected, now), now, expected).prev_sample
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)
