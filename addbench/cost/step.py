"""What does a run's training step need? Bytes and floating-point operations, counted and not measured.

The real networks are built from their configurations without weights, and one step of both players runs on tensors
that have shapes but no values: every tensor that would be alive is counted, and every matrix product and convolution.
Not counted: the libraries' workspaces, the allocator's fragmentation and the device's own context (leave a tenth),
the augmentation's copies of the images, and what the optimiser allocates for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator
from add.losses import distillation_loss
from add.models.diffusion import trainable_unet
from add.models.frozen import FrozenNetworks, conditions, make_heads
from add.models.performance import apply_options, performance_of, release_unused
from add.step import adversarial_losses, student_output
from addbench.cost.meters import Flops, LiveBytes, norms_as_on_cuda
from addbench.cost.random_init import build_frozen_networks

if TYPE_CHECKING:
    from add.config.run import Run


_BLOCK, _SMALLEST = 256, 4096  # of an 8-bit optimiser: elements to a scale, elements of a tensor worth it


@dataclass(frozen=True)
class Counted:
    """A step's networks, its most bytes alive beside their weights, and its floating-point operations."""

    players: FrozenNetworks
    unet: nn.Module
    heads: Discriminator | None
    frozen: tuple[nn.Module, ...]
    peak_bytes: int
    flops: int


def count_step(run: Run, images: int, configurations: Mapping[str, str] | None = None) -> Counted:
    """Count one part of a step, of so many images: forward and backward passes of both players.

    Raises as `addbench.cost.random_init.build_players`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    players = build_frozen_networks(run, "meta", configurations)
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
    run: Run, players: FrozenNetworks, unet: Any, heads: Discriminator | None, batch: Batch
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


def frozen_modules(players: FrozenNetworks) -> list[nn.Module]:
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


def _batch(players: FrozenNetworks, images: int) -> Batch:
    size, latents = players.student.resolution, players.student.latent_shape
    timesteps = torch.full((images,), 500)
    noise = torch.empty(images, *latents)
    real = torch.empty(images, 3, size, size)
    prompts = ("",) * images
    return Batch(real, prompts, timesteps, timesteps, noise, noise, draws=torch.Generator())


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")


MARGIN = 1.1
"""Device memory for a byte that is counted: workspaces, fragmentation and context are not."""


@dataclass(frozen=True)
class Cost:
    """Of one process. parameters: by network; the bytes are of what lives through the whole training.

    step_bytes: the most that a step adds to them, gradients among it. step_flops: of all parts of an optimiser
    step; a multiplication and an addition are two. step_images: images an optimiser step.
    """

    parameters: Mapping[str, int]
    frozen_bytes: int
    trained_bytes: int
    average_bytes: int
    moment_bytes: int
    step_bytes: int
    step_flops: int
    step_images: int

    @property
    def peak_bytes(self) -> int:
        """The most that is alive at a time."""
        kept = self.frozen_bytes + self.trained_bytes + self.average_bytes + self.moment_bytes
        return kept + self.step_bytes

    @property
    def needed_bytes(self) -> int:
        """Memory of a device that will do: the peak, and the margin for what is not counted."""
        return int(self.peak_bytes * MARGIN)


def estimate_cost(
    run: Run,
    processes: int = 1,
    sharded: bool = False,
    configurations: Mapping[str, str] | None = None,
) -> Cost:
    """The cost of a run to each of `processes`; `sharded`: the student's UNet is cut over them.

    configurations: as in `addbench.cost.random_init.build_players`. Sharded figures leave out the one block at a time
    that is gathered. Raises ValueError where the processes cannot share the batch, and as the builders do.
    """
    from add.distributed import Rank, check_rank

    settings = run.training
    part = settings.batch // settings.accumulate
    judged = run.variant.loss.adversarial > 0
    check_rank(Rank(0, processes), part, settings.virtual_batch if judged else None)
    counted = count_step(run, part // processes, configurations)
    cut = processes if sharded else 1
    eight_bit = settings.performance is not None and settings.performance.eight_bit_optimiser
    heads = [counted.heads] if counted.heads is not None else []
    student = module_bytes([counted.unet])
    return Cost(
        parameters=parameter_counts(counted),
        frozen_bytes=module_bytes(counted.frozen),
        trained_bytes=student // cut + module_bytes(heads),
        average_bytes=student // cut,
        moment_bytes=moment_bytes(counted.unet, eight_bit) // cut
        + sum(moment_bytes(m, eight_bit) for m in heads),
        step_bytes=counted.peak_bytes - (student - student // cut),
        step_flops=counted.flops * settings.accumulate,
        step_images=part // processes * settings.accumulate,
    )
