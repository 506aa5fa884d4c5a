"""Train one student: `python -m add.train --spec spec.json --seed 0 --out results/mini/baseline/seed0`.

On several GPUs: `accelerate launch --multi_gpu --num_processes 8 -m add.train ...`, with `--use_fsdp` to shard the
student. Read `train` from top to bottom. Killed at any time and started again, it ends in the same bits: every draw is
a function of (seed, step), and a checkpoint holds all state that an update reads.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from add.batch import Batch, draw_batch, prefetched
from add.checkpoint import TrainingState
from add.config.load import load_run
from add.config.run import Run, Trained
from add.config.training import CacheSpec, OptimiserSpec
from add.data.contents import check_samples, data_digest
from add.data.images import left_out_line
from add.data.training_set import open_training_set
from add.device import add_device_option, make_deterministic, open_device
from add.diagnosis import diagnose
from add.distributed import (
    ALONE,
    Rank,
    average_gradients,
    average_values,
    check_ranks,
    from_first,
    is_sharded,
    join_processes,
    leave_processes,
    local,
    shard,
    whole,
    whole_tensors,
)
from add.errors import InputError, at_least, refuses
from add.files import whole_directory, write_json
from add.identity import METHOD, configuration_digest, networks_of, spec_hash
from add.lock import only_writer
from add.log import TrainLog, read_log
from add.models.diffusion import save_student, trainable_unet
from add.models.encoder_cache import add_cache_options, open_cache, stated_cache
from add.models.frozen import (
    FrozenNetworks,
    apply_options,
    check_networks,
    load_frozen_networks,
    make_heads,
    performance_of,
    plain_student,
    release_unused,
)
from add.models.hub import network_directory
from add.step import losses, student_output, target_of


def train(
    run: Run, seed: int, out: Path, device: str = "cpu", rank: Rank = ALONE, cache: CacheSpec | None = None
) -> None:
    """Train the run's student with one seed. Leaves `out`/student (its average, a diffusers pipeline) and `out`/train.

    rank: which slice of every batch this process takes (`add.distributed`); the first process writes.
    cache: keeps the frozen encoders' output on disk, which changes no bit of the result.

    Checkpoints under `out` that another spec made are set aside. Raises InputError where one was made with other
    networks or data, or by another number of processes, where the processes cannot split the batch, and where training
    data or weights are not as they should be.
    """
    # Initialise. The number of threads is part of the spec: the bits depend on it.
    settings, options = run.training, performance_of(run)
    adversarial = run.variant.loss.adversarial > 0
    check_ranks(rank, settings.batch // settings.accumulate, settings.virtual_batch if adversarial else None)
    torch.set_num_threads(settings.threads)
    make_deterministic(device)
    started = time.perf_counter()
    contents = from_first(rank, lambda: check_contents(run))
    encoders = open_cache(cache, run.data.train)
    networks = load_frozen_networks(run, device, encoders)
    student = networks.student
    data = open_training_set(run.data.train)
    if rank.first and (line := left_out_line(data)):
        print(f"data.train: {line}", file=sys.stderr)
    unet = trainable_unet(student, run.variant.student_init, seed)
    heads = make_heads(run, networks, student.resolution, seed)
    release_unused(networks)
    apply_options(options, networks, unet)
    if rank.sharded:
        shard(unet)
    average = [p.detach().clone() for p in unet.parameters()]
    eight_bit = options.eight_bit_optimiser
    modules: dict[str, nn.Module] = {"student": unet}
    optimisers = {"student_optimiser": make_optimiser(unet, settings.student_optimiser, eight_bit)}
    if heads is not None:
        modules["heads"] = heads
        optimisers["head_optimiser"] = make_optimiser(heads, settings.head_optimiser, eight_bit)

    # Load the latest checkpoint.
    checkpoints = out / "train" / "checkpoints"
    identity = {"spec": spec_hash(run), "seed": seed, "processes": rank.processes, **contents}
    state = TrainingState(modules, optimisers, average)
    step, note = state.resume(checkpoints, rank, identity)
    seconds = float(note.get("seconds", 0))

    form = (student.resolution, student.latent_shape)
    parts = product(range(step, settings.steps), range(settings.accumulate))
    batches = prefetched(partial(draw_batch, run, data, *form, seed, s, part, rank) for s, part in parts)

    setup_seconds = time.perf_counter() - started
    with (
        TrainLog(out / "train", step) if rank.first else nullcontext() as log,
        tqdm(total=settings.steps, initial=step, desc=run.name, mininterval=5, disable=not rank.first) as bar,
    ):
        while step < settings.steps:
            # Gradients, summed over the parts of the batch, averaged over the processes.
            tick = time.perf_counter()
            values: dict[str, Tensor] = {}
            for _ in range(settings.accumulate):
                batch = next(batches).to(device)
                with autocast(settings.precision, device):
                    student_loss, head_loss, part_values = losses(run, networks, unet, heads, batch)
                (student_loss / settings.accumulate).backward()
                if heads is not None and head_loss is not None:
                    # `inputs`: nobody needs the gradient of the features.
                    (head_loss / settings.accumulate).backward(inputs=list(heads.parameters()))
                values = {k: values.get(k, 0) + v / settings.accumulate for k, v in part_values.items()}
            for module in modules.values():
                average_gradients(rank, module)

            # Pictures of what this step's losses compared, before the update.
            if step % settings.pictures_every == 0:
                # In every process: a sharded student computes with all of them.
                with autocast(settings.precision, device):
                    rows = picture_rows(run, networks, unet, batch)
                if log is not None:
                    log.pictures(step, rows)

            # Update the student, the heads and the student's average.
            rates = update(
                optimisers["student_optimiser"], unet, settings.student_optimiser, step, settings.steps
            )
            if heads is not None:
                of_heads = update(
                    optimisers["head_optimiser"], heads, settings.head_optimiser, step, settings.steps
                )
                rates["head_grad_norm"] = of_heads["grad_norm"]
            update_average(average, unet, settings.ema)
            step += 1
            seconds += time.perf_counter() - tick

            # Log and save.
            if step % settings.log_every == 0 or step == settings.steps:
                numbers = {k: float(v) for k, v in average_values(rank, values).items()} | rates
                if not all(math.isfinite(v) for v in numbers.values()):
                    raise FloatingPointError(f"{run.name}, seed {seed}, step {step}: not finite: {numbers}")
                if log is not None:
                    log.scalars(step - 1, numbers)
                bar.set_postfix_str(
                    " ".join(f"{k} {numbers[k]:.3f}" for k in ("loss_g", "gap") if k in numbers)
                )
            bar.update()
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                state.save(checkpoints, step, rank, {**identity, "seconds": seconds})
    if encoders is not None:
        encoders.flush()

    # The student that is sampled is the average. Its directory appears whole or not at all.
    for parameter, mean in zip(unet.parameters(), average, strict=True):
        parameter.data.copy_(mean)
    averaged = whole_tensors(unet.state_dict(), keep=rank.first)
    if not rank.first:
        return
    with whole_directory(out / "student") as directory:
        save_student(
            *plain_student(run, rank, student, unet, averaged), settings.student_timesteps, directory
        )
    summary = {
        "wall_seconds": round(seconds + setup_seconds, 2),
        "setup_seconds": round(setup_seconds, 2),
        "seconds_per_step": round(seconds / settings.steps, 4),
        "steps": settings.steps,
        "images": settings.steps * settings.batch,
        "seed": seed,
        "spec_hash": identity["spec"],
        "method": METHOD,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": settings.threads,
        "processes": rank.processes,
        "torch": torch.__version__,
        **contents,
        "diagnosis": diagnose(read_log(out / "train")),
        "left_out": dict(data.left_out),
    }
    write_json(out / "train" / "train.json", summary)
    shutil.rmtree(checkpoints, ignore_errors=True)


def make_optimiser(
    module: nn.Module, settings: OptimiserSpec, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """AdamW over all parameters of `module`, in one fused kernel instead of hundreds of small ones.

    eight_bit: both moments of tensors above 4096 elements in 8 bits each, by bitsandbytes. Raises InputError where
    that is not installed, and for a sharded module, whose slices it does not know.
    """
    shared = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if not eight_bit:
        return torch.optim.AdamW(module.parameters(), fused=True, **shared)  # type: ignore[arg-type]
    if any(is_sharded(p) for p in module.parameters()):
        raise InputError(
            "training.performance.eight_bit_optimiser does not know sharded parameters: "
            "launch without --use_fsdp, or set it to false"
        )
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise InputError(
            "training.performance.eight_bit_optimiser needs bitsandbytes, which is not installed: "
            "pip install bitsandbytes, or set it to false"
        ) from None
    optimiser: torch.optim.Optimizer = AdamW8bit(module.parameters(), **shared)
    return optimiser


def update(
    optimiser: torch.optim.Optimizer, module: nn.Module, settings: OptimiserSpec, step: int, steps: int
) -> dict[str, float]:
    """Clip, set the rate of `step` (linear warm-up, then constant or cosine), update; returns values to log."""
    rate = settings.lr * min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate
    limit = settings.clip if settings.clip is not None else math.inf
    norm = nn.utils.clip_grad_norm_(module.parameters(), limit)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return {"lr": rate, "grad_norm": float(whole(norm))}


@torch.no_grad()
def update_average(average: Sequence[Tensor], module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * parameters, in place."""
    torch._foreach_lerp_([local(a) for a in average], [local(p) for p in module.parameters()], 1 - decay)


def check_contents(run: Trained) -> dict[str, Any]:
    """SHA-256 of what the run reads: `weights` and `configurations` by network, and the training `data`.

    Raises WeightsError where weights are not those that the settings name, InputError with every sample of the training
    data that is missing or cannot be used.
    """
    configurations = {
        name: configuration_digest(network_directory(network)) for name, network in networks_of(run).items()
    }
    weights, data = check_networks(run), data_digest(run.data.train)
    check_samples(run.data.train, data)
    return {"weights": weights, "configurations": configurations, "data": data}


def is_finished(out: Path, facts: Mapping[str, Any]) -> bool:
    """Whether `out` holds, whole, the training of these facts of its train.json: its student, its log and that file."""
    file = out / "train" / "train.json"
    if not all(path.exists() for path in (file, out / "train" / "log.jsonl", out / "student")):
        return False
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: found[name] for name in facts} == facts


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Autocast to bf16 where `precision` is bf16."""
    if precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    return nullcontext()


@torch.no_grad()
def picture_rows(
    run: Run, networks: FrozenNetworks, unet: nn.Module, batch: Batch, n: int = 8
) -> dict[str, Tensor]:
    """Rows of up to `n` images (n, 3, H, W): real images, student outputs and, with distillation, teacher targets."""
    latents, images = student_output(run, networks, unet, batch)
    rows = {"real": batch.real[:n], "student": images[:n]}
    if networks.teacher is not None:
        target, _ = target_of(run, networks, latents, images, batch)
        pixels = run.variant.loss.space == "pixel"
        rows["target"] = (target if pixels else networks.teacher.decode(target))[:n]
    return rows


@refuses
def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m add.train", description=__doc__)
    parser.add_argument(
        "--spec", type=Path, required=True, help="resolved run, as JSON (addbench show RUN --json)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="training seed")
    parser.add_argument("--out", type=Path, required=True, help="directory of this run and seed")
    add_device_option(parser)
    add_cache_options(parser)
    arguments = parser.parse_args()
    cache = stated_cache(arguments)
    run, seed, out = load_run(arguments.spec), arguments.seed, arguments.out
    device = open_device(arguments.device, run.training.device, run.training.threads)
    rank, device = join_processes(device)
    facts = {"spec_hash": spec_hash(run), "seed": seed, "processes": rank.processes}
    # One process writes, so one takes the lock; the others wait for it in from_first.
    with only_writer(out) if rank.first else nullcontext(False) as waited:
        if from_first(rank, lambda: waited and is_finished(out, facts)):
            print(f"{out}: the process that wrote there has finished this very training", file=sys.stderr)
        else:
            train(run, seed, out, device, rank, cache)
    leave_processes(rank)


if __name__ == "__main__":
    sys.exit(main())
