"""How fast is ADD's training step on this device, compared with a plainly written one in the same run?

    python -m benchmarks.gpu_step --size sd21 --batch 8        # 80 GB
    python -m benchmarks.gpu_step --size sd21 --batch 1 --memory   # 24 GB, all options that save memory
    python -m benchmarks.gpu_step --size sdxl --batch 8 --checkpoint unet decoder features

It times ADD-M's step (SDXL's with `--size sdxl`) at 512x512, on networks of the real size with random weights, and
the latency of one image in 1, 25 and 50 steps. `share` is the fraction of the device's bf16 matrix rate, measured in
the same run: operations per second of the plain step (which computes nothing twice) over that rate.
`--size tiny` runs the smoke scale's networks (data/smoke/networks) on any device, to test this program.
Writes benchmarks/results/gpu-step-<size>-batch<batch>.{json,md}.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from add.config.run import Run
from add.files import write_json, write_whole
from add.models.diffusion import trainable_unet
from add.models.frozen import apply_options, make_heads, performance_of
from add.step import losses
from add.train import autocast, make_optimiser, update
from addbench.cost.meters import Flops
from addbench.cost.step import estimate_cost
from benchmarks.latency import latencies
from benchmarks.plain_step import plain_losses
from benchmarks.timed import (
    FOLDER,
    MEMORY,
    SPEED,
    Size,
    configurations,
    device_name,
    free,
    matrix_rate,
    networks_of,
    random_batch,
    time_steps,
    timed_run,
)

TARGETS = {"times as fast as plain": 2.0, "share of the matrix rate": 0.35}


def main() -> None:
    """Parse the command line, measure and write."""
    options = arguments()
    chosen = {
        "channels_last": not options.no_channels_last,
        "compile": not options.no_compile,
        "gradient_checkpointing": options.checkpoint,
    }
    performance = MEMORY if options.memory else SPEED | chosen
    content = measure(options.size, options.batch, performance, options.device, options.repeats)
    content["command"] = "python -m benchmarks.gpu_step " + shlex.join(sys.argv[1:])
    stem = f"gpu-step-{options.size}-batch{options.batch}" + ("-memory" if options.memory else "")
    write_json(options.out / f"{stem}.json", content)
    write_whole(options.out / f"{stem}.md", text := table(content))
    print(text)


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_step", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("sd21", "sdxl", "tiny"), default="sd21")
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps; the median counts")
    parser.add_argument(
        "--checkpoint",
        nargs="*",
        choices=("unet", "decoder", "features"),
        default=SPEED["gradient_checkpointing"],
        help="gradient checkpointing",
    )
    parser.add_argument(
        "--memory", action="store_true", help="all options that save memory, 8-bit optimiser included"
    )
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-channels-last", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser.parse_args()


def measure(size: Size, batch: int, performance: dict[str, Any], device: str, repeats: int) -> dict[str, Any]:
    """All figures, the plain step's first; memory is released between the two."""
    rate = matrix_rate(device, side=8192 if device.startswith("cuda") else 512)
    rows = [
        row("plain", size, batch, None, device, repeats, plain=True),
        row("add.step", size, batch, performance, device, repeats, plain=False),
    ]
    # The plain step computes nothing twice: its operations are the work of both.
    work = rows[0]["flops_per_image"]
    for r in rows:
        speed = r["images_per_second"]
        r["share"] = None if work is None or speed is None else work * speed / rate
    plain, ours = (r["images_per_second"] for r in rows)
    run = timed_run(size, batch, performance)
    return {
        "size": size,
        "batch": batch,
        "options": performance,
        "device": device_name(device),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "matrix_rate": rate,
        "rows": rows,
        "times_plain": None if plain is None or ours is None else ours / plain,
        "targets": TARGETS,
        # What the cost model predicts for the same run.
        "modelled": asdict(estimate_cost(run, configurations=configurations(size))),
        "latency": latencies(size, device, max(1, repeats // 2)),
    }


def row(
    name: str,
    size: Size,
    batch: int,
    performance: dict[str, Any] | None,
    device: str,
    repeats: int,
    *,
    plain: bool,
) -> dict[str, Any]:
    """One step's figures. The batch is halved until it fits in memory; figures are null if not even one image fits."""
    seconds, peak, flops = None, None, None
    while seconds is None and batch > 0:
        try:
            run = timed_run(size, batch, performance)
            seconds, peak, flops = step_figures(run, size, device, repeats, plain=plain)
        except torch.cuda.OutOfMemoryError:
            batch //= 2
        free(device)
    return {
        "name": name,
        "batch": batch,
        "seconds": seconds,
        "images_per_second": None if seconds is None else batch / seconds,
        "peak_bytes": peak,
        "flops_per_image": flops / batch if flops else None,
    }


def step_figures(
    run: Run, size: Size, device: str, repeats: int, *, plain: bool
) -> tuple[float, int | None, int]:
    """Median seconds, peak bytes and floating-point operations of one update of student and discriminator."""
    options, settings = performance_of(run), run.training
    networks = networks_of(run, size, device)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, networks.student.resolution, 0)
    assert heads is not None
    batch = random_batch(run, networks, device)
    trained = ((unet, settings.student_optimiser), (heads, settings.head_optimiser))
    optimisers: list[torch.optim.Optimizer]
    if plain:
        optimisers = [
            torch.optim.AdamW(m.parameters(), lr=s.lr, betas=s.betas, weight_decay=0.0) for m, s in trained
        ]
    else:
        apply_options(options, networks, unet)
        optimisers = [make_optimiser(m, s, options.eight_bit_optimiser) for m, s in trained]

    def step() -> None:
        with autocast(settings.precision, device):
            if plain:
                student_loss, head_loss = plain_losses(run, networks, unet, heads, batch)
            else:
                student_loss, given, _ = losses(run, networks, unet, heads, batch)
                assert given is not None
                head_loss = given
        student_loss.backward()
        head_loss.backward(inputs=list(heads.parameters()))
        for optimiser, (module, its) in zip(optimisers, trained, strict=True):
            update(optimiser, module, its, 0, settings.steps)

    flops = 0
    if plain:  # a compiled step hides its operations
        with Flops() as counted:
            step()
        flops = counted.total
    seconds, peak = time_steps(step, device, warm_up=3, repeats=repeats)
    return seconds, peak, flops


def table(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"ADD's step, {content['size']}, batch {content['batch']}, on {content['device']}: `{content['command']}`",
        "",
        f"Measured matrix rate: {content['matrix_rate'] / 1e12:.1f} TFLOP/s in bf16.",
        "",
        "| step | batch | seconds | images/s | peak GiB | share of the matrix rate |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['name']} | {r['batch']} | {number(r['seconds'], 4)} | {number(r['images_per_second'], 2)} | "
        f"{number(None if r['peak_bytes'] is None else r['peak_bytes'] / 2**30, 1)} | {number(r['share'], 3)} |"
        for r in content["rows"]
    ]
    fast = f"{number(content['times_plain'], 2)} (target {TARGETS['times as fast as plain']})"
    times = ", ".join(f"{steps} steps {seconds:.3f} s" for steps, seconds in content["latency"].items())
    return "\n".join([*lines, "", f"Times as fast as plain: {fast}.", f"One image: {times}.", ""])


def number(value: float | None, digits: int) -> str:
    """A figure, or 'none' if the step did not fit or the device does not report it."""
    return "none" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
