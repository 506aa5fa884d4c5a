"""One training step of ADD: what a batch is, and the two players' losses (paper, section 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from add.augment import augment, random_crop
from add.cache import EncoderCache, image_keys, kept, text_keys
from add.data.captioned import to_tensor
from add.data.samples import CaptionedSet, pixels
from add.data.training import order_of
from add.discriminator import Discriminator
from add.features import FeatureNetwork, load_features
from add.losses import (
    Conditioning,
    Nfsd,
    distillation_loss,
    distillation_weight,
    hinge_discriminator,
    hinge_generator,
    logit_gaps,
    r1_penalty,
    teacher_target,
)
from add.networks import DiffusionNetwork, check_one_vae, student_x0
from add.parallel import WHOLE, Share
from add.pipelines import load_diffusion
from add.spec import Run
from add.spec_scale import Network
from add.text import TextConditioning
from add.weights import check_weights, network_directory


@dataclass(frozen=True)
class Batch:
    """One part of a step's batch. Its draws are functions of (seed, step, part) alone, the same for all variants.

    real: (B, 3, H, W) in [-1, 1]; s, t: long (B,), the student's and the teacher's timesteps; noise, noise_t:
    latent noise (B, C, h, w) for each; s, t and the noises do not depend on the variant, so rows are paired.
    share: which slice of the part this is; `draws` is where the whole part's draws come from. keys: of the images,
    for a cache of what encoders make of them; () where there is none.
    """

    real: Tensor
    prompts: tuple[str, ...]
    s: Tensor
    t: Tensor
    noise: Tensor
    noise_t: Tensor
    draws: torch.Generator
    share: Share = WHOLE
    keys: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Players:
    """Everything frozen around the student. What a variant does not use is None."""

    student: DiffusionNetwork
    teacher: DiffusionNetwork | None
    features: FeatureNetwork | None
    c_text: Any
    c_img: FeatureNetwork | None
    shared_latents: bool
    cache: EncoderCache | None = None


def generator(seed: int, step: int, part: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone, so that resuming needs no stored random state."""
    key = hashlib.sha256(f"{seed}/{step}/{part}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def check_networks(run: Run) -> dict[str, str]:
    """sha256 of the weights of every network that the run uses, by name.

    Raises WeightsError where weights are missing or are not those that the spec names.
    """
    networks = run.networks
    named: dict[str, Network] = {**networks.diffusion, **networks.features}
    named |= {k: v for k, v in (("c_text", networks.c_text), ("c_img", networks.c_img)) if v is not None}
    return {k: check_weights(network_directory(n), n.sha256, n.files) for k, n in named.items()}


def load_players(run: Run, device: str, cache: EncoderCache | None = None) -> Players:
    """Load the frozen networks that the run uses.

    Raises ValueError where the spec calls the latents of two different VAEs one, and as the loaders do.
    """
    from add.conditions import load_text_condition

    variant, networks = run.variant, run.networks
    student = load_diffusion(
        str(network_directory(run.student)), device=device, resolution=run.training.resolution
    )
    teacher = None
    if variant.loss.distillation != "none":
        same = variant.teacher == variant.student
        # It sees the student's images, whatever size it was trained at itself.
        place = str(network_directory(run.teacher))
        teacher = student if same else load_diffusion(place, device=device, resolution=student.resolution)
    features = None
    if variant.loss.adversarial > 0:
        net = networks.features[variant.discriminator.features]
        features = load_features(
            str(network_directory(net)),
            layers=net.layers,
            image_size=net.image_size,
            mean=net.mean,
            std=net.std,
        ).to(device)
    c_img = None
    if networks.c_img is not None:
        given = networks.c_img
        c_img = load_features(
            str(network_directory(given)), image_size=given.image_size, mean=given.mean, std=given.std
        ).to(device)
    c_text = None if networks.c_text is None else load_text_condition(networks.c_text, device)
    pair = [n for n in (variant.student, variant.teacher) if n in networks.diffusion]
    latents = {networks.diffusion[name].latents or name for name in pair}
    if teacher is not None and len(latents) == 1:
        check_one_vae(student, teacher)
    return Players(student, teacher, features, c_text, c_img, len(latents) == 1, cache)


def make_heads(run: Run, players: Players, resolution: int, seed: int) -> Discriminator | None:
    """The untrained heads, or None where the variant has no adversarial loss."""
    if players.features is None:
        return None
    device = players.student.device
    example = torch.zeros(1, 3, resolution, resolution, device=device)
    dims = {name: c.shape[1] for name, c in conditions(players, example, ("",)).items()}
    torch.manual_seed(seed)
    settings = run.training
    shapes = players.features.shapes(resolution)
    return Discriminator(shapes, dims, settings.head_width, settings.virtual_batch).to(device)


def draw_batch(
    run: Run,
    data: CaptionedSet,
    resolution: int,
    latent: tuple[int, ...],
    seed: int,
    step: int,
    part: int,
    device: str,
    share: Share = WHOLE,
    keyed: bool = False,
) -> Batch:
    """Draw part `part` of the batch of `step` and read the samples of `share` of it.

    latent: shape (C, h, w) of the student's latents; keyed: with the images' keys, for a cache. Raises DataError
    naming a sample that cannot be read.
    """
    settings, form = run.training, run.data.train
    size = settings.batch // settings.accumulate
    samples = data.samples(share.of(order_of(form, data, step * settings.batch + part * size, size, seed)))
    places = share.of(torch.rand(size, 2, generator=generator(seed, step, part, "crop"))).tolist()
    images = pixels(samples, resolution, form.resize_rule, places)
    draws = generator(seed, step, part, "batch")
    weights = torch.tensor(settings.student_timestep_weights)
    chosen = torch.multinomial(weights, size, replacement=True, generator=draws)
    low, high = settings.distillation_timesteps
    caption = share.of(torch.rand(size, generator=draws)).tolist()
    texts = [(sample.captions, u) for sample, u in zip(samples, caption, strict=True)]
    return Batch(
        real=to_tensor(images).to(device),
        prompts=tuple(t[int(u * len(t))] for t, u in texts),
        s=share.of(torch.tensor(settings.student_timesteps)[chosen]).to(device),
        t=share.of(torch.randint(low, high + 1, (size,), generator=draws)).to(device),
        noise=share.of(torch.randn(size, *latent, generator=draws)).to(device),
        noise_t=share.of(torch.randn(size, *latent, generator=draws)).to(device),
        draws=generator(seed, step, part, "augmentation"),
        share=share,
        keys=image_keys(images) if keyed else (),
    )


@torch.no_grad()
def conditions(
    players: Players, real: Tensor, prompts: tuple[str, ...], keys: tuple[bytes, ...] = ()
) -> dict[str, Tensor]:
    """The discriminator's c_text of the captions and c_img of the *real* images, those that the variant uses.

    keys: of the images, where a cache may answer.
    """
    cache, device = players.cache, real.device
    found: dict[str, Tensor] = {}
    if (c_text := players.c_text) is not None:
        # Named by the tokens that the encoder sees, so the tokenizer need not be.
        names = text_keys([str(ids) for ids in c_text.tokens(prompts).tolist()]) if keys else ()
        made_by = (c_text.encoder, "projected")
        found |= kept(cache, "c_text", made_by, names, prompts, lambda p: {"text": c_text(p)}, device)
    if (c_img := players.c_img) is not None:
        found |= kept(
            cache,
            "c_img",
            (c_img, f"at {c_img.image_size}"),
            keys,
            real,
            lambda x: {"image": c_img.pooled(x)},
            device,
        )
    return found


@torch.no_grad()
def embedded(
    players: Players, network: DiffusionNetwork, prompts: Sequence[str], keyed: bool
) -> TextConditioning:
    """`network.embed(prompts)`; keyed: a cache may answer."""
    keys, text = text_keys(prompts) if keyed else (), network.text
    made_by = (*text.encoders, *text.tokenizers, f"at {network.resolution}")

    def encode(p: Sequence[str]) -> dict[str, Tensor]:
        made = network.embed(p)
        parts = {"embeddings": made.embeddings, "pooled": made.pooled, "time_ids": made.time_ids}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    answer = kept(players.cache, "text", made_by, keys, prompts, encode, network.device)
    return TextConditioning(answer["embeddings"], answer.get("pooled"), answer.get("time_ids"))


def seen(run: Run, images: Tensor, features: FeatureNetwork, batch: Batch) -> list[Tensor]:
    """Features of images (B, 3, H, W) as the discriminator sees them: augmented, cropped, resized."""
    settings = run.training
    images = augment(images, settings.augmentation, batch.draws, batch.share)
    return features(random_crop(images, features.image_size, settings.crop_probability, batch.draws))


def target_of(
    run: Run, players: Players, latents: Tensor, images: Tensor, batch: Batch
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
                null, words = conditioning == "null", [settings.nfsd.negative_prompt]
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
            nfsd=Nfsd(settings.nfsd.guidance, settings.nfsd.threshold, bool(settings.nfsd.negative_prompt)),
        )
        if variant.loss.space == "pixel":
            target = teacher.decode(target)
    return target, distillation_weight(teacher.schedule, batch.t, form)


def _noise_like(x0: Tensor, batch: Batch) -> Tensor:
    whole = (len(x0) * batch.share.processes, *x0.shape[1:])
    return batch.share.of(torch.randn(whole, generator=batch.draws)).to(x0.device)


def student_output(run: Run, players: Players, unet: Any, batch: Batch) -> tuple[Tensor, Tensor]:
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
    run: Run, players: Players, unet: Any, heads: Discriminator | None, batch: Batch
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """The student's loss, the heads' loss (None without them) and detached values to log.

    One decode serves both of the student's losses. Both players are judged with the parameters of the step's
    beginning; in the student's pass the heads collect no gradient, in theirs the student's output is detached.
    """
    variant = run.variant
    latents, images = student_output(run, players, unet, batch)
    student_loss = torch.zeros((), device=images.device)
    head_loss: Tensor | None = None
    values: dict[str, Tensor] = {}
    if variant.loss.distillation != "none":
        target, weight = target_of(run, players, latents, images, batch)
        ours = images if variant.loss.space == "pixel" else latents
        distil = distillation_loss(ours, target, weight)
        student_loss = student_loss + variant.loss.distillation_weight * distil
        values["loss_distill"] = distil.detach()
    if heads is not None and players.features is not None:
        given = conditions(players, batch.real, batch.prompts, batch.keys)
        fake = seen(run, images, players.features, batch)
        heads.requires_grad_(False)
        adversarial = hinge_generator(heads(fake, given))
        student_loss = student_loss + variant.loss.adversarial * adversarial
        heads.requires_grad_(True)
        with torch.no_grad():
            real = seen(run, batch.real, players.features, batch)
        head_loss, head_values = discriminator_loss(run, heads, real, [f.detach() for f in fake], given)
        values |= {"loss_g_adv": adversarial.detach(), **head_values}
    values["loss_g"] = student_loss.detach()
    return student_loss, head_loss, values


def discriminator_loss(
    run: Run, heads: Discriminator, real: list[Tensor], fake: list[Tensor], given: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hinge loss and R1 of the heads on detached features, and values to log, each head's logit gap among them."""
    inputs = [f.detach().requires_grad_(True) for f in real]
    real_logits, fake_logits = heads(inputs, given), heads(fake, given)
    hinge = hinge_discriminator(real_logits, fake_logits)
    r1 = r1_penalty(real_logits, inputs)
    gaps = logit_gaps(real_logits, fake_logits)
    values = {"loss_d": hinge.detach(), "r1": r1.detach(), "gap": gaps.mean()}
    values |= {f"gap_{k}": gap for k, gap in enumerate(gaps)}
    return hinge + run.variant.discriminator.r1_gamma * r1, values
