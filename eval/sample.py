"""Sample a system: `python -m eval.sample --system DIR --scale config/mini.yaml --out DIR/samples`.

A system is a trained student's directory, or any diffusers pipeline with its own scheduler. Writes one directory for
each prompt set and number of steps: images, `index.csv`, and last `samples.json`, without which readers take the set
for unfinished. An image depends on (system, prompt, seed) alone. The workflow says with `--source` which pipeline it
is, by which weights, and how it samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.config.system import Dtype, SystemSource
from add.device import add_device_option, open_device
from add.errors import InputError, refuses
from add.files import write_json
from add.lock import only_writer
from eval.drawing import eight_bit, sampler_facts, truncated_prompts, watched
from eval.images import INDEX, SampledImage, to_square, write_index
from eval.prompts import Prompt, read_prompts
from eval.stage import SampleValues, add_scale_option, read_option

if TYPE_CHECKING:
    from add.config.scale import SamplingSpec


SIZES = ("original_size", "target_size")


@dataclass(frozen=True)
class System:
    """A pipeline that turns prompts and seeds into images.

    timesteps: by number of steps, a student's own or those that were given for a pipeline; empty for other pipelines,
    whose scheduler chooses. guidance: classifier-free guidance scale, 1 for none (a student has none; paper,
    section 4). called: the timesteps of the last call. sizes: `original_size` and `target_size`, sides in pixels, that
    an SDXL pipeline is told; without them it takes its resolution. resolution: side in pixels of the images that are
    drawn; None for the pipeline's own.
    """

    name: str
    pipeline: Any
    timesteps: dict[int, list[int]]
    guidance: float
    called: list[float] = field(default_factory=list)
    sizes: Mapping[str, int] = field(default_factory=dict)
    resolution: int | None = None

    def images(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
        """RGB images (N, H, W, 3) uint8, one generator an image, so that none depends on its neighbours.

        Raises InputError where there are no timesteps for that many steps, or the scheduler takes none, and as
        `eight_bit` does.
        """
        import torch

        options: dict[str, Any] = {name: (side, side) for name, side in self.sizes.items()}
        if self.resolution is not None:
            options |= {"height": self.resolution, "width": self.resolution}
        if self.timesteps:
            if steps not in self.timesteps:
                known = ", ".join(map(str, self.timesteps))
                raise InputError(f"{self.name}: no {steps}-step sampling; it has {known}")
            scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
            scheduler.set_timesteps(steps)
            if [int(t) for t in scheduler.timesteps] != self.timesteps[steps]:
                options["timesteps"] = self.timesteps[steps]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with watched(self.pipeline) as seen:
            try:
                output = self.pipeline(
                    prompt=list(prompts),
                    num_inference_steps=steps,
                    guidance_scale=self.guidance,
                    generator=generators,
                    output_type="np",
                    **options,
                )
            except ValueError as error:
                if "timestep" in str(error):  # this is how diffusers says that a scheduler takes none
                    raise InputError(self.name, str(error).strip()) from error
                raise
        self.called[:] = seen.timesteps
        flagged = getattr(output, "nsfw_content_detected", None)
        names = [f"{self.name}: {p!r}, image seed {s}" for p, s in zip(prompts, seeds, strict=True)]
        return eight_bit(output.images, seen.finite, flagged, names)


def load_system(
    directory: str,
    guidance: float = 1.0,
    device: str = "cpu",
    timesteps: Sequence[int] = (),
    sizes: Mapping[str, int] | None = None,
    *,
    scheduler: str | None = None,
    spacing: str | None = None,
    dtype: Dtype | None = None,
    resolution: int | None = None,
) -> System:
    """Load the pipeline at `directory` (or hub id), in float32 unless `dtype` says otherwise.

    guidance, timesteps, sizes, resolution: for pipelines that are no student; without timesteps the scheduler chooses.
    scheduler: a class of diffusers in place of the pipeline's own, with its configuration; spacing: of its timesteps.
    Raises OSError where the directory is no diffusers pipeline, InputError where these are given for a student, or it
    lost files, and for a scheduler that diffusers does not have.
    """
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    from add.models.diffusion import STUDENT_FILE
    from add.models.weights import lost_files, weight_variant

    logging.disable_progress_bar()
    file = Path(directory) / STUDENT_FILE
    # A student that lost its own file must not be sampled as a pipeline with a scheduler's timesteps.
    trained = file.exists() or Path(directory).with_name("train").joinpath("train.json").is_file()
    if trained and (lost := next(lost_files(Path(directory)), None)):
        raise InputError(lost, "`addbench repair` lets the next `snakemake` train the student again")
    unet = Path(directory) / "unet"
    options = {"variant": weight_variant(unet)} if unet.is_dir() else {}
    precision = getattr(torch, dtype or "float32")
    pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=precision, **options).to(device)
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None  # SDXL's pipeline marks images wherever a certain package is installed
    pipeline.set_progress_bar_config(disable=True)
    if not file.exists():
        if scheduler or spacing:
            pipeline.scheduler = _scheduler(pipeline.scheduler, scheduler, spacing, directory)
        given = {len(timesteps): list(timesteps)} if timesteps else {}
        return System(directory, pipeline, given, guidance, sizes=sizes or {}, resolution=resolution)
    if timesteps or sizes or scheduler or spacing or resolution:
        raise InputError(directory, "is a student, which has its own sampler and sizes; leave them out")
    note = json.loads(file.read_text(encoding="utf-8"))
    own = {int(k): list(map(int, v)) for k, v in note["timesteps"].items()}
    told = {name: int(note[name]) for name in SIZES if name in note}
    return System(directory, pipeline, own, float(note["guidance_scale"]), sizes=told)


def _scheduler(own: Any, name: str | None, spacing: str | None, directory: str) -> Any:
    """A scheduler of diffusers with the configuration of a pipeline's `own`."""
    import diffusers

    kind = type(own) if name is None else getattr(diffusers, name, None)
    if kind is None:
        from add.config.yaml import nearest

        known = [known for known in dir(diffusers) if known.endswith("Scheduler")]
        raise InputError(directory, f"diffusers {diffusers.__version__} has no {name}{nearest(name, known)}")
    chosen = {} if spacing is None else {"timestep_spacing": spacing}
    made = kind.from_config(own.config, **chosen)
    if spacing is not None and made.config.get("timestep_spacing") != spacing:
        raise InputError(directory, f"a {kind.__name__} has no timestep spacing; leave `spacing` out")
    return made


def open_system(source: SystemSource, device: str = "cpu") -> System:
    """Find the pipeline, check its weights, load it. Raises as `load_system`, and WeightsError."""
    from add.models.hub import local_directory
    from add.models.weights import check_weights

    directory = local_directory(source.path, source.revision, source.files)
    if source.sha256 is not None or source.files is not None:
        check_weights(directory, source.sha256, source.files)
    return load_system(
        str(directory),
        source.guidance,
        device,
        source.timesteps,
        {str(name): side for name, side in source.sizes.items()},
        scheduler=source.scheduler,
        spacing=source.spacing,
        dtype=source.dtype,
        resolution=source.resolution,
    )


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
        "sampler": sampler_facts(system.pipeline, system.called, system.guidance),
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
    parser.add_argument("--steps", type=int, nargs="*", help="numbers of steps (default: the scale's)")
    parser.add_argument("--prompts", nargs="*", default=(), help="prompt sets (default: all)")
    parser.add_argument("--side", type=int, help="of the images that are kept, in pixels (default: as drawn)")
    more = parser.add_argument_group("with --system, for pipelines that are no student")
    more.add_argument("--guidance", type=float, default=1.0, help="1.0 (the default) for none")
    more.add_argument("--timesteps", type=int, nargs="*", default=(), help="as many as --steps")
    more.add_argument("--scheduler", help="a class of diffusers (default: the pipeline's)")
    more.add_argument("--spacing", choices=("leading", "linspace", "trailing"), help="of the timesteps")
    for name in SIZES:
        more.add_argument(f"--{name.replace('_', '-')}", type=int, help="in pixels, for an SDXL pipeline")
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
