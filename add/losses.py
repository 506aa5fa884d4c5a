"""Adversarial and distillation losses of ADD (paper, section 3.2 and 3.3).

Reductions, without which the weights lambda and gamma have no meaning:
  hinge         sum over heads; mean over batch and over a head's tokens
  R1            sum over heads and over an input's elements; mean over batch
  distillation  mean over batch; of one sample, `loss.reduction`: sum over channels and over the pixels of a latent
                position and mean over positions (`positions`), mean over all elements, or their sum
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from add.config.run import Reduction
from add.config.training import NfsdSpec
from add.noise import NoiseSchedule, coefficients, ddim_step, ddim_timesteps, epsilon_from, x0_from

DistillationForm = Literal["exponential", "sds", "nfsd"]
Conditioning = Literal["text", "null", "negative"]
Predict = Callable[[Tensor, Tensor, Conditioning], Tensor]


def hinge_generator(logits: Sequence[Tensor]) -> Tensor:
    """Student's adversarial loss -sum_k mean(D_k(F_k(xhat))) (eq. 2). logits: one (B, L_k) per head. Scalar."""
    return -torch.stack([head.mean() for head in logits]).sum()


def hinge_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Heads' loss sum_k mean(max(0, 1 - real_k)) + mean(max(0, 1 + fake_k)), without R1 (eq. 3). Scalar.

    real, fake: one (B, L_k) per head. Raises ValueError when the numbers of heads differ.
    """
    terms = [(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).sum()


def logit_gaps(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """mean(real_k) - mean(fake_k) for each head (K,), detached: positive where a head separates them."""
    return torch.stack([(r.mean() - f.mean()).detach() for r, f in zip(real, fake, strict=True)])


def share_ranked(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Share of samples whose real image has the larger logit than the generated one of the same c. Scalar.

    A sample's logit is the mean over a head's positions, and over heads. 0.5 is chance. Unlike a gap, it has one scale
    for all heads.
    """
    difference = torch.stack(
        [(r - f).detach().float().mean(1) for r, f in zip(real, fake, strict=True)]
    ).mean(0)
    return (difference > 0).float().mean() + 0.5 * (difference == 0).float().mean()


def r1_penalty(logits: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """R1 with respect to the heads' inputs: sum_k mean_b ||d sum(D_k) / d F_k||^2 (eq. 3). Scalar.

    logits: one (B, L_k) per head. inputs: the features (B, ...) given to the heads, each requiring a gradient. The
    penalty is on features, not on pixels or parameters, so the frozen network is not differentiated. A head's logits
    are summed over its tokens, the squares over the elements of a sample's features. (Local batch norm couples the
    samples of a virtual batch, so the gradient of sample b is that of all their logits.) Each head is differentiated
    with respect to its own input only: features of one network that depend on each other do not affect each other's
    penalty.

    Raises ValueError when an input does not require a gradient.
    """
    penalties = []
    for k, (head, features) in enumerate(zip(logits, inputs, strict=True)):
        if not features.requires_grad:
            raise ValueError(
                f"R1: the input of head {k} does not require a gradient; call requires_grad_() on it"
            )
        (gradient,) = torch.autograd.grad(head.sum(), features, create_graph=True)
        penalties.append(gradient.square().sum() / len(gradient))
    return torch.stack(penalties).sum()


def distillation_weight(schedule: NoiseSchedule, t: Tensor, form: DistillationForm) -> Tensor:
    """c(t), float32 (B,), of the distillation loss (section 3.3) at t (B,).

    exponential: alpha_t. sds: alpha_t w(t) / (2 sigma_t) with w(t) = sigma_t^2, that is alpha_t sigma_t / 2.
    nfsd: as sds, since it changes the target and not the weight. Raises ValueError for another form.
    """
    alpha, sigma = coefficients(schedule, t, 1)
    if form == "exponential":
        return alpha
    if form in ("sds", "nfsd"):
        return alpha * sigma / 2
    raise ValueError(f"distillation form {form!r} is not one of exponential, sds, nfsd")


def weighted_timestep(t: Tensor, steps: int, form: DistillationForm) -> Tensor:
    """The timestep (B,) at which c is taken, of a teacher's chain of `steps` from t (B,) on: t itself.

    NFSD's direction is that of the chain's last timestep, and its weight is of the same, or w(t) would not be its
    factor.
    """
    return ddim_timesteps(t, steps)[-1] if form == "nfsd" else t


def weight_factor(
    schedule: NoiseSchedule, drawn: tuple[int, int], form: DistillationForm, steps: int = 1
) -> float:
    """What c of a form is multiplied by to have the exponential weight's mean over t in `drawn`, both ends in it.

    steps: of the teacher's chain.
    """
    t = torch.arange(drawn[0], drawn[1] + 1)
    own = distillation_weight(schedule, weighted_timestep(t, steps, form), form)
    exponential = distillation_weight(schedule, t, "exponential")
    return float(exponential.double().mean() / own.double().mean())


def distillation_loss(
    x: Tensor, target: Tensor, weights: Tensor, reduction: Reduction, positions: int
) -> Tensor:
    """mean_b c_b ||x_b - sg(target_b)||^2 / n, the square summed over channels and pixels. Scalar.

    x, target: (B, C, ...), latents or images; weights: (B,). reduction: n is 1 (`sum`), the number of elements of x_b
    (`mean`), or `positions`, those of the latents, h * w, in both spaces. The paper does not publish it. Per
    position, a distance in latent space has the same weight for every VAE factor; one between pixels grows with the
    factor's square, four times from the miniature's 4 to the paper's 8. With it lambda = 2.5 matters beside the
    adversarial loss; averaged over pixels, it does not.

    No gradient reaches the target. In latent space with the SDS weight, d loss / d x = w(t) (eps_psi - eps')
    / (B * n), the SDS gradient up to that constant. Raises ValueError when the shapes differ (broadcasting would hide
    it).
    """
    if x.shape != target.shape or weights.shape != x.shape[:1]:
        raise ValueError(
            f"distillation: x {tuple(x.shape)}, target {tuple(target.shape)} and weights"
            f" {tuple(weights.shape)} do not belong together; expected (B, C, ...), the same, and (B,)"
        )
    difference = x - target.detach()
    # Half precision would lose most of the sum.
    squares = difference.to(torch.promote_types(difference.dtype, torch.float32)).square()
    elements = {"sum": 1, "mean": x[0].numel(), "positions": positions}[reduction]
    return (weights * squares.flatten(1).sum(1) / elements).mean()


def nfsd_direction(
    predict: Predict, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, settings: NfsdSpec
) -> Tensor:
    """delta_D + s delta_C (B, ...) of NFSD at x_t; it replaces SDS's eps_psi - eps'.

    delta_C = eps(text) - eps(null). delta_D = eps(null) for samples with t below the threshold, otherwise
    eps(null) - eps(negative); without a negative prompt that is zero, and its pass is skipped. No noise is subtracted,
    hence the name (arXiv 2310.17590). How ADD set these values is not published.
    """
    null = epsilon_from(schedule, predict(x_t, t, "null"), x_t, t)
    text = epsilon_from(schedule, predict(x_t, t, "text"), x_t, t)
    early = (t < settings.threshold).view((-1,) + (1,) * (x_t.ndim - 1))
    if not settings.negative_prompt:
        domain = null.where(early, null.new_zeros(()))
    elif bool(early.all()):
        domain = null
    else:
        negative = epsilon_from(schedule, predict(x_t, t, "negative"), x_t, t)
        domain = null.where(early, null - negative)
    return domain + settings.guidance * (text - null)


def guided_estimates(
    predict: Predict, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, guidance: float
) -> tuple[Tensor, Tensor]:
    """Teacher's x_0 and epsilon (B, ...) at x_t with eps = eps_null + w (eps_text - eps_null).

    With w = 1 only the text pass is made.
    """
    output = predict(x_t, t, "text")
    if guidance != 1.0:
        # At fixed x_t every prediction type is affine in epsilon: guiding the output guides epsilon.
        null = predict(x_t, t, "null")
        output = null + guidance * (output - null)
    return x0_from(schedule, output, x_t, t), epsilon_from(schedule, output, x_t, t)


def teacher_target(
    predict: Predict,
    schedule: NoiseSchedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    *,
    steps: int = 1,
    form: DistillationForm = "exponential",
    guidance: float = 1.0,
    nfsd: NfsdSpec | None = None,
) -> Tensor:
    """Teacher's target (B, ...) for the student's x_0, in the teacher's latent space (section 3.3).

    predict(x_t, t, conditioning) is the frozen teacher: its raw output for x_t (B, ...), t long (B,) and the
    conditioning "text", "null" or "negative". Its input is always the *diffused* student output: x0 is detached and
    diffused to t with `noise` before the first call. x0, noise: (B, ...); t: long (B,), 1 ..
    T-1.

    A deterministic DDIM chain runs over `ddim_timesteps(t, steps)`; its last x_0 is the target (exponential,
    sds). NFSD changes the target: base - (sigma_t / alpha_t)(delta_D + s delta_C), applied at the chain's last
    timestep, where base is the clean latent that was diffused there: x0 itself for one step, else the chain's
    previous estimate (guided by `guidance`).

    Raises ValueError for a t below 1, steps below 1, form nfsd without settings, and form nfsd at a timestep
    whose alpha is 0.
    """
    if form == "nfsd" and nfsd is None:
        raise ValueError("form 'nfsd' needs its settings: pass nfsd=NfsdSpec(...)")
    with torch.no_grad():
        base, eps = x0.detach(), noise
        timesteps = ddim_timesteps(t, steps)
        for now in timesteps[:-1]:
            x_t = ddim_step(schedule, base, eps, now)
            base, eps = guided_estimates(predict, schedule, x_t, now, guidance)
        # For one step this is the forward process itself: the student's output, diffused with `noise`.
        x_t = ddim_step(schedule, base, eps, timesteps[-1])
        if form == "nfsd" and nfsd is not None:
            return nfsd_target(predict, schedule, base, x_t, timesteps[-1], nfsd)
        return guided_estimates(predict, schedule, x_t, timesteps[-1], guidance)[0]


def nfsd_target(
    predict: Predict, schedule: NoiseSchedule, base: Tensor, x_t: Tensor, t: Tensor, settings: NfsdSpec
) -> Tensor:
    """base - (sigma_t / alpha_t)(delta_D + s delta_C); with the SDS weight the gradient is w(t) (delta_D + s delta_C).

    base (B, ...): the clean latent that was diffused to x_t. Raises ValueError where alpha_t = 0.
    """
    alpha, sigma = coefficients(schedule, t, x_t.ndim)
    if not bool((alpha > 0).all()):
        raise ValueError(
            "NFSD's target divides by alpha, which is 0 at timestep"
            f" {int(t[(alpha == 0).flatten()][0])} (zero terminal SNR); lower the upper end of"
            " training.distillation_timesteps"
        )
    return base - sigma / alpha * nfsd_direction(predict, schedule, x_t, t, settings)
