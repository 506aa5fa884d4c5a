"""Do disk, memory and GPU memory suffice? The need is modelled, and each figure comes with its model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from addbench.cost.shapes import configurations, parameter_counts
from addbench.preflight import Findings, size
from addbench.preflight.networks import CheckedNetworks

PROCESS_BYTES = 1_500_000_000
"""About what Python, torch and the libraries take by themselves."""

GPU_MODEL = "every tensor of a step on the real shapes, and a tenth for what is not counted"
LESS_MEMORY = "gradient_checkpointing, frozen_precision: bf16, eight_bit_optimiser"


@dataclass(frozen=True)
class Gpu:
    """One GPU, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Shapes:
    """What is known of networks without their weights.

    places: by address, where the configuration is. parameters: by name, those of the UNet and of the whole pipeline.
    absent: addresses without a known configuration.
    """

    places: Mapping[str, str]
    parameters: Mapping[str, tuple[int, int]]
    absent: tuple[str, ...] = ()


def known_shapes(scale: Scale, networks: CheckedNetworks) -> Shapes:
    """The shapes of networks that are here, as read from their headers, and of the others, as published."""
    places, absent = configurations(scale, networks.places)
    read = {name: (p.unet.parameters, p.parameters) for name, p in networks.pipelines.items()}
    others = {path: place for path, place in places.items() if path not in networks.places}
    return Shapes(places, {**parameter_counts(scale, others), **read}, tuple(absent))


def check_resources(
    found: Findings, scale: Scale, table: Table, shapes: Shapes, results: Path, gpus: list[Gpu], needed: int
) -> None:
    """needed: bytes on disk that the whole table takes (`addbench.cost.shapes.storage`)."""
    _check_disk(found, results, needed, shapes)
    run = heaviest(table, shapes)
    if run is None:
        found.left.append(f"memory, GPU memory: no shapes are known of {', '.join(shapes.absent)}")
        return
    peak = _peak(run, shapes)
    on_cpu = run.training.device == "cpu"
    _check_memory(found, scale, run, shapes, peak, bool(gpus) and not on_cpu)
    if not on_cpu:
        _check_gpu(found, run, peak, gpus)


def heaviest(table: Table, shapes: Shapes) -> Run | None:
    """The run with the most images at once through the most parameters, of those whose shapes are known."""

    def weight(run: Run) -> int:
        used = {shapes.parameters[name][1] for name in run.networks.diffusion}
        # Of the student there are gradients and two moments besides.
        parameters = 4 * shapes.parameters[run.variant.student][0] + sum(used)
        return run.training.batch // run.training.accumulate * parameters

    def known(run: Run) -> bool:
        single = [*run.networks.features.values(), run.networks.c_text, run.networks.c_img]
        found = all(network is None or network.path in shapes.places for network in single)
        return found and shapes.parameters.keys() >= run.networks.diffusion.keys()

    return max(filter(known, table.runs.values()), key=weight, default=None)


def machine_gpus() -> list[Gpu]:
    """The GPUs of this machine, as nvidia-smi lists them; none where there is no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = re.findall(r"^(.*\S)\s*,\s*(\d+)\s*$", listed, re.MULTILINE)
    return [Gpu(name.strip(), int(mebibytes) * 2**20) for name, mebibytes in rows]


def _check_disk(found: Findings, results: Path, needed: int, shapes: Shapes) -> None:
    there = next(p for p in (results, *results.parents, Path()) if p.is_dir())
    free = shutil.disk_usage(there).free
    has = sum(f.stat().st_size for f in results.rglob("*") if f.is_file())
    without = f", without what {', '.join(shapes.absent)} take" if shapes.absent else ""
    line = f"disk: the table needs about {size(needed)} in {results}{without}; {size(has)} of it is there"
    if free + has < needed:
        found.facts.append(line)
        what = f"{size(free)} are free on the disk of {there.resolve()}, and {size(needed - has)} more are needed"
        found.problem(results, what, "free some, or let results/ be a link to a larger disk")
    else:
        found.facts.append(f"{line}, {size(free)} are free")


def _check_memory(found: Findings, scale: Scale, run: Run, shapes: Shapes, peak: int, gpu: bool) -> None:
    """Beside a GPU the host holds pipelines while they load; without one it holds all that a step needs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if gpu:
        parameters = sum(shapes.parameters[name][1] for name in run.networks.diffusion)
        needed, model = PROCESS_BYTES + 4 * parameters, "its pipelines once, in float32, while they load"
        remedy = "use a machine with more"
    else:
        needed = PROCESS_BYTES + peak
        model = "every tensor of a step on the real shapes, since there is no GPU"
        remedy = (
            "run where there is a GPU (--gpu-memory GB asks about its card), or raise training.accumulate"
        )
    line = f"memory: {run.name} needs about {size(needed)} ({model}), this machine has {size(total)}"
    if needed > total:
        found.problem(scale.origin.file, line, remedy)
    else:
        found.facts.append(line)


def _check_gpu(found: Findings, run: Run, peak: int, gpus: list[Gpu]) -> None:
    part = run.training.batch // run.training.accumulate
    line = f"GPU memory: {run.name} needs about {size(peak)} for {part} images at once ({GPU_MODEL})"
    if not gpus:
        found.left.append(f"{line}; there is no GPU here, and --gpu-memory GB checks for a card of that size")
        return
    smallest = min(gpus, key=lambda gpu: gpu.memory)
    line = f"{line}, {smallest.name} has {size(smallest.memory)}"
    if peak > smallest.memory:
        remedy = f"raise training.accumulate, or set training.performance: {LESS_MEMORY}"
        found.problem(f"training.batch / training.accumulate = {part}", line, remedy)
    else:
        found.facts.append(line)


def _peak(run: Run, shapes: Shapes) -> int:
    from addbench.cost.step import estimate_cost

    return estimate_cost(run, configurations=shapes.places).needed_bytes
