"""Train one student: `python -m add.train --spec spec.json --seed 0 --out results/mini/baseline/seed0`.

Read `train` from top to bottom. Killed at any time and started again, it ends in the same bits: every draw is a
function of (seed, step), and a checkpoint holds all state that an update reads.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from add.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from add.data.captioned import load_coco
from add.files import write_whole
from add.networks import trainable_unet
from add.pipelines import save_student
from add.resolve import load_run, spec_hash
from add.spec import Optimiser, Run
from add.step import (
    Batch,
    check_networks,
    draw_batch,
    load_players,
    losses,
    make_heads,
    student_output,
    target_of,
)
from add.trainlog import TrainLog


def train(run: Run, seed: int, out: Path, device: str = "cpu") -> None:
    """Train the run's student with one seed; leaves `out`/student (EMA weights) and `out`/train.

    Raises ValueError where a checkpoint under `out` belongs to another spec or seed.
    """
    # Initialise. The number of threads is part of the spec: the bits depend on it.
    settings = run.training
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory before it is written; filling every new tensor costs 3 to 5% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    started = time.perf_counter()
    weights = check_networks(run)
    players = load_players(run, device)
    student = players.student
    resolution, latent = student.resolution, student.latent_shape
    data = load_coco(Path(run.data.train.images), Path(run.data.train.annotations))
    unet = trainable_unet(student, run.variant.student_init, seed)
    heads = make_heads(run, players, resolution, seed)
    average = [p.detach().clone() for p in unet.parameters()]
    student_optimiser = make_optimiser(unet, settings.student_optimiser)
    head_optimiser = make_optimiser(heads, settings.head_optimiser) if heads is not None else None

    # Load the latest checkpoint.
    checkpoints = out / "train" / "checkpoints"
    identity = {"spec": spec_hash(run), "seed": seed}
    step, seconds = 0, 0.0
    newest = latest_checkpoint(checkpoints)
    if newest is not None:
        tensors, note = load_checkpoint(newest)
        check_identity(newest, note, identity)
        step, seconds = int(note["step"]), float(note["seconds"])
        unet.load_state_dict(without_prefix("student", tensors))
        average = [tensors[f"average/{i}"] for i in range(len(average))]
        restore_optimiser(student_optimiser, without_prefix("student_optimiser", tensors))
        if heads is not None and head_optimiser is not None:
            heads.load_state_dict(without_prefix("heads", tensors))
            restore_optimiser(head_optimiser, without_prefix("head_optimiser", tensors))

    setup_seconds = time.perf_counter() - started
    with (
        TrainLog(out / "train", step) as log,
        tqdm(total=settings.steps, initial=step, desc=run.name, mininterval=5) as bar,
    ):
        while step < settings.steps:
            # Gradients, summed over the parts of the batch.
            tick = time.perf_counter()
            values: dict[str, Tensor] = {}
            for part in range(settings.accumulate):
                batch = draw_batch(run, data, resolution, latent, seed, step, part, device)
                with precision(settings.precision, device):
                    student_loss, head_loss, part_values = losses(run, players, unet, heads, batch)
                (student_loss / settings.accumulate).backward()
                if head_loss is not None:
                    (head_loss / settings.accumulate).backward()
                values = {k: values.get(k, 0) + v / settings.accumulate for k, v in part_values.items()}

            # Pictures, before the update, of what this step's losses compared.
            if step % settings.pictures_every == 0:
                log.pictures(step, picture_rows(run, players, unet, batch))

            # Update both players and the average.
            rate = update(student_optimiser, unet, settings.student_optimiser, step, settings.steps)
            if heads is not None and head_optimiser is not None:
                update(head_optimiser, heads, settings.head_optimiser, step, settings.steps)
            torch._foreach_lerp_(average, [p.detach() for p in unet.parameters()], 1 - settings.ema)
            step += 1
            seconds += time.perf_counter() - tick

            # Log and save.
            if step % settings.log_every == 0 or step == settings.steps:
                numbers = {k: float(v) for k, v in values.items()} | rate
                if not all(math.isfinite(v) for v in numbers.values()):
                    raise FloatingPointError(f"{run.name}, seed {seed}, step {step}: not finite: {numbers}")
                log.scalars(step - 1, numbers)
                bar.set_postfix_str(
                    " ".join(f"{k} {numbers[k]:.3f}" for k in ("loss_g", "gap") if k in numbers)
                )
            bar.update()
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                state = with_prefix("student", unet.state_dict())
                state |= {f"average/{i}": p for i, p in enumerate(average)}
                state |= with_prefix("student_optimiser", optimiser_tensors(student_optimiser))
                if heads is not None and head_optimiser is not None:
                    state |= with_prefix("heads", heads.state_dict())
                    state |= with_prefix("head_optimiser", optimiser_tensors(head_optimiser))
                save_checkpoint(checkpoints, step, state, {**identity, "seconds": seconds})

    # The student that is sampled is the average. The directory appears whole or not at all.
    for parameter, mean in zip(unet.parameters(), average, strict=True):
        parameter.data.copy_(mean)
    partial = out / ".student.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_student(student, unet, settings.student_timesteps, partial)
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
        "torch": torch.__version__,
        "weights": weights,
    }
    write_whole(out / "train" / "train.json", json.dumps(summary, indent=2) + "\n")
    shutil.rmtree(checkpoints, ignore_errors=True)


def make_optimiser(module: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    """AdamW over all parameters of `module`, one kernel for all of them: hundreds of small ones on a CPU or GPU."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def update(
    optimiser: torch.optim.Optimizer, module: nn.Module, settings: Optimiser, step: int, steps: int
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
    return {"lr": rate, "grad_norm": float(norm)}


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
def precision(name: str, device: str) -> Iterator[None]:
    """Autocast to bf16 where the spec says so."""
    if name == "bf16":
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            yield
    else:
        yield


def check_identity(file: Path, note: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise ValueError where a checkpoint was made by another spec or seed."""
    for key, value in identity.items():
        if note.get(key) != value:
            raise ValueError(
                f"{file}: belongs to {key} {note.get(key)!r}, this run has {value!r}; "
                f"remove {file.parent} to train anew"
            )


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m add.train", description=__doc__)
    parser.add_argument(
        "--spec", type=Path, required=True, help="resolved run, as JSON (addbench show RUN --json)"
    )
    parser.add_argument("--seed", type=int, default=0, help="training seed")
    parser.add_argument("--out", type=Path, required=True, help="directory of this run and seed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(load_run(arguments.spec), arguments.seed, arguments.out, arguments.device)


if __name__ == "__main__":
    main()
