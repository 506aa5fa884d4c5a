"""Which networks stand around the student? Loads the frozen ones, makes the heads, encodes what conditions them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from add.config.run import Run
from add.config.scale import NetworkSpec
from add.discriminator import Discriminator
from add.models.diffusion import DiffusionNetwork, check_one_vae, load_diffusion
from add.models.encoder_cache import EncoderCache, kept, text_keys
from add.models.features import FeatureNetwork, load_features
from add.models.text import TextConditioning
from add.models.weights import check_weights, network_directory


@dataclass(frozen=True)
class FrozenNetworks:
    """Everything frozen around the student. What a variant does not use is None."""

    student: DiffusionNetwork
    teacher: DiffusionNetwork | None
    features: FeatureNetwork | None
    c_text: Any
    c_img: FeatureNetwork | None
    shared_latents: bool
    cache: EncoderCache | None = None


def check_networks(run: Run) -> dict[str, str]:
    """sha256 of the weights of every network that the run uses, by name.

    Raises WeightsError where weights are missing or are not those that the spec names.
    """
    networks = run.networks
    named: dict[str, NetworkSpec] = {**networks.diffusion, **networks.features}
    named |= {k: v for k, v in (("c_text", networks.c_text), ("c_img", networks.c_img)) if v is not None}
    return {k: check_weights(network_directory(n), n.sha256, n.files) for k, n in named.items()}


def load_frozen_networks(run: Run, device: str, cache: EncoderCache | None = None) -> FrozenNetworks:
    """Load the frozen networks that the run uses.

    Raises ValueError where the spec calls the latents of two different VAEs one, and as the loaders do.
    """
    from add.models.text import load_text_condition

    variant, networks = run.variant, run.networks
    place = str(network_directory(run.student))
    student = load_diffusion(place, device=device, resolution=run.training.resolution)
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
        looks = networks.c_img
        place = str(network_directory(looks))
        c_img = load_features(place, image_size=looks.image_size, mean=looks.mean, std=looks.std).to(device)
    c_text = None if networks.c_text is None else load_text_condition(networks.c_text, device)
    pair = [n for n in (variant.student, variant.teacher) if n in networks.diffusion]
    latents = {networks.diffusion[name].latents or name for name in pair}
    if teacher is not None and len(latents) == 1:
        check_one_vae(student, teacher)
    return FrozenNetworks(student, teacher, features, c_text, c_img, len(latents) == 1, cache)


def make_heads(run: Run, players: FrozenNetworks, resolution: int, seed: int) -> Discriminator | None:
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


@torch.no_grad()
def conditions(
    players: FrozenNetworks, real: Tensor, prompts: tuple[str, ...], keys: tuple[bytes, ...] = ()
) -> dict[str, Tensor]:
    """The discriminator's c_text of the captions and c_img of the *real* images, those that the variant uses.

    keys: of the images, where a cache may answer.
    """
    cache, device = players.cache, real.device
    found: dict[str, Tensor] = {}
    if (c_text := players.c_text) is not None:
        made_by, names = (c_text.encoder, c_text.vocabulary), text_keys(prompts) if keys else ()
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
    players: FrozenNetworks, network: DiffusionNetwork, prompts: Sequence[str], keyed: bool
) -> TextConditioning:
    """`network.embed(prompts)`; keyed: a cache may answer."""
    text = network.text
    made_by = (*text.encoders, *text.tokenizers, f"at {network.resolution}")

    def encode(prompts: Sequence[str]) -> dict[str, Tensor]:
        made = network.embed(prompts)
        parts = {"embeddings": made.embeddings, "pooled": made.pooled, "time_ids": made.time_ids}
        return {name: part for name, part in parts.items() if part is not None}

    keys = text_keys(prompts) if keyed else ()
    return TextConditioning(**kept(players.cache, "text", made_by, keys, prompts, encode, network.device))
