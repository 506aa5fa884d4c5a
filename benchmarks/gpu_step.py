"""How fast is ADD's training step on this device, beside the same step written plainly in the same run?

    python -m benchmarks.gpu_step --size sd21 --batch 8        # 80 GB
    python -m benchmarks.gpu_step --size sd21 --batch 1 --memory   # 24 GB, with all memory options
    python -m benchmarks.gpu_step --size sdxl --batch 8 --checkpoint unet decoder features

ADD-M's step (SDXL's with `--size sdxl`) at 512x512, with networks of the real size made from their configurations
without weights; and one image's latency in 1, 25 and 50 steps. `share` is the share of the device's bf16 matrix
rate, measured in the same run: operations of the plain step (nothing computed twice) over seconds over that rate.
`--size tiny` runs the smoke scale's networks (data/smoke/networks) on any device, as a test of this program.
Writes benchmarks/results/gpu-step-<size>-batch<batch>.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from add.config.run import Run
from add.files import write_whole
from add.models.diffusion import trainable_unet
from add.models.frozen import make_heads
from add.models.performance import apply_options, performance_of
from add.optimiser import make_optimiser, update
from add.step import losses
from add.train import autocast
from addbench.cost.meters import Flops
from addbench.cost.step import estimate_cost
from benchmarks.gpu_networks import MEMORY, SPEED, Size, configurations, players_of, random_batch, timed_run
from benchmarks.latency import latencies
from benchmarks.plain_step import plain_losses, plain_optimiser
from benchmarks.timing import FOLDER, device_name, free, matrix_rate, time_steps

TARGETS = {"times as fast as plain": 2.0, "share of the matrix rate": 0.35}


def main() -> None:
    """The command line."""
    options = arguments()
    performance = (
        MEMORY
        if options.memory
        else SPEED
        | {
            "channels_last": not options.no_channels_last,
            "compile": not options.no_compile,
            "gradient_checkpointing": options.checkpoint,
        }
    )
    content = measure(options.size, options.batch, performance, options.device, options.repeats)
    content["command"] = "python -m benchmarks.gpu_step " + shlex.join(sys.argv[1:])
    stem = f"gpu-step-{options.size}-batch{options.batch}" + ("-memory" if options.memory else "")
    write_whole(options.out / f"{stem}.json", json.dumps(content, indent=1) + "\n")
    write_whole(options.out / f"{stem}.md", text := table(content))
    print(text)


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_step", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("sd21", "sdxl", "tiny"), default="sd21")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps; the median counts")
    parser.add_argument(
        "--checkpoint",
        nargs="*",
        choices=("unet", "decoder", "features"),
        default=SPEED["gradient_checkpointing"],
        help="gradient checkpointing",
    )
    parser.add_argument("--memory", action="store_true", help="all memory options, 8-bit optimiser included")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-channels-last", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser.parse_args()


def measure(size: Size, batch: int, performance: dict[str, Any], device: str, repeats: int) -> dict[str, Any]:
    """All figures, the plain step first; each in memory of its own."""
    side = 8192 if device.startswith("cuda") else 512
    rate = matrix_rate(device, side)
    rows = [
        row("plain", size, batch, None, device, repeats, plain=True),
        row("add.step", size, batch, performance, device, repeats, plain=False),
    ]
    # Nothing is computed twice in the plain step: its operations are what either has to do.
    work = rows[0]["flops_per_image"]
    for r in rows:
        speed = r["images_per_second"]
        r["share"] = None if work is None or speed is None else work * speed / rate
    plain, ours = (r["images_per_second"] for r in rows)
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
        "modelled": asdict(modelled(timed_run(size, batch, performance), size)),
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
    """One step's figures, with half the images as often as they do not fit; null where not even one does."""
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
    """Median seconds, peak bytes and floating-point operations of one optimiser step of both networks."""
    options, settings = performance_of(run), run.training
    networks = players_of(run, size, device)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, networks.student.resolution, 0)
    assert heads is not None
    batch = random_batch(run, networks, device)
    mine: list[torch.optim.Optimizer]
    if plain:
        mine = [
            plain_optimiser(m, s.lr, s.betas)
            for m, s in ((unet, settings.student_optimiser), (heads, settings.head_optimiser))
        ]
    else:
        apply_options(options, networks, unet)
        mine = [
            make_optimiser(m, s, options.eight_bit_optimiser)
            for m, s in ((unet, settings.student_optimiser), (heads, settings.head_optimiser))
        ]

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
        update(mine[0], unet, settings.student_optimiser, 0, settings.steps)
        update(mine[1], heads, settings.head_optimiser, 0, settings.steps)

    flops = 0
    if plain:  # a compiled step hides its operations
        with Flops() as counted:
            step()
        flops = counted.total
    seconds, peak = time_steps(step, device, warm_up=3, repeats=repeats)
    return seconds, peak, flops


def modelled(run: Run, size: Size) -> Any:
    """The cost that `addbench.cost.step` predicts for the same run, to be held against what was measured."""
    return estimate_cost(run, configurations=configurations(size))


def table(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    head = [
        f"ADD's step, {content['size']}, batch {content['batch']}, on {content['device']}: `{content['command']}`",
        "",
        f"Measured matrix rate: {content['matrix_rate'] / 1e12:.1f} TFLOP/s in bf16.",
        "",
        "| step | batch | seconds | images/s | peak GiB | share of the matrix rate |",
        "|---|---|---|---|---|---|",
    ]
    lines = [
        f"| {r['name']} | {r['batch']} | {number(r['seconds'], 4)} | {number(r['images_per_second'], 2)} | "
        f"{number(None if r['peak_bytes'] is None else r['peak_bytes'] / 2**30, 1)} | {number(r['share'], 3)} |"
        for r in content["rows"]
    ]
    tail = [
        "",
        f"Times as fast as plain: {number(content['times_plain'], 2)} (target {TARGETS[next(iter(TARGETS))]}).",
    ]
    times = ", ".join(f"{steps} steps {seconds:.3f} s" for steps, seconds in content["latency"].items())
    return "\n".join([*head, *lines, *tail, f"One image: {times}.", ""])


def number(value: float | None, digits: int) -> str:
    """A figure, or that there is none: it did not fit, or the device does not tell."""
    return "none" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
