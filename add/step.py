"""One training step of ADD: the losses of the student and of the discriminator's heads (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from add.augment import augment, random_crop
from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator, given_conditions
from add.losses import (
    Conditioning,
    distillation_loss,
    distillation_weight,
    hinge_discriminator,
    hinge_generator,
    logit_gaps,
    r1_penalty,
    share_ranked,
    teacher_target,
    weight_factor,
    weighted_timestep,
)
from add.models.diffusion import DiffusionNetwork, student_x0
from add.models.features import FeatureNetwork
from add.models.frozen import FrozenNetworks


def losses(
    run: Run, networks: FrozenNetworks, unet: Any, heads: Discriminator | None, batch: Batch
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """The student's loss, the heads' loss (None without them) and detached values to log, all scalars.

    The values get `gradient_distill` and `gradient_adversarial` once the student's loss was differentiated: the norm of
    what either loss adds to the gradient of a sample's output, mean over samples, in the space that distillation
    compares in. Their ratio is what lambda means, whatever the reduction.

    The student's output is decoded once, and the heads see the generated images once, for both losses. Both losses
    use the parameters from the start of the step. Neither puts a gradient into the other's parameters.
    """
    variant = run.variant
    latents, images = student_output(run, networks, unet, batch)
    student_loss = torch.zeros((), device=images.device)
    head_loss: Tensor | None = None
    values: dict[str, Tensor] = {}
    output = images if variant.loss.space == "pixel" else latents
    distilled = watch_gradients(output, values, run.training.accumulate)
    if variant.loss.distillation != "none":
        target, weight = target_of(run, networks, latents, images, batch)
        distillation = distillation_loss(
            distilled, target, weight, variant.loss.reduction, positions=latents[0, 0].numel()
        )
        student_loss = student_loss + variant.loss.distillation_weight * distillation
        values["loss_distill"] = distillation.detach()
    if heads is not None and networks.features is not None:
        conditions = given_conditions(
            networks.conditions(batch.real, batch.prompts),
            variant.discriminator.given,
            run.training.virtual_batch,
        )
        fake = discriminator_features(run, images, networks.features, batch)
        with torch.no_grad():
            real = discriminator_features(run, batch.real, networks.features, batch)
        adversarial, head_loss, head_values = adversarial_losses(run, heads, real, fake, conditions)
        student_loss = student_loss + variant.loss.adversarial * adversarial
        values |= {"loss_g_adv": adversarial.detach(), **head_values}
    values["loss_g"] = student_loss.detach()
    return student_loss, head_loss, values


def watch_gradients(output: Tensor, values: dict[str, Tensor], parts_of_a_batch: int = 1) -> Tensor:
    """A view of the student's output for the distillation loss; the rest of its gradient is the adversarial loss's.

    When `output` gets its gradient, the norms of both parts are put into `values`. parts_of_a_batch: by which each
    part's loss is divided before its gradient is taken (`training.accumulate`).
    """
    view = output.view_as(output)
    parts: list[Tensor] = []

    def of_a_sample(gradient: Tensor) -> Tensor:
        # The loss is a mean over samples, here of the process's share.
        return parts_of_a_batch * len(gradient) * gradient.flatten(1).norm(dim=1).mean()

    def of_view(gradient: Tensor) -> None:
        parts.append(gradient.detach())

    def of_output(gradient: Tensor) -> None:
        distilled = parts.pop() if parts else torch.zeros_like(gradient)
        values["gradient_distill"] = of_a_sample(distilled)
        values["gradient_adversarial"] = of_a_sample(gradient.detach() - distilled)

    if view.requires_grad:
        view.register_hook(of_view)
        output.register_hook(of_output)
    return view


def student_output(run: Run, networks: FrozenNetworks, unet: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The student's x_0 prediction as latents (B, C, h, w) and as images (B, 3, H, W); both carry its gradient."""
    student = networks.student
    with torch.no_grad():
        x0, text = student.encode(batch.real), student.embed(batch.prompts)
    latents = student_x0(student, unet, x0, batch.noise, batch.s, text)
    return latents, student.decode(latents)


def target_of(
    run: Run, networks: FrozenNetworks, latents: Tensor, images: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The teacher's target for a student's output, and the weight c(t) (B,).

    The target is in the space that the loss compares in: the teacher's latents, or these decoded to pixels. Where
    student and teacher have different latent spaces, the teacher's VAE encodes the student's *image* first.
    """
    teacher, variant, settings = networks.teacher, run.variant, run.training
    form = variant.loss.distillation
    if teacher is None or form == "none":
        raise ValueError("this variant has no distillation loss, so it has no target")
    with torch.no_grad():
        # Not by the teacher's own `encode`, which may keep what it encoded: no generated image comes twice.
        x0 = (
            latents.detach() if networks.shared_latents else DiffusionNetwork.encode(teacher, images.detach())
        )
        texts = {"text": teacher.embed(batch.prompts)}

        def predict(x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
            if conditioning not in texts:
                null = conditioning == "null"
                one = teacher.null() if null else teacher.embed([settings.nfsd.negative_prompt])
                texts[conditioning] = one.expand(len(x_t))
            return teacher.predict(x_t, t, texts[conditioning])

        target = teacher_target(
            predict,
            teacher.schedule,
            x0,
            batch.noise_t if x0.shape == batch.noise_t.shape else _noise_like(x0, batch),
            batch.t,
            steps=variant.teacher_steps,
            form=form,
            guidance=settings.teacher_guidance,
            nfsd=settings.nfsd,
        )
        if variant.loss.space == "pixel":
            target = teacher.decode(target)
    steps = variant.teacher_steps
    weight = distillation_weight(teacher.schedule, weighted_timestep(batch.t, steps, form), form)
    if variant.loss.mean_weight == "exponential":
        weight = weight * weight_factor(teacher.schedule, settings.distillation_timesteps, form, steps)
    return target, weight


def discriminator_features(run: Run, images: Tensor, features: FeatureNetwork, batch: Batch) -> list[Tensor]:
    """Features of images (B, 3, H, W) that the heads are given: of the augmented, cropped and resized images."""
    settings = run.training
    images = augment(images, settings.augmentation, batch.draws, batch.rank)
    return features(random_crop(images, features.image_size, settings.crop_probability, batch.draws))


def adversarial_losses(
    run: Run, heads: Discriminator, real: list[Tensor], fake: list[Tensor], conditions: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The student's adversarial loss, the heads' loss, and values to log, of one pass of the heads over `fake`.

    fake: features of the student's images, with its graph. real: detached features. The student's loss has the hinge's
    value and the hinge's gradient with respect to `fake`. That gradient is taken here, with respect to the features
    alone: the heads' parameters collect nothing, and their own loss can use the same logits.
    """
    inputs = [f.detach().requires_grad_(True) for f in fake]
    logits = heads(inputs, conditions)
    adversarial = hinge_generator(logits)
    gradients = torch.autograd.grad(adversarial, inputs, retain_graph=True)
    # Linear in the features, with the gradient `gradients`; its own value is subtracted again.
    linear = torch.stack([(f * g).sum() for f, g in zip(fake, gradients, strict=True)]).sum()
    head_loss, values = discriminator_loss(run, heads, real, logits, conditions)
    return adversarial.detach() + (linear - linear.detach()), head_loss, values


def discriminator_loss(
    run: Run,
    heads: Discriminator,
    real: list[Tensor],
    fake_logits: list[Tensor],
    conditions: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hinge loss and R1 of the heads, and values to log, among them each head's logit gap.

    real: detached features. fake_logits: logits of the generated images, computed from detached features.
    """
    inputs = [f.detach().requires_grad_(True) for f in real]
    real_logits = heads(inputs, conditions)
    hinge = hinge_discriminator(real_logits, fake_logits)
    r1 = r1_penalty(real_logits, inputs)
    gaps = logit_gaps(real_logits, fake_logits)
    values = {"loss_d": hinge.detach(), "r1": r1.detach(), "gap": gaps.mean()}
    values["ranked"] = share_ranked(real_logits, fake_logits)
    values |= {f"gap_{k}": gap for k, gap in enumerate(gaps)}
    return hinge + run.variant.discriminator.r1_gamma * r1, values


def _noise_like(x0: Tensor, batch: Batch) -> Tensor:
    whole = (len(x0) * batch.rank.processes, *x0.shape[1:])
    return batch.rank.of(torch.randn(whole, generator=batch.draws)).to(x0.device)
