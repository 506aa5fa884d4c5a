"""What does a run's training step need? Bytes and floating-point operations, counted without running it.

The real networks are built from their configurations without weights; one step of student and heads runs on tensors
that have shapes but no values: every tensor that would be alive is counted, and every matrix product and convolution.
Not counted: the libraries' workspaces, the allocator's fragmentation and the device's own context (leave a tenth),
the augmentation's copies of the images, and what the optimiser allocates for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator
from add.losses import distillation_loss
from add.models.diffusion import trainable_unet
from add.models.frozen import FrozenNetworks, apply_options, make_heads, performance_of, release_unused
from add.step import adversarial_losses, student_output
from addbench.cost.meters import Flops, LiveBytes, norms_as_on_cuda
from addbench.cost.random_init import build_frozen_networks

_BLOCK, _SMALLEST = 256, 4096  # of an 8-bit optimiser: elements to a scale, elements of a tensor worth it


@dataclass(frozen=True)
class Counted:
    """A step's networks, the most bytes alive beside their weights, and its floating-point operations."""

    networks: FrozenNetworks
    unet: nn.Module
    heads: Discriminator | None
    frozen: tuple[nn.Module, ...]
    peak_bytes: int
    flops: int


def count_step(run: Run, images: int, configurations: Mapping[str, str] | None = None) -> Counted:
    """Count one part of a step, of `images` images: forward and backward passes of student and heads.

    Raises as `addbench.cost.random_init.build_frozen_networks`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    networks = build_frozen_networks(run, "meta", configurations)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, networks.student.resolution, 0)
    release_unused(networks)
    apply_options(performance_of(run).model_copy(update={"compile": False}), networks, unet)
    frozen = frozen_modules(networks)
    half = run.training.precision == "bf16"
    with FakeTensorMode(allow_non_fake_inputs=True), Flops() as flops:
        for module in (unet, *frozen, *((heads,) if heads is not None else ())):
            lay_out(module)
            if half:
                norms_as_on_cuda(module)
        trained = [*unet.parameters(), *(heads.parameters() if heads is not None else ())]
        batch = _batch(networks, images)
        with LiveBytes() as live:
            if run.training.accumulate > 1:  # the parts before have left their gradients
                for parameter in trained:
                    parameter.grad = torch.empty_like(parameter)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                of_student, of_heads = step_losses(run, networks, unet, heads, batch)
            of_student.backward()
            if heads is not None and of_heads is not None:
                of_heads.backward(inputs=list(heads.parameters()))
            most = live.most
    return Counted(networks, unet, heads, tuple(frozen), most, flops.total)


def step_losses(
    run: Run, networks: FrozenNetworks, unet: Any, heads: Discriminator | None, batch: Batch
) -> tuple[Tensor, Tensor | None]:
    """The losses of student and heads as `add.step.losses` computes them, without its decisions about values."""
    variant = run.variant
    latents, images = student_output(run, networks, unet, batch)
    loss = torch.zeros((), device=images.device)
    if networks.teacher is not None:
        teacher = networks.teacher
        with torch.no_grad():
            x0 = latents.detach() if networks.shared_latents else teacher.encode(images.detach())
            text = teacher.embed(batch.prompts)
            outputs = [teacher.predict(x0, batch.t, text) for _ in range(teacher_passes(run))]
            target = teacher.decode(outputs[-1]) if variant.loss.space == "pixel" else outputs[-1]
        ours = images if variant.loss.space == "pixel" else latents
        ones = torch.ones(len(ours))
        loss = loss + distillation_loss(ours, target, ones, variant.loss.reduction, latents[0, 0].numel())
    if heads is None or networks.features is None:
        return loss, None
    given = networks.conditions(batch.real, batch.prompts)
    fake = networks.features(images)
    with torch.no_grad():
        real = networks.features(batch.real)
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


def frozen_modules(networks: FrozenNetworks) -> list[nn.Module]:
    """Every frozen network that is in memory, each once."""
    student, teacher = networks.student, networks.teacher
    found = dict.fromkeys((student.vae, *student.text.encoders))  # its UNet is released
    if teacher is not None:
        found |= dict.fromkeys((teacher.unet, teacher.vae, *teacher.text.encoders))
    return [*found, *networks.side_networks.values()]


def lay_out(module: nn.Module) -> None:
    """Replace the tensors of a module on `meta` by ones of the active FakeTensorMode on the CPU, in place."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, old in held.items():
                if old is None or not old.is_meta:
                    continue
                new = torch.empty_strided(old.size(), old.stride(), dtype=old.dtype, device="cpu")
                held[name] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new  # type: ignore[assignment]


def module_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the modules' parameters and buffers."""
    tensors = {t for m in modules for t in (*m.parameters(), *m.buffers())}  # by identity
    return sum(t.nbytes for t in tensors)


def moment_bytes(module: nn.Module, eight_bit: bool) -> int:
    """Bytes of AdamW's two moments; in 8 bits, with the scale of each block of the larger tensors."""
    sizes = [p.numel() for p in module.parameters()]
    if not eight_bit:
        return sum(8 * n for n in sizes)
    return sum(2 * n + 8 * -(-n // _BLOCK) if n >= _SMALLEST else 8 * n for n in sizes)


def parameter_counts(counted: Counted) -> dict[str, int]:
    """Parameters by network: the student and the heads are trained, the others frozen."""
    networks = counted.networks
    teacher = networks.teacher if networks.teacher is not networks.student else None
    named: dict[str, nn.Module | None] = {"student": counted.unet, "heads": counted.heads}
    for prefix, pipeline in (("", networks.student), ("teacher_", teacher)):
        if pipeline is not None:
            named[f"{prefix}vae"] = pipeline.vae
            named |= {f"{prefix}text_encoder_{i}": m for i, m in enumerate(pipeline.text.encoders)}
    named["teacher"] = networks.teacher.unet if networks.teacher is not None else None
    named |= networks.side_networks
    return {name: sum(p.numel() for p in m.parameters()) for name, m in named.items() if m is not None}


def _batch(networks: FrozenNetworks, images: int) -> Batch:
    size, timesteps = networks.student.resolution, torch.full((images,), 500)
    noise = torch.empty(images, *networks.student.latent_shape)
    real, prompts = torch.empty(images, 3, size, size), ("",) * images
    return Batch(real, prompts, timesteps, timesteps, noise, noise, draws=torch.Generator())


MARGIN = 1.1
"""Device memory for each counted byte: workspaces, fragmentation and context are not counted."""


@dataclass(frozen=True)
class Cost:
    """The cost to one process. parameters: by network.

    frozen_bytes to moment_bytes live through the whole training; step_bytes is the most that a step adds, gradients
    included. step_flops: of all parts of an optimiser step; a multiplication and an addition are two operations.
    step_images: images in an optimiser step.
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
    run: Run, processes: int = 1, sharded: bool = False, configurations: Mapping[str, str] | None = None
) -> Cost:
    """The cost of a run to each of `processes`; `sharded`: the student's UNet is cut over them.

    configurations: as in `addbench.cost.random_init.build_frozen_networks`. Sharded figures leave out the one block
    that is gathered at a time. Raises ValueError where the processes cannot share the batch, and as the builders do.
    """
    from add.distributed import Rank, check_ranks

    settings = run.training
    part = settings.batch // settings.accumulate
    judged = run.variant.loss.adversarial > 0
    check_ranks(Rank(0, processes), part, settings.virtual_batch if judged else None)
    counted = count_step(run, part // processes, configurations)
    cut = processes if sharded else 1
    eight_bit = settings.performance is not None and settings.performance.eight_bit_optimiser
    heads = [counted.heads] if counted.heads is not None else []
    student, moments = module_bytes([counted.unet]), moment_bytes(counted.unet, eight_bit)
    return Cost(
        parameters=parameter_counts(counted),
        frozen_bytes=module_bytes(counted.frozen),
        trained_bytes=student // cut + module_bytes(heads),
        average_bytes=student // cut,
        moment_bytes=moments // cut + sum(moment_bytes(m, eight_bit) for m in heads),
        step_bytes=counted.peak_bytes - (student - student // cut),
        step_flops=counted.flops * settings.accumulate,
        step_images=part // processes * settings.accumulate,
    )
