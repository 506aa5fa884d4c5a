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
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from add.batch import Batch, draw_batch
from add.checkpoint import (
    check_identity,
    latest_checkpoint,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from add.config.data import CACHED, CacheSpec
from add.config.load import load_run
from add.config.resolve import spec_hash
from add.config.run import Run
from add.data.training_set import open_training_set
from add.distributed import (
    WHOLE,
    Rank,
    average_gradients,
    average_values,
    check_equal,
    check_rank,
    from_first,
    join_processes,
    leave_processes,
    placed,
    shard,
    whole_tensors,
)
from add.files import write_whole
from add.log import TrainLog
from add.models.diffusion import save_student, trainable_unet
from add.models.encoder_cache import open_cache
from add.models.frozen import check_networks, load_frozen_networks, make_heads
from add.models.performance import apply_options, performance_of, plain_student, release_unused
from add.optimiser import make_optimiser, update, update_average
from add.step import losses, student_output, target_of


def train(
    run: Run,
    seed: int,
    out: Path,
    device: str = "cpu",
    share: Rank = WHOLE,
    kept: CacheSpec | None = None,
) -> None:
    """Train the run's student with one seed; leaves `out`/student (EMA weights) and `out`/train.

    share: what this process takes of every batch (`add.distributed`); the first one writes. kept: what of the encoders'
    output is kept on disk, which changes no bit of the result.
    Raises ValueError where a checkpoint under `out` belongs to another spec, seed or number of processes, and where
    the processes cannot share the batch; InputError where the training data are not right.
    """
    # Initialise. The number of threads is part of the spec: the bits depend on it.
    settings, options = run.training, performance_of(run)
    judged = run.variant.loss.adversarial > 0
    check_rank(share, settings.batch // settings.accumulate, settings.virtual_batch if judged else None)
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory before it is written; filling every new tensor costs 3 to 5% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    started = time.perf_counter()
    weights = from_first(share, lambda: check_networks(run))
    cache = open_cache(kept, run.data.train)
    players = load_frozen_networks(run, device, cache)
    student = players.student
    resolution, latent = student.resolution, student.latent_shape
    data = open_training_set(run.data.train)
    unet = trainable_unet(student, run.variant.student_init, seed)
    heads = make_heads(run, players, resolution, seed)
    release_unused(players)
    apply_options(options, players, unet)
    if share.sharded:
        shard(unet)
    average = [p.detach().clone() for p in unet.parameters()]
    eight_bit = options.eight_bit_optimiser
    student_optimiser = make_optimiser(unet, settings.student_optimiser, eight_bit)
    head_optimiser = make_optimiser(heads, settings.head_optimiser, eight_bit) if heads is not None else None

    # Load the latest checkpoint.
    checkpoints = out / "train" / "checkpoints"
    identity = {"spec": spec_hash(run), "seed": seed, "processes": share.processes}
    step, seconds = 0, 0.0
    newest = from_first(share, lambda: latest_checkpoint(checkpoints))
    if newest is not None:
        tensors, note = load_checkpoint(newest)
        check_identity(newest, note, identity)
        step, seconds = int(note["step"]), float(note["seconds"])
        state = unet.state_dict()
        unet.load_state_dict({k: placed(v, state[k]) for k, v in without_prefix("student", tensors).items()})
        average = [placed(tensors[f"average/{i}"], mean) for i, mean in enumerate(average)]
        restore_optimiser(student_optimiser, without_prefix("student_optimiser", tensors))
        if heads is not None and head_optimiser is not None:
            heads.load_state_dict(without_prefix("heads", tensors))
            restore_optimiser(head_optimiser, without_prefix("head_optimiser", tensors))

    setup_seconds = time.perf_counter() - started
    with (
        TrainLog(out / "train", step) if share.first else nullcontext() as log,
        tqdm(
            total=settings.steps, initial=step, desc=run.name, mininterval=5, disable=not share.first
        ) as bar,
    ):
        while step < settings.steps:
            # Gradients, summed over the parts of the batch, averaged over the processes.
            tick = time.perf_counter()
            values: dict[str, Tensor] = {}
            for part in range(settings.accumulate):
                batch = draw_batch(
                    run, data, resolution, latent, seed, step, part, device, share, keyed=cache is not None
                )
                with autocast(settings.precision, device):
                    student_loss, head_loss, part_values = losses(run, players, unet, heads, batch)
                (student_loss / settings.accumulate).backward()
                if heads is not None and head_loss is not None:
                    # Named, since the gradient of their inputs is for nobody.
                    (head_loss / settings.accumulate).backward(inputs=list(heads.parameters()))
                values = {k: values.get(k, 0) + v / settings.accumulate for k, v in part_values.items()}
            for player in (unet, heads) if heads is not None else (unet,):
                average_gradients(share, player)

            # Pictures, before the update, of what this step's losses compared.
            if step % settings.pictures_every == 0:
                # In every process: a sharded student computes with all of them.
                with autocast(settings.precision, device):
                    rows = picture_rows(run, players, unet, batch)
                if log is not None:
                    log.pictures(step, rows)

            # Update both players and the average.
            rate = update(student_optimiser, unet, settings.student_optimiser, step, settings.steps)
            if heads is not None and head_optimiser is not None:
                update(head_optimiser, heads, settings.head_optimiser, step, settings.steps)
            update_average(average, unet, settings.ema)
            step += 1
            seconds += time.perf_counter() - tick

            # Log and save.
            if step % settings.log_every == 0 or step == settings.steps:
                numbers = {k: float(v) for k, v in average_values(share, values).items()} | rate
                if not all(math.isfinite(v) for v in numbers.values()):
                    raise FloatingPointError(f"{run.name}, seed {seed}, step {step}: not finite: {numbers}")
                if log is not None:
                    log.scalars(step - 1, numbers)
                bar.set_postfix_str(
                    " ".join(f"{k} {numbers[k]:.3f}" for k in ("loss_g", "gap") if k in numbers)
                )
            bar.update()
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                check_equal(share, unet, "student")
                state = with_prefix("student", unet.state_dict())
                state |= {f"average/{i}": p for i, p in enumerate(average)}
                state |= with_prefix("student_optimiser", optimiser_tensors(student_optimiser))
                if heads is not None and head_optimiser is not None:
                    check_equal(share, heads, "heads")
                    state |= with_prefix("heads", heads.state_dict())
                    state |= with_prefix("head_optimiser", optimiser_tensors(head_optimiser))
                state = whole_tensors(state, keep=share.first)
                if share.first:
                    save_checkpoint(checkpoints, step, state, {**identity, "seconds": seconds})
    if cache is not None:
        cache.flush()

    # The student that is sampled is the average. The directory appears whole or not at all.
    for parameter, mean in zip(unet.parameters(), average, strict=True):
        parameter.data.copy_(mean)
    state = whole_tensors(unet.state_dict(), keep=share.first)
    if not share.first:
        return
    partial = out / ".student.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_student(*plain_student(run, share, student, unet, state), settings.student_timesteps, partial)
    shutil.rmtree(out / "student", ignore_errors=True)
    partial.rename(out / "student")
    summary = {
        "wall_seconds": round(seconds + setup_seconds, 2),
        "setup_seconds": round(setup_seconds, 2),
        "seconds_per_step": round(seconds / settings.steps, 4),
        "steps": settings.steps,
        "images": settings.steps * settings.batch,
        "seed": seed,
        "spec_hash": identity["spec"],
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": settings.threads,
        "processes": share.processes,
        "torch": torch.__version__,
        "weights": weights,
    }
    write_whole(out / "train" / "train.json", json.dumps(summary, indent=2) + "\n")
    shutil.rmtree(checkpoints, ignore_errors=True)


@torch.no_grad()
def picture_rows(run: Run, players: Any, unet: nn.Module, batch: Batch, n: int = 8) -> dict[str, Tensor]:
    """Rows of up to `n` images: real, the student's outputs and, where it distils, the teacher's targets."""
    latents, images = student_output(run, players, unet, batch)
    rows = {"real": batch.real[:n], "student": images[:n]}
    if players.teacher is not None:
        target, _ = target_of(run, players, latents, images, batch)
        rows["target"] = (target if run.variant.loss.space == "pixel" else players.teacher.decode(target))[:n]
    return rows


@contextmanager
def autocast(name: str, device: str) -> Iterator[None]:
    """Autocast to bf16 where the spec says so."""
    if name == "bf16":
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            yield
    else:
        yield


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m add.train", description=__doc__)
    parser.add_argument(
        "--spec", type=Path, required=True, help="resolved run, as JSON (addbench show RUN --json)"
    )
    parser.add_argument("--seed", type=int, default=0, help="training seed")
    parser.add_argument("--out", type=Path, required=True, help="directory of this run and seed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cache", metavar="DIRECTORY", help="keep what the encoders make of the data there")
    parser.add_argument(
        "--keep", nargs="+", choices=CACHED, default=CACHED, help="what is kept (default: all)"
    )
    arguments = parser.parse_args()
    kept = CacheSpec(directory=arguments.cache, keep=tuple(arguments.keep)) if arguments.cache else None
    share, device = join_processes(arguments.device)
    train(load_run(arguments.spec), arguments.seed, arguments.out, device, share, kept)
    leave_processes(share)


if __name__ == "__main__":
    main()
