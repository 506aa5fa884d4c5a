"""Hinge, R1, and the three forms of distillation."""

import pytest
import torch
from torch import nn

from add.config.training import NfsdSpec
from add.losses import (
    distillation_loss,
    distillation_weight,
    hinge_discriminator,
    hinge_generator,
    logit_gaps,
    r1_penalty,
    teacher_target,
    weight_factor,
    weighted_timestep,
)
from add.noise import NoiseSchedule, ddim_timesteps, diffuse, epsilon_from, x0_from

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
B, C, S = 3, 4, 5


def nfsd(guidance: float = 7.5, threshold: int = 200, negative: bool = True) -> NfsdSpec:
    return NfsdSpec(guidance=guidance, threshold=threshold, negative_prompt="low quality" if negative else "")


def schedule(prediction="epsilon", **config):
    return NoiseSchedule.from_scheduler({**SD, "prediction_type": prediction, **config})


class Teacher(nn.Module):
    """A nonlinear toy network that records every call; conditioning changes its output."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, C, generator=torch.Generator().manual_seed(1)) / 2)
        self.calls = []

    def forward(self, x_t, t, conditioning):
        self.calls.append((x_t, t, conditioning))
        shift = {"text": 0.5, "null": 0.1, "negative": -0.3}[conditioning]
        scale = 1 + t.view(-1, 1, 1, 1) / 1000
        return (torch.einsum("ij,bjhw->bihw", self.weight, x_t) + shift).tanh() * scale


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(B, C, S, S, generator=g) for _ in range(2))
    return x0, noise, torch.tensor([900, 400, 60])


def test_hinge_losses_by_hand():
    """Breaks when heads are averaged, tokens are summed, or a sign flips."""
    real = [torch.tensor([[2.0, 0.5], [1.0, -1.0]]), torch.tensor([[0.0], [3.0]])]
    fake = [torch.tensor([[-2.0, 0.5], [0.0, -1.0]]), torch.tensor([[1.0], [-3.0]])]
    # head 0: real (0 + .5 + 0 + 2) / 4, fake (0 + 1.5 + 1 + 0) / 4
    # head 1: real (1 + 0) / 2, fake (2 + 0) / 2
    assert float(hinge_discriminator(real, fake)) == pytest.approx(2.5 / 4 + 2.5 / 4 + 0.5 + 1.0)
    assert float(hinge_generator(fake)) == pytest.approx(2.5 / 4 + 1.0)
    assert logit_gaps(real, fake).tolist() == pytest.approx([2.5 / 4 + 2.5 / 4, 2.5])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        hinge_discriminator(real, fake[:1])


def test_adversarial_gradient_reaches_the_student():
    """Breaks when the generator's loss is cut off from the images that the heads saw."""
    image = torch.randn(2, 3, requires_grad=True)
    hinge_generator([image * 2, image[:, :1]]).backward()
    assert image.grad is not None
    assert bool((image.grad[:, 0] < 0).all())


def toy_heads():
    torch.manual_seed(0)
    frozen = nn.Conv1d(3, 4, 3).double()
    heads = nn.ModuleList(nn.Sequential(nn.Conv1d(4, 6, 1), nn.Tanh(), nn.Conv1d(6, 1, 1)) for _ in range(2))
    return frozen, heads.double(), torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)


def test_r1_is_the_squared_gradient_at_the_heads_inputs():
    """Breaks when R1 is taken on pixels or head parameters (seen in public codes), or reduced otherwise."""
    frozen, heads, image = toy_heads()
    features = frozen(image)
    inputs = [features, (features * 0.5).sin()]  # the second depends on the first, as layers of a network do
    logits = [h(x)[:, 0] for h, x in zip(heads, inputs, strict=True)]
    value = r1_penalty(logits, inputs)

    step, expected = 1e-6, 0.0
    for head, x in zip(heads, inputs, strict=True):
        flat = x.detach().flatten()
        for i in range(len(flat)):
            plus, minus = flat.clone(), flat.clone()
            plus[i] += step
            minus[i] -= step
            slope = (head(plus.view_as(x)).sum() - head(minus.view_as(x)).sum()).item() / (2 * step)
            expected += slope**2 / len(x)
    assert value.item() == pytest.approx(expected, rel=1e-6)

    total = sum(o.sum() for o in logits)
    pixels = torch.autograd.grad(total, image, retain_graph=True)[0].square().sum() / 2
    weights = sum(g.square().sum() for g in torch.autograd.grad(total, list(heads.parameters())))
    assert value.item() != pytest.approx(pixels.item(), rel=1e-2)
    assert value.item() != pytest.approx(weights.item(), rel=1e-2)


def test_r1_trains_the_heads_and_needs_inputs_with_gradient():
    """Breaks when the penalty has no second derivative (create_graph): then gamma would do nothing."""
    _, heads, _ = toy_heads()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="input of head 0"):
        r1_penalty([heads[0](x)[:, 0]], [x])
    x.requires_grad_()
    r1_penalty([heads[0](x)[:, 0]], [x]).backward()
    assert heads[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("t", "alpha", "sigma"),
    [(999, 0.0683, 0.9977), (749, 0.238, 0.9713), (499, 0.5269, 0.8499), (249, 0.8218, 0.5697)],
)
def test_distillation_weights_against_the_table(t, alpha, sigma):
    """Breaks when c(t) is not alpha (exponential) or alpha sigma^2 / (2 sigma) (SDS, NFSD)."""

    def weight(form):
        return float(distillation_weight(schedule(), torch.tensor([t]), form)[0])

    assert weight("exponential") == pytest.approx(alpha, abs=6e-5)
    assert weight("sds") == pytest.approx(alpha * sigma**2 / (2 * sigma), abs=6e-5)
    assert weight("nfsd") == weight("sds")
    with pytest.raises(ValueError, match="'l2'"):
        weight("l2")


def test_the_sds_weight_at_the_exponential_weights_mean():
    """Breaks when the row that takes lambda out of SDS against exponential has another mean weight than it says."""
    drawn = torch.arange(20, 980)
    factor = weight_factor(schedule(), (20, 979), "sds")
    assert factor == pytest.approx(0.5295 / 0.1661, rel=1e-3)
    means = [distillation_weight(schedule(), drawn, form).mean() for form in ("sds", "exponential")]
    torch.testing.assert_close(factor * means[0], means[1])
    assert weight_factor(schedule(), (20, 979), "exponential") == 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_nfsd_s_factor_is_over_the_timesteps_at_which_its_weight_is_taken(steps: int):
    """Breaks when a chain's weight is of its last timestep and its factor of its first."""
    drawn = torch.arange(20, 980)
    taken = weighted_timestep(drawn, steps, "nfsd")
    assert torch.equal(taken, ddim_timesteps(drawn, steps)[-1])
    weight = distillation_weight(schedule(), taken, "nfsd")
    mean = (weight_factor(schedule(), (20, 979), "nfsd", steps) * weight).mean()
    torch.testing.assert_close(mean, distillation_weight(schedule(), drawn, "exponential").mean())
    assert torch.equal(weighted_timestep(drawn, steps, "sds"), drawn)


def test_distillation_loss_is_a_sum_per_latent_position():
    """Breaks when the reduction changes: lambda = 2.5 is tied to it. And no gradient may reach the target."""
    x = torch.randn(B, C, S, S, requires_grad=True)
    target = torch.randn(B, C, S, S, requires_grad=True)
    weights = torch.tensor([0.5, 1.0, 2.0])
    positions = S * S // 4  # as of images that a VAE halves
    loss = distillation_loss(x, target, weights, "positions", positions)
    expected = sum(
        weights[b] * ((x[b, :, i, j] - target[b, :, i, j]) ** 2).sum() / positions
        for b in range(B)
        for i in range(S)
        for j in range(S)
    )
    torch.testing.assert_close(loss, expected / B)
    loss.backward()
    assert x.grad is not None
    assert target.grad is None
    squares = (weights.view(B, 1, 1, 1) * (x - target).square()).detach()
    for reduction, stated in (("mean", squares.mean()), ("sum", squares.sum() / B)):
        torch.testing.assert_close(distillation_loss(x, target, weights, reduction, positions), stated)
    with pytest.raises(ValueError, match="do not belong together"):
        distillation_loss(x, target[:, :1], weights, "positions", positions)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_sds_weight_gives_the_sds_gradient(batch, prediction):
    """Breaks when c(t), target or decoding is off: the gradient is w(t) (eps_psi - eps') / (B pixels)."""
    s, teacher = schedule(prediction), Teacher()
    x0, noise, t = batch
    x0.requires_grad_()
    target = teacher_target(teacher, s, x0, noise, t, form="sds")
    distillation_loss(x0, target, distillation_weight(s, t, "sds"), "positions", S * S).backward()
    x_t = diffuse(s, x0.detach(), noise, t)
    eps = epsilon_from(s, teacher(x_t, t, "text"), x_t, t)
    w = s.sigmas[t].square().view(-1, 1, 1, 1)
    torch.testing.assert_close(x0.grad, (w * (eps - noise) / (B * S * S)).detach(), rtol=1e-3, atol=1e-6)


def test_teacher_sees_the_diffused_student_output_only(batch):
    """Breaks when the teacher is given the student's output itself or a noised real image."""
    s, teacher = schedule(), Teacher()
    x0, noise, t = batch
    teacher_target(teacher, s, x0, noise, t, steps=1, guidance=3.0)
    assert [c for _, _, c in teacher.calls] == ["text", "null"]
    for seen, when, _ in teacher.calls:
        alpha, sigma = (c[t].view(-1, 1, 1, 1) for c in (s.alphas, s.sigmas))
        assert torch.equal(seen, alpha * x0 + sigma * noise)
        assert torch.equal(when, t)


def test_no_gradient_through_the_target(batch):
    """Breaks when the student is trained through the teacher, or the teacher's weights receive a gradient."""
    x0, noise, t = batch
    x0.requires_grad_()
    for form in ("exponential", "sds", "nfsd"):
        teacher = Teacher()
        target = teacher_target(teacher, schedule(), x0, noise, t, steps=2, form=form, nfsd=nfsd())
        assert not target.requires_grad
        assert not any(seen.requires_grad for seen, _, _ in teacher.calls)


def test_guidance_moves_away_from_the_null_prediction(batch):
    """Breaks when w = 1 is not the plain conditional model, or w scales the wrong difference."""
    s = schedule("v_prediction")
    x0, noise, t = batch
    plain, guided = (teacher_target(Teacher(), s, x0, noise, t, guidance=w) for w in (1.0, 3.0))
    teacher = Teacher()
    x_t = diffuse(s, x0, noise, t)
    text, null = (epsilon_from(s, teacher(x_t, t, c), x_t, t) for c in ("text", "null"))
    sigma, alpha = (c[t].view(-1, 1, 1, 1) for c in (s.sigmas, s.alphas))
    torch.testing.assert_close(plain, (x_t - sigma * text) / alpha, rtol=1e-3, atol=1e-4)
    eps = null + 3.0 * (text - null)
    torch.testing.assert_close(guided, (x_t - sigma * eps) / alpha, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_teacher_chain_is_that_of_diffusers(steps, prediction):
    """Breaks when the chain is stochastic, starts anew from the student's noise, or steps elsewhere."""
    from diffusers import DDIMScheduler

    s, teacher = schedule(prediction), Teacher()
    g = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(2, C, S, S, generator=g) for _ in range(2))
    target = teacher_target(teacher, s, x0, noise, torch.full((2,), 999), steps=steps)
    visited = [int(when[0]) for _, when, _ in teacher.calls]
    assert visited == [999, 749, 499, 249][:: 4 // steps]

    theirs = DDIMScheduler(**SD, prediction_type=prediction, clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == visited
    x = diffuse(s, x0, noise, torch.full((2,), 999))
    for now in visited:
        result = theirs.step(teacher(x, torch.full((2,), now), "text"), now, x)
        x = result.prev_sample
    torch.testing.assert_close(target, result.pred_original_sample, rtol=1e-3, atol=1e-3)


def nfsd_by_hand(s, x0, noise, t, settings):
    teacher = Teacher()
    out = []
    for b in range(len(t)):
        one = t[b : b + 1]
        x_t = diffuse(s, x0[b : b + 1], noise[b : b + 1], one)
        eps = {c: epsilon_from(s, teacher(x_t, one, c), x_t, one) for c in ("text", "null", "negative")}
        if int(one) < settings.threshold:
            domain = eps["null"]
        else:
            domain = eps["null"] - (eps["negative"] if bool(settings.negative_prompt) else eps["null"])
        direction = domain + settings.guidance * (eps["text"] - eps["null"])
        out.append(x0[b : b + 1] - s.sigmas[one] / s.alphas[one] * direction)
    return torch.cat(out)


@pytest.mark.parametrize("negative", [True, False])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_nfsd_is_a_target_and_not_a_weight(batch, prediction, negative):
    """Breaks when NFSD is only another c(t) on the SDS target, or the threshold is not taken a sample."""
    s = schedule(prediction)
    settings = nfsd(guidance=7.5, threshold=200, negative=negative)
    target = teacher_target(Teacher(), s, *batch, form="nfsd", nfsd=settings)
    torch.testing.assert_close(target, nfsd_by_hand(s, *batch, settings), rtol=1e-4, atol=1e-4)
    sds = teacher_target(Teacher(), s, *batch, form="sds")
    assert (target - sds).abs().amax((1, 2, 3)).min() > 0.1
    assert torch.equal(distillation_weight(s, batch[2], "nfsd"), distillation_weight(s, batch[2], "sds"))


def test_nfsd_gradient(batch):
    """Breaks when target and weight do not add up to w(t) (d_D + s d_C)."""
    s, settings = schedule(), nfsd(guidance=2.0)
    x0, noise, t = batch
    x0.requires_grad_()
    target = teacher_target(Teacher(), s, x0, noise, t, form="nfsd", nfsd=settings)
    distillation_loss(x0, target, distillation_weight(s, t, "nfsd"), "positions", S * S).backward()
    ratio = (s.alphas / s.sigmas)[t].view(-1, 1, 1, 1)
    direction = (x0.detach() - nfsd_by_hand(s, x0.detach(), noise, t, settings)) * ratio
    w = s.sigmas[t].square().view(-1, 1, 1, 1)
    torch.testing.assert_close(x0.grad, w * direction / (B * S * S), rtol=1e-3, atol=1e-6)


def test_nfsd_makes_no_needless_passes(batch):
    x0, noise, t = batch
    for settings, steps, expected in (
        (nfsd(), t, {"text", "null", "negative"}),
        (nfsd(), torch.tensor([199, 60, 20]), {"text", "null"}),
        (nfsd(negative=False), t, {"text", "null"}),
    ):
        teacher = Teacher()
        teacher_target(teacher, schedule(), x0, noise, steps, form="nfsd", nfsd=settings)
        assert sorted(c for _, _, c in teacher.calls) == sorted(expected)


def test_nfsd_on_several_steps_applies_to_the_last(batch):
    """Breaks when the chain before is skipped, or the noise-free step starts from the student's output."""
    s = schedule()
    x0, noise, t = batch
    settings = nfsd(guidance=2.0)
    teacher = Teacher()
    target = teacher_target(teacher, s, x0, noise, t, steps=2, form="nfsd", nfsd=settings)
    x_t = diffuse(s, x0, noise, t)
    eps = Teacher()(x_t, t, "text")
    base = x0_from(s, eps, x_t, t)
    torch.testing.assert_close(target, nfsd_by_hand(s, base, eps, t // 2, settings), rtol=1e-4, atol=1e-3)


def test_nfsd_refuses_alpha_zero_and_missing_settings(batch):
    """Breaks when a target of infinities is handed to training at zero terminal SNR."""
    x0, noise, _ = batch
    zero_snr = schedule("v_prediction", rescale_betas_zero_snr=True)
    t = torch.tensor([500, 999, 10])
    with pytest.raises(ValueError, match="0 at timestep 999"):
        teacher_target(Teacher(), zero_snr, x0, noise, t, form="nfsd", nfsd=nfsd())
    with pytest.raises(ValueError, match="needs its settings"):
        teacher_target(Teacher(), zero_snr, x0, noise, t, form="nfsd")
    assert torch.isfinite(teacher_target(Teacher(), zero_snr, x0, noise, t)).all()
