"""Train one rival: `python -m baselines.train --spec rival.json --seed 0 --out results/mini/rivals/lcm/seed0`.

As `add.train`, with the method's own update in the place of ADD's: the same networks, data, order of samples, crops and
draws, the student's average, checkpoints, log and files. One process, in float32. Killed at any time and started
again, it ends in the same bits: every draw is a function of (seed, step), stages are functions of the step, and a
checkpoint holds all modules and moments that an update reads.
"""

from __future__ import annotations

import argparse
import math
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from add.batch import Batch, draw_batch, prefetched
from add.checkpoint import TrainingState
from add.config.training import CacheSpec
from add.data.images import left_out_line
from add.data.training_set import open_training_set
from add.device import add_device_option, make_deterministic, open_device
from add.distributed import ALONE
from add.errors import at_least, refuses
from add.files import whole_directory, write_json
from add.lock import only_writer
from add.log import TrainLog
from add.models.diffusion import student_x0
from add.models.encoder_cache import EncoderCache, add_cache_options, open_cache, stated_cache
from add.train import check_contents, is_finished, update_average
from baselines.method import RivalMethod
from baselines.spec import RivalSpec, load_rival, rival_hash

PACKAGES = ("torch", "diffusers", "transformers", "peft")
Calls = dict[str, dict[str, int]]
"""By kind of network: images that went through it, and how many of these with a graph for the gradient."""


def train(spec: RivalSpec, seed: int, out: Path, device: str = "cpu", cache: CacheSpec | None = None) -> None:
    """Train the rival with one seed. Leaves `out`/student (its average, a diffusers pipeline) and `out`/train.

    cache: keeps the frozen encoders' output on disk, which changes no bit of the result.

    Checkpoints under `out` that another spec made are set aside. Raises InputError where one was made with other
    networks or data, and where training data or weights are not as they should be.
    """
    settings = spec.training
    torch.set_num_threads(settings.threads)
    make_deterministic(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    contents = check_contents(spec)
    encoders = open_cache(cache, spec.data.train)
    method = make_method(spec, seed, device, encoders)
    data = open_training_set(spec.data.train)
    if line := left_out_line(data):
        print(f"data.train: {line}", file=sys.stderr)
    average = [p.detach().clone() for p in method.student.parameters()]

    # Load the latest checkpoint.
    checkpoints = out / "train" / "checkpoints"
    identity = {"spec": rival_hash(spec), "seed": seed, **contents}
    optimisers = {f"{name}_optimiser": optimiser for name, optimiser in method.optimisers.items()}
    state = TrainingState(method.modules, optimisers, average)
    step, note = state.resume(checkpoints, ALONE, identity)
    calls: Calls = note.get("calls", {kind: {"images": 0, "differentiated": 0} for kind in method.counted})
    wall, cpu = float(note.get("seconds", 0)), float(note.get("cpu_seconds", 0))

    form = (method.network.resolution, method.network.latent_shape)
    batches = prefetched(
        partial(draw_batch, spec, data, *form, seed, s, 0) for s in range(step, settings.steps)
    )
    setup_seconds = time.perf_counter() - started

    def spent() -> dict[str, float]:
        return {
            "seconds": wall + time.perf_counter() - started,
            "cpu_seconds": cpu + time.process_time() - cpu_started,
        }

    with (
        TrainLog(out / "train", step) as log,
        tqdm(total=settings.steps, initial=step, desc=spec.name, mininterval=5) as bar,
    ):
        while step < settings.steps:
            batch = next(batches).to(device)
            with counted(method, calls):
                values = method.update(batch, step)
            update_average(average, method.student, settings.ema)
            if step % settings.pictures_every == 0:
                log.pictures(step, picture_rows(method, batch))
            step += 1
            if step % settings.log_every == 0 or step == settings.steps:
                numbers = {name: float(value) for name, value in values.items()}
                if not all(math.isfinite(number) for number in numbers.values()):
                    raise FloatingPointError(f"{spec.name}, seed {seed}, step {step}: not finite: {numbers}")
                log.scalars(step - 1, numbers)
            bar.update()
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                state.save(checkpoints, step, ALONE, {**identity, **spent(), "calls": calls})
    if encoders is not None:
        encoders.flush()

    # The student that is sampled is the average. Its directory appears whole or not at all.
    for parameter, mean in zip(method.student.parameters(), average, strict=True):
        parameter.data.copy_(mean)
    with whole_directory(out / "student") as directory:
        method.save(directory)
    seconds = spent()
    summary = {
        "wall_seconds": round(seconds["seconds"], 2),
        "cpu_seconds": round(seconds["cpu_seconds"], 2),
        "setup_seconds": round(setup_seconds, 2),
        "steps": settings.steps,
        "images": settings.steps * settings.batch,
        "calls": calls,
        "seed": seed,
        "spec_hash": identity["spec"],
        "rival": spec.rival.kind,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": settings.threads,
        "versions": versions(),
        **contents,
        "left_out": dict(data.left_out),
    }
    write_json(out / "train" / "train.json", summary)
    shutil.rmtree(checkpoints, ignore_errors=True)


def make_method(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method that the spec names: baselines/<method>.py has a function `make`."""
    module = import_module(f"baselines.{spec.rival.kind}")
    made: RivalMethod = module.make(spec, seed, device, cache)
    return made


@contextmanager
def counted(method: RivalMethod, calls: Calls) -> Iterator[None]:
    """Count the images that go through the method's networks, in place, inside the block."""

    def look(kind: str, _: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        result = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        calls[kind]["images"] += len(given[0])
        if getattr(result, "requires_grad", False):
            calls[kind]["differentiated"] += len(given[0])

    hooks = [module.register_forward_hook(partial(look, kind)) for kind, module in method.counted.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def picture_rows(method: RivalMethod, batch: Batch, n: int = 8) -> dict[str, Tensor]:
    """Rows of up to `n` images (n, 3, H, W): real ones, and the student's of their captions in one step from noise."""
    network, noise = method.network, batch.noise[:n]
    last = torch.full((len(noise),), len(network.schedule) - 1, device=noise.device)
    text = network.embed(batch.prompts[:n])
    x0 = student_x0(network, method.student, torch.zeros_like(noise), noise, last, text)
    return {"real": batch.real[:n], "student": network.decode(x0)}


def versions() -> dict[str, str]:
    """Of the packages that decide bits; without those that are not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@refuses
def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m baselines.train", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="a rival, as JSON")
    parser.add_argument("--seed", type=at_least(0), default=0, help="training seed")
    parser.add_argument("--out", type=Path, required=True, help="directory of this rival and seed")
    add_device_option(parser)
    add_cache_options(parser)
    arguments = parser.parse_args()
    spec, seed, out = load_rival(arguments.spec), arguments.seed, arguments.out
    cache = stated_cache(arguments)
    device = open_device(arguments.device, spec.training.device, spec.training.threads)
    with only_writer(out) as waited:
        if waited and is_finished(out, {"spec_hash": rival_hash(spec), "seed": seed}):
            print(f"{out}: the process that wrote there has finished this very training", file=sys.stderr)
        else:
            train(spec, seed, out, device, cache)


if __name__ == "__main__":
    sys.exit(main())
