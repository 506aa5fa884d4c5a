"""How does a step become faster or smaller on a GPU? By the options of `training.performance`, applied here.

Scaled dot product attention needs no option: diffusers and transformers choose it by themselves. Frozen networks that
pass on no gradient run under no_grad anyway (`add.step`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from add.config.run import Run
from add.config.training import PerformanceSpec
from add.distributed import Rank
from add.models.diffusion import DiffusionNetwork, load_diffusion
from add.models.features import BLOCKS, FeatureNetwork
from add.models.frozen import FrozenNetworks
from add.models.hub import network_directory

PLAIN = PerformanceSpec()


def performance_of(run: Run) -> PerformanceSpec:
    """The run's options; all off where it states none."""
    return run.training.performance or PLAIN


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
        for module in frozen:  # not by diffusers' own `to`: it warns even without parts to keep in float32
            nn.Module.to(module, torch.bfloat16)
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
    fresh = load_diffusion(str(network_directory(run.student)), resolution=student.resolution)
    fresh.unet.load_state_dict(state)
    return fresh, fresh.unet
