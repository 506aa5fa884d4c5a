"""Which settings do not go together, and which networks does a variant use?"""

from __future__ import annotations

from collections.abc import Iterator

from add.spec import Networks, Scale, Training, Variant
from add.spec_yaml import Loc, nearest

Conflict = tuple[tuple[Loc, ...], str]
"""The places in a run whose values clash, and the message, which is about the first of them."""


def conflicts(scale: Scale, variant: Variant, training: Training) -> Iterator[Conflict]:
    """What is wrong between values each of which is right by itself."""
    yield from _missing_networks(scale, variant)
    yield from _latents(scale, variant)
    trained, asked = len(training.student_timesteps), max(scale.sampling.steps)
    if asked > trained:
        message = f"{trained} timesteps are trained, but the scale's sampling.steps asks for {asked} steps"
        yield (("training", "student_timesteps"),), message


def used(variant: Variant, networks: Networks) -> Networks:
    """Only the networks that training this variant loads."""
    distils, judged = variant.loss.distillation != "none", variant.loss.adversarial > 0
    diffusion = {variant.student, variant.teacher} if distils else {variant.student}
    features = {variant.discriminator.features} if judged else set()
    conditioning = variant.discriminator.conditioning if judged else ()
    return Networks(
        diffusion={name: networks.diffusion[name] for name in sorted(diffusion)},
        features={name: networks.features[name] for name in sorted(features)},
        c_text=networks.c_text if "text" in conditioning else None,
        c_img=networks.c_img if "image" in conditioning else None,
    )


def _missing_networks(scale: Scale, variant: Variant) -> Iterator[Conflict]:
    diffusion, features = scale.networks.diffusion, scale.networks.features
    for role, name in (("student", variant.student), ("teacher", variant.teacher)):
        if name not in diffusion:
            message = f"the scale '{scale.name}' has no diffusion network '{name}'{nearest(name, diffusion)}"
            yield (("variant", role),), message
    name = variant.discriminator.features
    if name not in features:
        message = f"the scale '{scale.name}' has no feature network '{name}'{nearest(name, features)}"
        yield (("variant", "discriminator", "features"),), message
    projections = {"text": ("c_text", scale.networks.c_text), "image": ("c_img", scale.networks.c_img)}
    for condition in variant.discriminator.conditioning:
        key, network = projections[condition]
        if network is None:
            message = f"'{condition}' needs networks.{key}, which the scale '{scale.name}' lacks"
            yield (("variant", "discriminator", "conditioning"),), message


def _latents(scale: Scale, variant: Variant) -> Iterator[Conflict]:
    """A distance in latent space needs one latent space."""
    student, teacher = (scale.networks.diffusion.get(name) for name in (variant.student, variant.teacher))
    if variant.loss.space != "latent" or variant.loss.distillation == "none" or not student or not teacher:
        return
    if variant.student == variant.teacher or (student.latents and student.latents == teacher.latents):
        return
    message = (
        "a latent-space distance between two VAEs is not defined: "
        f"the student '{variant.student}' has latents {student.latents or 'not stated'}, "
        f"the teacher '{variant.teacher}' {teacher.latents or 'not stated'}; "
        "use pixel, or two networks of one VAE (which the scale says by equal `latents`)"
    )
    yield (("variant", "loss", "space"), ("variant", "teacher"), ("variant", "student")), message
