"""Sample a system: `python -m eval.sample --system DIR --scale config/mini.yaml --out DIR/samples`.

A system is a trained student's directory, or any diffusers pipeline with its own scheduler. Writes one directory for
each prompt set and number of steps: images, `index.csv`, and last `samples.json`, without which readers take the set
for unfinished. An image depends on (system, prompt, seed) alone. The workflow says with `--source` which pipeline it
is, by which weights, and how it samples.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from add.config.system import SystemSource
from add.device import add_device_option, open_device
from add.errors import InputError, at_least, refuses
from add.files import write_json
from add.lock import only_writer
from eval.drawing import truncated_prompts
from eval.images import INDEX, SampledImage, to_square, write_index
from eval.prompts import Prompt, read_prompts
from eval.stage import SampleValues, add_scale_option, read_option
from eval.system import SIZES, System, load_system, open_system

if TYPE_CHECKING:
    from add.config.scale import SamplingSpec


def image_seed(prompt: Prompt, seed: int) -> int:
    """Seed of the image's own generator, 0 .. 2^63 - 1: a hash of prompt id, prompt and sampling seed."""
    key = hashlib.sha256(f"{prompt.prompt_id}\0{prompt.prompt}\0{seed}".encode()).digest()
    return int.from_bytes(key[:8], "big") >> 1


def sample_set(
    system: System,
    prompts: Sequence[Prompt],
    steps: int,
    seed: int,
    batch: int,
    out: Path,
    name: str,
    side: int | None = None,
) -> None:
    """Sample every prompt once into `out`, which is emptied first.

    side: of the images that are kept, in pixels; larger ones are downsampled (Pillow's bicubic, antialiased), smaller
    ones refused with InputError. None: as they are drawn.
    """
    from PIL import Image
    from tqdm import tqdm

    started = time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows: list[SampledImage] = []
    drawn = 0
    for start in tqdm(range(0, len(prompts), batch), desc=out.name, mininterval=5):
        part = prompts[start : start + batch]
        seeds = [image_seed(prompt, seed) for prompt in part]
        # A short last batch is filled up: matrix products round differently at another batch size, which moves
        # about one value in ten thousand by one of its 256 levels.
        fill = batch - len(part)
        texts = [prompt.prompt for prompt in part] + [part[-1].prompt] * fill
        images = system.images(texts, seeds + [seeds[-1]] * fill, steps)
        drawn = images.shape[1]
        if side is not None and drawn < side:
            reason = (
                f"draws {drawn}x{drawn} images, and {side}x{side} are measured; a larger one would be made up"
            )
            raise InputError(system.name, reason)
        for i, (prompt, its_seed) in enumerate(zip(part, seeds, strict=True)):
            file = f"{start + i:06d}.png"
            image = Image.fromarray(to_square(Image.fromarray(images[i]), side or drawn, "none"))
            image.save(out / file, compress_level=1)
            rows.append(SampledImage(file, prompt.prompt_id, prompt.prompt, seed, its_seed))
    write_index(out / INDEX, rows)
    facts: dict[str, Any] = {
        "system": name,
        "prompts": out.name.rsplit("-", 1)[0],
        "steps": steps,
        "guidance": system.guidance,
        "sampler": system.sampler_facts,
        "truncated_prompts": truncated_prompts(system.pipeline, [prompt.prompt for prompt in prompts]),
        "count": len(rows),
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if side not in (None, drawn):
        facts["sampler"] |= {
            "drawn_resolution": drawn,
            "downsampled": f"to {side}, Pillow bicubic, antialiased",
        }
    write_json(out / "samples.json", facts)
    if note := facts["sampler"].get("note"):
        print(f"warning: {out}: {note}", file=sys.stderr)


def sample_sets(
    system: System,
    sampling: SamplingSpec,
    steps: Sequence[int],
    out: Path,
    only: Sequence[str] = (),
    side: int | None = None,
) -> None:
    """Sample every prompt set (or those named in `only`) by each number of steps, as the only process that writes it.

    side: as `sample_set` has it.
    """
    for name, rule in sampling.prompts.items():
        if only and name not in only:
            continue
        for k in steps:
            folder = out / f"{name}-{k}step"
            prompts = read_prompts(rule.at(k))
            with only_writer(folder):
                sample_set(system, prompts, k, sampling.seed, sampling.batch, folder, system.name, side)


@refuses
def main() -> None:
    """Parse the command line and sample."""
    parser = argparse.ArgumentParser(prog="python -m eval.sample", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--system", help="a student's directory, or any diffusers pipeline")
    which.add_argument("--source", metavar="JSON", help="a pipeline, its weights and its sampler as JSON")
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="directory of the sample sets")
    parser.add_argument(
        "--steps", type=at_least(1), nargs="*", help="numbers of steps (default: the scale's)"
    )
    parser.add_argument("--prompts", nargs="*", default=(), help="prompt sets (default: all)")
    parser.add_argument(
        "--side", type=at_least(1), help="of the images that are kept, in pixels (default: as drawn)"
    )
    more = parser.add_argument_group("with --system, for pipelines that are no student")
    more.add_argument("--guidance", type=float, default=1.0, help="1.0 (the default) for none")
    more.add_argument("--timesteps", type=at_least(0), nargs="*", default=(), help="as many as --steps")
    more.add_argument("--scheduler", help="a class of diffusers (default: the pipeline's)")
    more.add_argument("--spacing", choices=("leading", "linspace", "trailing"), help="of the timesteps")
    for name in SIZES:
        more.add_argument(
            f"--{name.replace('_', '-')}", type=at_least(1), help="in pixels, for an SDXL pipeline"
        )
    add_device_option(parser)
    arguments = parser.parse_args()
    values = SampleValues.read(arguments.scale)
    device, sampling = open_device(arguments.device, values.device, values.threads), values.sampling
    if arguments.source is not None:
        source = read_option(SystemSource, "--source", arguments.source)
        system = open_system(source.model_copy(update={"dtype": source.dtype or sampling.dtype}), device)
    else:
        sizes = {name: side for name in SIZES if (side := getattr(arguments, name)) is not None}
        system = load_system(
            arguments.system,
            arguments.guidance,
            device,
            arguments.timesteps,
            sizes,
            scheduler=arguments.scheduler,
            spacing=arguments.spacing,
            dtype=sampling.dtype,
        )
    steps = arguments.steps or sampling.steps
    sample_sets(system, sampling, steps, arguments.out, arguments.prompts, arguments.side)


if __name__ == "__main__":
    sys.exit(main())
