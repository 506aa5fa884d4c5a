"""One training step of ADD: the two players' losses (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from add.augment import augment, random_crop
from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator
from add.losses import (
    Conditioning,
    NfsdSettings,
    distillation_loss,
    distillation_weight,
    hinge_discriminator,
    hinge_generator,
    logit_gaps,
    r1_penalty,
    teacher_target,
)
from add.models.diffusion import student_x0
from add.models.encoder_cache import kept
from add.models.features import FeatureNetwork
from add.models.frozen import FrozenNetworks, conditions, embedded


def discriminator_features(run: Run, images: Tensor, features: FeatureNetwork, batch: Batch) -> list[Tensor]:
    """Features of images (B, 3, H, W) as the discriminator sees them: augmented, cropped, resized."""
    settings = run.training
    images = augment(images, settings.augmentation, batch.draws, batch.share)
    return features(random_crop(images, features.image_size, settings.crop_probability, batch.draws))


def target_of(
    run: Run, players: FrozenNetworks, latents: Tensor, images: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The teacher's target for a student's output, and the weight c(t) (B,).

    The target is in the space that the loss compares in: teacher latents, or decoded to pixels. Where student and
    teacher share no latent space, the student's *image* is encoded by the teacher's VAE first.
    """
    teacher, variant, settings = players.teacher, run.variant, run.training
    if teacher is None or variant.loss.distillation == "none":
        raise ValueError("this variant distils nothing; it has no target")
    form = variant.loss.distillation
    with torch.no_grad():
        x0 = latents.detach() if players.shared_latents else teacher.encode(images.detach())
        keyed = bool(batch.keys)
        texts = {"text": embedded(players, teacher, batch.prompts, keyed)}

        def predict(x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
            if conditioning not in texts:
                null = conditioning == "null"
                words = [settings.nfsd.negative_prompt]
                one = teacher.null() if null else embedded(players, teacher, words, keyed)
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
            nfsd=NfsdSettings(
                settings.nfsd.guidance, settings.nfsd.threshold, bool(settings.nfsd.negative_prompt)
            ),
        )
        if variant.loss.space == "pixel":
            target = teacher.decode(target)
    return target, distillation_weight(teacher.schedule, batch.t, form)


def _noise_like(x0: Tensor, batch: Batch) -> Tensor:
    whole = (len(x0) * batch.share.processes, *x0.shape[1:])
    return batch.share.of(torch.randn(whole, generator=batch.draws)).to(x0.device)


def student_output(run: Run, players: FrozenNetworks, unet: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The student's x_0 prediction as latents and, decoded, as images; both carry its gradient."""
    with torch.no_grad():
        student = players.student
        x0 = kept(
            players.cache,
            "latents",
            (student.vae,),
            batch.keys,
            batch.real,
            lambda images: {"latents": student.encode(images)},
            student.device,
        )["latents"]
        text = embedded(players, student, batch.prompts, bool(batch.keys))
    latents = student_x0(student, unet, x0, batch.noise, batch.s, text)
    return latents, student.decode(latents)


def losses(
    run: Run, players: FrozenNetworks, unet: Any, heads: Discriminator | None, batch: Batch
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """The student's loss, the heads' loss (None without them) and detached values to log.

    One decode serves both of the student's losses, one pass of the heads over the generated images both players:
    the student's loss takes its gradient from there, the heads' loss trains them. Both players are judged with the
    parameters of the step's beginning. The student's loss collects no gradient in the heads, theirs none in it.
    """
    variant = run.variant
    latents, images = student_output(run, players, unet, batch)
    student_loss = torch.zeros((), device=images.device)
    head_loss: Tensor | None = None
    values: dict[str, Tensor] = {}
    if variant.loss.distillation != "none":
        target, weight = target_of(run, players, latents, images, batch)
        ours = images if variant.loss.space == "pixel" else latents
        distil = distillation_loss(ours, target, weight, positions=latents[0, 0].numel())
        student_loss = student_loss + variant.loss.distillation_weight * distil
        values["loss_distill"] = distil.detach()
    if heads is not None and players.features is not None:
        given = conditions(players, batch.real, batch.prompts, batch.keys)
        fake = discriminator_features(run, images, players.features, batch)
        with torch.no_grad():
            real = discriminator_features(run, batch.real, players.features, batch)
        adversarial, head_loss, head_values = adversarial_losses(run, heads, real, fake, given)
        student_loss = student_loss + variant.loss.adversarial * adversarial
        values |= {"loss_g_adv": adversarial.detach(), **head_values}
    values["loss_g"] = student_loss.detach()
    return student_loss, head_loss, values


def adversarial_losses(
    run: Run, heads: Discriminator, real: list[Tensor], fake: list[Tensor], given: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The student's adversarial loss, the heads' loss, and values to log, of one pass of the heads over `fake`.

    fake: features of the student's images, with its graph. real: detached features. The student's loss is the hinge's
    value with the gradient that it has in `fake`; that gradient is taken here, and by the features alone, so that the
    heads' own loss can be taken from the very same logits and their parameters collect nothing of the student's.
    """
    judged = [f.detach().requires_grad_(True) for f in fake]
    logits = heads(judged, given)
    adversarial = hinge_generator(logits)
    slopes = torch.autograd.grad(adversarial, judged, retain_graph=True)
    # Linear in the features, so its gradient is `slopes`; of its value nothing is left.
    line = torch.stack([(f * g).sum() for f, g in zip(fake, slopes, strict=True)]).sum()
    head_loss, values = discriminator_loss(run, heads, real, logits, given)
    return adversarial.detach() + (line - line.detach()), head_loss, values


def discriminator_loss(
    run: Run, heads: Discriminator, real: list[Tensor], fake_logits: list[Tensor], given: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hinge loss and R1 of the heads, and values to log, each head's logit gap among them.

    real: detached features. fake_logits: of the generated images, of inputs that are cut off from the student.
    """
    inputs = [f.detach().requires_grad_(True) for f in real]
    real_logits = heads(inputs, given)
    hinge = hinge_discriminator(real_logits, fake_logits)
    r1 = r1_penalty(real_logits, inputs)
    gaps = logit_gaps(real_logits, fake_logits)
    values = {"loss_d": hinge.detach(), "r1": r1.detach(), "gap": gaps.mean()}
    values |= {f"gap_{k}": gap for k, gap in enumerate(gaps)}
    return hinge + run.variant.discriminator.r1_gamma * r1, values
