"""Which networks does a run use around the student? Their weights are checked, and all of them are frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from add.config.run import Run
from add.config.scale import DiffusionNetworkSpec, FeatureNetworkSpec, ImageNetworkSpec, NetworkSpec
from add.discriminator import Discriminator
from add.identity import networks_of
from add.models.diffusion import DiffusionNetwork, check_one_vae, load_diffusion
from add.models.encoder_cache import (
    EncoderCache,
    RememberingImageCondition,
    RememberingNetwork,
    RememberingTextCondition,
    remembering,
)
from add.models.features import FeatureNetwork, ImageCondition, load_features
from add.models.hub import network_directory
from add.models.text import TextCondition, load_text_condition
from add.models.weights import check_weights


@dataclass(frozen=True)
class FrozenNetworks:
    """Every frozen network of a run; None where the variant does not use it. `teacher` may be `student` itself.

    shared_latents: the student's latents are the teacher's too, so that images need not be encoded again.
    """

    student: DiffusionNetwork
    teacher: DiffusionNetwork | None
    features: FeatureNetwork | None
    c_text: TextCondition | None
    c_img: ImageCondition | None
    shared_latents: bool

    @property
    def side_networks(self) -> dict[str, nn.Module]:
        """The modules of `features`, `c_img` and `c_text` by these names, those in use."""
        found: dict[str, nn.Module | None] = {
            "features": self.features,
            "c_img": self.c_img.network if self.c_img is not None else None,
            "c_text": self.c_text.encoder if self.c_text is not None else None,
        }
        return {name: module for name, module in found.items() if module is not None}

    @torch.no_grad()
    def conditions(self, real: Tensor, prompts: tuple[str, ...]) -> dict[str, Tensor]:
        """The discriminator's c_text of the captions and c_img of the *real* images, those that the variant uses."""
        found = {}
        if self.c_text is not None:
            found["text"] = self.c_text(prompts)
        if self.c_img is not None:
            found["image"] = self.c_img(real)
        return found


@dataclass(frozen=True)
class Loaders:
    """How each kind of network is made from its settings, on a device.

    The defaults load pretrained weights. `addbench.cost.random_init` has others, which need no weights.
    """

    diffusion: Callable[[DiffusionNetworkSpec, str, int | None], DiffusionNetwork]
    features: Callable[[ImageNetworkSpec, str], FeatureNetwork]
    c_text: Callable[[NetworkSpec, str], TextCondition]


def load_frozen_networks(
    run: Run, device: str, cache: EncoderCache | None = None, loaders: Loaders | None = None
) -> FrozenNetworks:
    """Load the frozen networks that the run uses. With a `cache`, their encoders remember.

    Raises InputError where the settings give equal `latents` to two different VAEs, and as the loaders do.
    """
    load = loaders or Loaders(_load_diffusion, _load_features, load_text_condition)
    variant, networks = run.variant, run.networks
    student = load.diffusion(run.student, device, run.training.resolution)
    teacher = None
    if variant.loss.distillation != "none":
        # The teacher sees the student's images, whatever size it was trained at itself.
        same = variant.teacher == variant.student
        teacher = student if same else load.diffusion(run.teacher, device, student.resolution)
    judged = variant.loss.adversarial > 0
    features = load.features(networks.features[variant.discriminator.features], device) if judged else None
    c_text = load.c_text(networks.c_text, device) if networks.c_text is not None else None
    c_img = ImageCondition(load.features(networks.c_img, device)) if networks.c_img is not None else None
    shared = len({network.latents or name for name, network in networks.diffusion.items()}) == 1
    if loaders is None and teacher is not None and shared:
        check_one_vae(student, teacher)
    remembered = remembering(student, RememberingNetwork, cache)
    return FrozenNetworks(
        remembered,
        remembered if teacher is student else remembering(teacher, RememberingNetwork, cache),
        features,
        remembering(c_text, RememberingTextCondition, cache),
        remembering(c_img, RememberingImageCondition, cache),
        shared,
    )


def check_networks(run: Run) -> dict[str, str]:
    """sha256 of the weights of every network that the run uses, by name.

    Raises WeightsError where weights are missing or are not those that the settings name.
    """
    named = networks_of(run)
    return {k: check_weights(network_directory(n), n.sha256, n.files) for k, n in named.items()}


def make_heads(run: Run, networks: FrozenNetworks, resolution: int, seed: int) -> Discriminator | None:
    """The untrained heads, or None where the variant has no adversarial loss."""
    if networks.features is None:
        return None
    device = networks.student.device
    example = torch.zeros(1, 3, resolution, resolution, device=device)
    dims = {name: c.shape[1] for name, c in networks.conditions(example, ("",)).items()}
    torch.manual_seed(seed)
    shapes = networks.features.shapes(resolution)
    return Discriminator(shapes, dims, run.training.head_width, run.training.virtual_batch).to(device)


def _load_diffusion(network: DiffusionNetworkSpec, device: str, resolution: int | None) -> DiffusionNetwork:
    return load_diffusion(str(network_directory(network)), device=device, resolution=resolution)


def _load_features(network: ImageNetworkSpec, device: str) -> FeatureNetwork:
    return load_features(
        str(network_directory(network)),
        layers=network.layers if isinstance(network, FeatureNetworkSpec) else (),
        image_size=network.image_size,
        mean=network.mean,
        std=network.std,
    ).to(device)
