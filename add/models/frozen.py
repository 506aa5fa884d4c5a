"""Which networks does a run use around the student, and how do they become faster or smaller on a GPU?

Their weights are checked, and all of them are frozen. Scaled dot product attention needs no option: diffusers and
transformers choose it by themselves. Networks that pass on no gradient run under no_grad anyway (`add.step`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from add.config.run import Run, Trained
from add.config.scale import DiffusionNetworkSpec, FeatureNetworkSpec, ImageNetworkSpec, NetworkSpec
from add.config.training import PerformanceSpec
from add.discriminator import Discriminator
from add.distributed import Rank
from add.identity import networks_of
from add.models.diffusion import DiffusionNetwork, Float32Convolution, check_one_vae, load_diffusion
from add.models.encoder_cache import (
    EncoderCache,
    RememberingImageCondition,
    RememberingNetwork,
    RememberingTextCondition,
    remembering,
)
from add.models.features import BLOCKS, FeatureNetwork, ImageCondition, load_features
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


def check_networks(run: Trained) -> dict[str, str]:
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
    return load_diffusion(
        str(network_directory(network)), device, resolution, network.original_size, network.target_size
    )


def _load_features(network: ImageNetworkSpec, device: str) -> FeatureNetwork:
    return load_features(
        str(network_directory(network)),
        layers=network.layers if isinstance(network, FeatureNetworkSpec) else (),
        image_size=network.image_size,
        mean=network.mean,
        std=network.std,
    ).to(device)


def performance_of(run: Run) -> PerformanceSpec:
    """The run's options; all off where it states none."""
    return run.training.performance or PerformanceSpec()


def apply_options(options: PerformanceSpec, networks: FrozenNetworks, unet: Any) -> None:
    """Apply the options to the frozen networks and the student's trainable `unet`, in place.

    Call it after `trainable_unet`, which copies the frozen weights in float32, and before sharding and before the
    optimiser is made. The heads do not change: they are small, and R1 differentiates them twice.
    """
    pipelines = [p for p in (networks.student, networks.teacher) if p is not None]
    side = [getattr(module, "model", module) for module in networks.side_networks.values()]
    vision = [each.model for each in networks.side_networks.values() if isinstance(each, FeatureNetwork)]
    frozen: list[nn.Module] = [m for p in pipelines for m in (p.unet, p.vae, *p.text.encoders)] + side
    convolutional: list[nn.Module] = [unet, *(m for p in pipelines for m in (p.unet, p.vae)), *vision]
    if options.frozen_precision == "bf16":
        for module in frozen:
            to_bf16(module)
    if options.channels_last:
        for module in convolutional:
            module.to(memory_format=torch.channels_last)
    if "unet" in options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if "decoder" in options.gradient_checkpointing:
        networks.student.vae.enable_gradient_checkpointing()
    if "features" in options.gradient_checkpointing and networks.features is not None:
        checkpoint_blocks(networks.features)
    if options.compile:
        for module in compiled_modules(networks, unet):
            module.compile(dynamic=False)


def to_bf16(module: nn.Module) -> None:
    """Cast a module's weights to bf16, in place, but those of a `Float32Convolution`."""
    if isinstance(module, Float32Convolution):
        return
    module._apply(lambda x: x.to(torch.bfloat16) if x.is_floating_point() else x, recurse=False)
    for part in module.children():
        to_bf16(part)


def compiled_modules(networks: FrozenNetworks, unet: Any) -> list[nn.Module]:
    """The modules that `compile` compiles in place; names, weights and configurations do not change."""
    found: list[nn.Module] = [unet, networks.student.vae.encoder, networks.student.vae.decoder]
    if networks.teacher is not None:
        found.append(networks.teacher.unet)
        if networks.teacher.vae is not networks.student.vae:
            found += [networks.teacher.vae.encoder, networks.teacher.vae.decoder]
    if networks.features is not None:
        found.append(networks.features.model)
    return found


def checkpoint_blocks(features: FeatureNetwork) -> None:
    """Let each block of a feature network recompute its activations in the backward pass, in place.

    transformers' own switch works only in training mode, and a frozen network is always in eval mode.
    """
    for block in attrgetter(BLOCKS[features.kind][0])(features.model):
        block.forward = _checkpointed(block.forward)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    from torch.utils.checkpoint import checkpoint

    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing here is random

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        return again(forward, *args, **kwargs) if torch.is_grad_enabled() else forward(*args, **kwargs)

    return run


def release_unused(networks: FrozenNetworks) -> None:
    """Free the frozen UNet of the student's pipeline unless it is the teacher's: nothing else runs it.

    Call it after `trainable_unet`. The UNet's configuration stays.
    """
    if networks.teacher is not networks.student:
        networks.student.unet.to("meta")


def plain_student(
    run: Run, rank: Rank, student: DiffusionNetwork, unet: Any, state: Mapping[str, Tensor]
) -> tuple[DiffusionNetwork, Any]:
    """The student's pipeline and UNet as they are saved: float32 and not sharded, under any options.

    state: the whole weights of `unet`. Without options the trained modules themselves are returned.
    """
    if run.training.performance is None and not rank.sharded:
        return student, unet
    fresh = _load_diffusion(run.student, "cpu", student.resolution)
    fresh.unet.load_state_dict(state)
    return fresh, fresh.unet
