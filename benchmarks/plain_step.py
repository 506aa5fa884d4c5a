"""The training step written plainly, with diffusers' modules and autocast only: `add.step` is compared with it.

It is also a reference implementation: on the same batch it has the losses of `add.step.losses`
(tests/benchmarks/test_gpu_step.py). It covers only the baseline: exponential distillation in pixel space, one guided
or unguided teacher step, text and image conditioning, no augmentation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator
from add.models.frozen import FrozenNetworks


def plain_losses(
    run: Run, networks: FrozenNetworks, unet: Any, heads: Discriminator, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The student's and the heads' loss. It draws no crops: pass a run with crop_probability 0."""
    net, teacher = networks.student, networks.teacher
    assert teacher is not None
    assert networks.features is not None
    alphas, sigmas = net.schedule.alphas[:, None, None, None], net.schedule.sigmas[:, None, None, None]

    with torch.no_grad():
        latents = net.vae.encode(batch.real).latent_dist.mean * net.vae.config.scaling_factor
        text = net.embed(batch.prompts)
    x_s = torch.where(
        (batch.s == 999)[:, None, None, None],
        batch.noise,
        alphas[batch.s] * latents + sigmas[batch.s] * batch.noise,
    )
    output = unet(x_s, batch.s, text.embeddings, added_cond_kwargs=text.added).sample
    x_0 = _x0(net.schedule.prediction, output.float(), x_s, alphas[batch.s], sigmas[batch.s])
    images = net.vae.decode(x_0 / net.vae.config.scaling_factor).sample

    with torch.no_grad():
        alpha, sigma = alphas[batch.t], sigmas[batch.t]
        x_t = alpha * x_0.detach() + sigma * batch.noise_t
        words = teacher.embed(batch.prompts)
        output = teacher.unet(x_t, batch.t, words.embeddings, added_cond_kwargs=words.added).sample.float()
        if (scale := run.training.teacher_guidance) != 1:
            null = teacher.null().expand(len(x_t))
            unguided = teacher.unet(
                x_t, batch.t, null.embeddings, added_cond_kwargs=null.added
            ).sample.float()
            output = unguided + scale * (output - unguided)
        target = _x0(teacher.schedule.prediction, output, x_t, alpha, sigma)
        target = teacher.vae.decode(target / teacher.vae.config.scaling_factor).sample
        assert networks.c_text is not None
        assert networks.c_img is not None
        given = {"text": networks.c_text(batch.prompts), "image": networks.c_img(batch.real)}
    squares = (images.float() - target.float()).square().flatten(1).sum(1) / x_0[0, 0].numel()
    loss = run.variant.loss.distillation_weight * (alpha.flatten() * squares).mean()

    fake = networks.features(images)
    heads.requires_grad_(False)
    for logits in heads(fake, given):
        loss = loss - run.variant.loss.adversarial * logits.mean()
    heads.requires_grad_(True)
    with torch.no_grad():
        real = networks.features(batch.real)
    real = [features.requires_grad_(True) for features in real]
    head_loss = torch.zeros((), device=images.device)
    real_logits, fake_logits = heads(real, given), heads([f.detach() for f in fake], given)
    for on_real, on_fake, features in zip(real_logits, fake_logits, real, strict=True):
        (slope,) = torch.autograd.grad(on_real.sum(), features, create_graph=True)
        head_loss = head_loss + F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
        head_loss = head_loss + run.variant.discriminator.r1_gamma * slope.square().flatten(1).sum(1).mean()
    return loss, head_loss


def _x0(prediction: str, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    if prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    return alpha * x_t - sigma * output if prediction == "v_prediction" else output
