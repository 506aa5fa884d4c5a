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
from torch import Tensor
from torch.nn import functional as F

from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator
from add.files import write_json, write_whole
from add.models.diffusion import trainable_unet
from add.models.frozen import FrozenNetworks, apply_options, make_heads, performance_of
from add.step import losses
from add.train import autocast, make_optimiser, update
from addbench.cost.meters import Flops
from addbench.cost.step import estimate_cost
from benchmarks import timed
from benchmarks.latency import latencies
from benchmarks.timed import Size

TARGETS = {"times as fast as plain": 2.0, "share of the matrix rate": 0.35}


def main() -> None:
    """Parse the command line, measure and write."""
    options = arguments()
    chosen = {
        "channels_last": not options.no_channels_last,
        "compile": not options.no_compile,
        "gradient_checkpointing": options.checkpoint,
    }
    performance = timed.MEMORY if options.memory else timed.SPEED | chosen
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
        default=timed.SPEED["gradient_checkpointing"],
        help="gradient checkpointing",
    )
    parser.add_argument(
        "--memory", action="store_true", help="all options that save memory, 8-bit optimiser included"
    )
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-channels-last", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=timed.FOLDER)
    return parser.parse_args()


def measure(size: Size, batch: int, performance: dict[str, Any], device: str, repeats: int) -> dict[str, Any]:
    """All figures, the plain step's first; memory is released between the two."""
    rate = timed.matrix_rate(device, side=8192 if device.startswith("cuda") else 512)
    rows = [row(size, batch, None, device, repeats), row(size, batch, performance, device, repeats)]
    # The plain step computes nothing twice: its operations are the work of both.
    work = rows[0]["flops_per_image"]
    for r in rows:
        speed = r["images_per_second"]
        r["share"] = None if work is None or speed is None else work * speed / rate
    plain, ours = (r["images_per_second"] for r in rows)
    run = timed.timed_run(size, batch, performance)
    return {
        "size": size,
        "batch": batch,
        "options": performance,
        "device": timed.device_name(device),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "matrix_rate": rate,
        "rows": rows,
        "times_plain": None if plain is None or ours is None else ours / plain,
        "targets": TARGETS,
        # What the cost model predicts for the same run.
        "modelled": asdict(estimate_cost(run, configurations=timed.configurations(size))),
        "latency": latencies(size, device, max(1, repeats // 2)),
    }


def row(
    size: Size, batch: int, performance: dict[str, Any] | None, device: str, repeats: int
) -> dict[str, Any]:
    """The figures of add.step with these performance options, or of the plain step if None.

    The batch is halved until it fits in memory; figures are null if not even one image fits.
    """
    seconds, peak, flops = None, None, None
    plain = performance is None
    while seconds is None and batch > 0:
        try:
            run = timed.timed_run(size, batch, performance)
            seconds, peak, flops = step_figures(run, size, device, repeats, plain=plain)
        except torch.cuda.OutOfMemoryError:
            batch //= 2
        timed.free(device)
    return {
        "name": "plain" if plain else "add.step",
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
    networks = timed.networks_of(run, size, device)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, networks.student.resolution, 0)
    assert heads is not None
    batch = timed.random_batch(run, networks, device)
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
    seconds, peak = timed.time_steps(step, device, warm_up=3, repeats=repeats)
    return seconds, peak, flops


def plain_losses(
    run: Run, networks: FrozenNetworks, unet: Any, heads: Discriminator, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The student's and the heads' loss, written plainly with diffusers' modules: `add.step` is compared with it.

    It is also a reference implementation: on the same batch it has the losses of `add.step.losses`
    (tests/benchmarks/test_gpu_step.py). It covers only the baseline: exponential distillation in pixel space, one
    guided or unguided teacher step, text and image conditioning, no augmentation, no crops (crop_probability 0).
    """
    net, teacher = networks.student, networks.teacher
    assert teacher is not None
    assert networks.features is not None
    alphas, sigmas = net.schedule.alphas[:, None, None, None], net.schedule.sigmas[:, None, None, None]

    with torch.no_grad():
        latents = net.vae.encode(batch.real).latent_dist.mean * net.vae.config.scaling_factor
        text = net.embed(batch.prompts)
    x_s = torch.where(
        (batch.s == 999)[:, None, None, None],
        batch.noise,
        alphas[batch.s] * latents + sigmas[batch.s] * batch.noise,
    )
    output = unet(x_s, batch.s, text.embeddings, added_cond_kwargs=text.added).sample
    x_0 = _x0(net.schedule.prediction, output.float(), x_s, alphas[batch.s], sigmas[batch.s])
    images = net.vae.decode(x_0 / net.vae.config.scaling_factor).sample

    with torch.no_grad():
        alpha, sigma = alphas[batch.t], sigmas[batch.t]
        x_t = alpha * x_0.detach() + sigma * batch.noise_t
        words = teacher.embed(batch.prompts)
        output = teacher.unet(x_t, batch.t, words.embeddings, added_cond_kwargs=words.added).sample.float()
        if (scale := run.training.teacher_guidance) != 1:
            null = teacher.null().expand(len(x_t))
            unguided = teacher.unet(
                x_t, batch.t, null.embeddings, added_cond_kwargs=null.added
            ).sample.float()
            output = unguided + scale * (output - unguided)
        target = _x0(teacher.schedule.prediction, output, x_t, alpha, sigma)
        target = teacher.vae.decode(target / teacher.vae.config.scaling_factor).sample
        assert networks.c_text is not None
        assert networks.c_img is not None
        given = {"text": networks.c_text(batch.prompts), "image": networks.c_img(batch.real)}
    squares = (images.float() - target.float()).square().flatten(1).sum(1) / x_0[0, 0].numel()
    loss = run.variant.loss.distillation_weight * (alpha.flatten() * squares).mean()

    fake = networks.features(images)
    heads.requires_grad_(False)
    for logits in heads(fake, given):
        loss = loss - run.variant.loss.adversarial * logits.mean()
    heads.requires_grad_(True)
    with torch.no_grad():
        real = networks.features(batch.real)
    real = [features.requires_grad_(True) for features in real]
    head_loss = torch.zeros((), device=images.device)
    real_logits, fake_logits = heads(real, given), heads([f.detach() for f in fake], given)
    for on_real, on_fake, features in zip(real_logits, fake_logits, real, strict=True):
        (slope,) = torch.autograd.grad(on_real.sum(), features, create_graph=True)
        head_loss = head_loss + F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
        head_loss = head_loss + run.variant.discriminator.r1_gamma * slope.square().flatten(1).sum(1).mean()
    return loss, head_loss


def _x0(prediction: str, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    if prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    return alpha * x_t - sigma * output if prediction == "v_prediction" else output


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
