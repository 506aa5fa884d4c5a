"""How is the step made faster or smaller on a GPU? The options of `training.performance`, applied to its networks.

Scaled dot product attention needs no option: it is what diffusers and transformers choose by themselves. Nor does
the graph through frozen networks: whatever has no gradient to pass on runs under no_grad (`add.step`).
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
from add.models.weights import network_directory

PLAIN = PerformanceSpec()


def performance_of(run: Run) -> PerformanceSpec:
    """The run's options; none of them where it states none."""
    return run.training.performance or PLAIN


def apply_options(options: PerformanceSpec, players: FrozenNetworks, unet: Any) -> None:
    """Apply the options to the frozen networks and the student's trainable `unet`, in place.

    After the student was made from the frozen weights, which it takes in float32, and before it is sharded or its
    optimiser is made. The heads stay as they are: they are small, and R1 differentiates them twice.
    """
    pipelines = [p for p in (players.student, players.teacher) if p is not None]
    frozen: list[nn.Module] = [m for p in pipelines for m in (p.unet, p.vae, *p.text.encoders)]
    frozen += [m.model for m in (players.features, players.c_img) if m is not None]
    frozen += [players.c_text.encoder] if players.c_text is not None else []
    convolutional: list[nn.Module] = [unet, *(m for p in pipelines for m in (p.unet, p.vae))]
    convolutional += [m.model for m in (players.features, players.c_img) if m is not None]
    if options.frozen_precision == "bf16":
        for module in frozen:
            nn.Module.to(module, torch.bfloat16)  # diffusers' `to` warns of parts to keep, even of none
    if options.channels_last:
        for module in convolutional:
            module.to(memory_format=torch.channels_last)
    if "unet" in options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if "decoder" in options.gradient_checkpointing:
        players.student.vae.enable_gradient_checkpointing()
    if "features" in options.gradient_checkpointing and players.features is not None:
        checkpoint_blocks(players.features)
    if options.compile:
        for module in compiled_modules(players, unet):
            module.compile(dynamic=False)


def compiled_modules(players: FrozenNetworks, unet: Any) -> list[nn.Module]:
    """What `compile` compiles, in place: names, weights and configurations stay what they are."""
    found: list[nn.Module] = [unet, players.student.vae.encoder, players.student.vae.decoder]
    if players.teacher is not None:
        found.append(players.teacher.unet)
        if players.teacher.vae is not players.student.vae:
            found += [players.teacher.vae.encoder, players.teacher.vae.decoder]
    if players.features is not None:
        found.append(players.features.model)
    return found


def checkpoint_blocks(features: FeatureNetwork) -> None:
    """Let each block of a feature network compute its activations again in the backward pass, in place.

    transformers' own switch works in training mode only, which a frozen network is never in.
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


def release_unused(players: FrozenNetworks) -> None:
    """Free the frozen UNet of the student's pipeline where nothing runs it: another network is the teacher, or none.

    The trainable copy was made from it; its configuration stays.
    """
    if players.teacher is not players.student:
        players.student.unet.to("meta")


def plain_student(
    run: Run, share: Rank, student: DiffusionNetwork, unet: Any, state: Mapping[str, Tensor]
) -> tuple[DiffusionNetwork, Any]:
    """The student's pipeline and UNet as they are saved: float32 and whole, whatever the options made of them.

    state: the whole weights of `unet`. Without options these are the very modules that were trained.
    """
    if run.training.performance is None and not share.sharded:
        return student, unet
    fresh = load_diffusion(str(network_directory(run.student)), resolution=student.resolution)
    fresh.unet.load_state_dict(state)
    return fresh, fresh.unet
