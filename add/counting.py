"""How much would one step allocate and compute? It runs on tensors that have a shape, a type and no values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from add.batch import Batch
from add.discriminator import Discriminator
from add.losses import distillation_loss
from add.meters import Flops, LiveBytes, norms_as_on_cuda
from add.networks import trainable_unet
from add.performance import apply_options, performance_of, release_unused
from add.players import Players, conditions, make_heads
from add.spec import Run
from add.step import adversarial_losses, student_output
from add.unweighted_players import build_players

_BLOCK, _SMALLEST = 256, 4096  # of an 8-bit optimiser: elements to a scale, elements of a tensor worth it


@dataclass(frozen=True)
class Counted:
    """A step's networks, its most bytes alive beside their weights, and its floating-point operations."""

    players: Players
    unet: nn.Module
    heads: Discriminator | None
    frozen: tuple[nn.Module, ...]
    peak_bytes: int
    flops: int


def count_step(run: Run, images: int, configurations: Mapping[str, str] | None = None) -> Counted:
    """Count one part of a step, of so many images: forward and backward passes of both players.

    Raises as `add.unweighted_players.build_players`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    players = build_players(run, "meta", configurations)
    unet = trainable_unet(players.student, "pretrained", 0)
    heads = make_heads(run, players, players.student.resolution, 0)
    release_unused(players)
    apply_options(performance_of(run).model_copy(update={"compile": False}), players, unet)
    frozen = frozen_modules(players)
    half = run.training.precision == "bf16"
    with FakeTensorMode(allow_non_fake_inputs=True), Flops() as flops:
        for module in (unet, *frozen, *((heads,) if heads is not None else ())):
            lay_out(module)
            if half:
                norms_as_on_cuda(module)
        trained = [*unet.parameters(), *(heads.parameters() if heads is not None else ())]
        batch = _batch(players, images)
        with LiveBytes() as live:
            if run.training.accumulate > 1:  # the parts before have left their gradients
                for parameter in trained:
                    parameter.grad = torch.empty_like(parameter)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                of_student, of_heads = step_losses(run, players, unet, heads, batch)
            of_student.backward()
            if heads is not None and of_heads is not None:
                of_heads.backward(inputs=list(heads.parameters()))
            most = live.most
    return Counted(players, unet, heads, tuple(frozen), most, flops.total)


def step_losses(
    run: Run, players: Players, unet: Any, heads: Discriminator | None, batch: Batch
) -> tuple[Tensor, Tensor | None]:
    """What `add.step.losses` computes, without the decisions that it takes on values: both players' losses."""
    variant = run.variant
    latents, images = student_output(run, players, unet, batch)
    loss = torch.zeros((), device=images.device)
    if players.teacher is not None:
        teacher = players.teacher
        with torch.no_grad():
            x0 = latents.detach() if players.shared_latents else teacher.encode(images.detach())
            text = teacher.embed(batch.prompts)
            outputs = [teacher.predict(x0, batch.t, text) for _ in range(teacher_passes(run))]
            target = teacher.decode(outputs[-1]) if variant.loss.space == "pixel" else outputs[-1]
        ours = images if variant.loss.space == "pixel" else latents
        loss = loss + distillation_loss(ours, target, torch.ones(len(ours)), positions=latents[0, 0].numel())
    if heads is None or players.features is None:
        return loss, None
    given = conditions(players, batch.real, batch.prompts)
    fake = players.features(images)
    with torch.no_grad():
        real = players.features(batch.real)
    adversarial, of_heads, _ = adversarial_losses(run, heads, real, fake, given)
    return loss + adversarial, of_heads


def teacher_passes(run: Run) -> int:
    """How often the teacher's UNet runs in a part of a step; NFSD's negative prompt is counted as used."""
    settings, loss = run.training, run.variant.loss
    if loss.distillation == "none":
        return 0
    guided = 1 if settings.teacher_guidance == 1.0 else 2
    if loss.distillation != "nfsd":
        return run.variant.teacher_steps * guided
    return (run.variant.teacher_steps - 1) * guided + (3 if settings.nfsd.negative_prompt else 2)


def frozen_modules(players: Players) -> list[nn.Module]:
    """Every frozen network that is in memory, each once."""
    found: dict[int, nn.Module] = {}
    for pipeline in (players.student, players.teacher):
        if pipeline is not None:
            for module in (pipeline.unet, pipeline.vae, *pipeline.text.encoders):
                found[id(module)] = module
    if players.teacher is not players.student:
        del found[id(players.student.unet)]  # released
    others = [players.features, players.c_img, players.c_text.encoder if players.c_text is not None else None]
    return [*found.values(), *(module for module in others if module is not None)]


def lay_out(module: nn.Module) -> None:
    """Replace the tensors of a module on `meta` by ones of the active FakeTensorMode on the CPU, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_meta:
                part._parameters[name] = nn.Parameter(_like(parameter), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                part._buffers[name] = _like(buffer)


def module_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the modules' parameters and buffers."""
    tensors = {id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def moment_bytes(module: nn.Module, eight_bit: bool) -> int:
    """Bytes of AdamW's two moments; in 8 bits, with the scale of each block of the larger tensors."""
    sizes = [p.numel() for p in module.parameters()]
    if not eight_bit:
        return sum(8 * n for n in sizes)
    return sum(2 * n + 8 * -(-n // _BLOCK) if n >= _SMALLEST else 8 * n for n in sizes)


def parameter_counts(counted: Counted) -> dict[str, int]:
    """Parameters by network: the student and the heads are trained, the others frozen."""
    players = counted.players
    named: dict[str, nn.Module | None] = {"student": counted.unet, "vae": players.student.vae}
    named |= {f"text_encoder_{i}": m for i, m in enumerate(players.student.text.encoders)}
    if players.teacher is not None:
        named["teacher"] = players.teacher.unet
    if players.teacher is not None and players.teacher is not players.student:
        named["teacher_vae"] = players.teacher.vae
        named |= {f"teacher_text_encoder_{i}": m for i, m in enumerate(players.teacher.text.encoders)}
    named |= {"features": players.features, "c_img": players.c_img, "heads": counted.heads}
    named["c_text"] = players.c_text.encoder if players.c_text is not None else None
    return {name: sum(p.numel() for p in m.parameters()) for name, m in named.items() if m is not None}


def _batch(players: Players, images: int) -> Batch:
    size, latents = players.student.resolution, players.student.latent_shape
    timesteps = torch.full((images,), 500)
    noise = torch.empty(images, *latents)
    real = torch.empty(images, 3, size, size)
    prompts = ("",) * images
    return Batch(real, prompts, timesteps, timesteps, noise, noise, draws=torch.Generator())


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
