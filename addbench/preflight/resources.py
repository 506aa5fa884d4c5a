"""Do disk, memory and GPU memory suffice? What is needed is modelled, and the model is said with the figure."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from addbench.cost.shapes import configurations, parameter_counts
from addbench.preflight import Findings, fact, left, problem, size, together
from addbench.preflight.networks import CheckedNetworks

PROCESS_BYTES = 1_500_000_000
"""Python, torch and the libraries by themselves, about."""

GPU_MODEL = "every tensor of a step on the real shapes, and a tenth for what is not counted"


@dataclass(frozen=True)
class Gpu:
    """One GPU, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Shapes:
    """What is known of networks without their weights.

    places: of addresses, where the configuration is. parameters: by name, of a UNet and of the whole pipeline.
    absent: addresses of which nothing is known.
    """

    places: Mapping[str, str]
    parameters: Mapping[str, tuple[int, int]]
    absent: tuple[str, ...] = ()


def known_shapes(scale: Scale, networks: CheckedNetworks) -> Shapes:
    """Of the networks that are here, as they were read; of the others, as published."""
    places, absent = configurations(scale, networks.places)
    read = {name: (p.unet.parameters, p.parameters) for name, p in networks.pipelines.items()}
    others = {path: place for path, place in places.items() if path not in networks.places}
    return Shapes(places, {**parameter_counts(scale, others), **read}, tuple(absent))


def check_resources(
    scale: Scale, table: Table, shapes: Shapes, results: Path, gpus: list[Gpu], needed: int
) -> Findings:
    """needed: bytes on disk that the whole table takes (`addbench.cost.shapes`)."""
    run = heaviest(table, shapes)
    found = [_disk(results / scale.name, needed, shapes)]
    if run is None:
        missing = ", ".join(shapes.absent)
        return together([*found, left(f"memory, GPU memory: no shapes are known of {missing}")])
    peak = _peak(run, shapes)
    return together([*found, _memory(scale, run, shapes, peak, bool(gpus)), _gpu(run, peak, gpus)])


def heaviest(table: Table, shapes: Shapes) -> Run | None:
    """The run whose student and networks have the most parameters, of those whose shapes are known."""

    def weight(run: Run) -> tuple[int, int]:
        used = {shapes.parameters[name][1] for name in run.networks.diffusion}
        return shapes.parameters[run.variant.student][0], sum(used)

    known = [run for run in table.runs.values() if _is_known(run, shapes)]
    return max(known, key=weight) if known else None


def _is_known(run: Run, shapes: Shapes) -> bool:
    """Whether the shapes of every network that the run loads are known."""
    single = [*run.networks.features.values(), run.networks.c_text, run.networks.c_img]
    found = all(network is None or network.path in shapes.places for network in single)
    return found and all(name in shapes.parameters for name in run.networks.diffusion)


def machine_gpus() -> list[Gpu]:
    """The GPUs of this machine, as nvidia-smi lists them; none where there is no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(",", 1) for line in listed.splitlines() if "," in line]
    return [
        Gpu(name.strip(), int(mebibytes) * 2**20) for name, mebibytes in rows if mebibytes.strip().isdigit()
    ]


def _disk(results: Path, needed: int, shapes: Shapes) -> Findings:
    there = _existing(results)
    free, has = shutil.disk_usage(there).free, _size_of(results)
    without = f", without what {', '.join(shapes.absent)} take" if shapes.absent else ""
    line = f"disk: the table needs about {size(needed)} in {results}{without}; {size(has)} of it is there"
    if free + has < needed:
        what = f"{size(free)} are free on the disk of {there.resolve()}, and {size(needed - has)} more are needed"
        remedy = "free some, or let results/ be a link to a larger disk"
        return fact(line) + problem(str(results), what, remedy)
    return fact(f"{line}, {size(free)} are free")


def _memory(scale: Scale, run: Run, shapes: Shapes, peak: int, gpu: bool) -> Findings:
    """On a GPU the host holds pipelines while they load; on the CPU it holds all that a step needs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if gpu:
        parameters = sum(shapes.parameters[name][1] for name in run.networks.diffusion)
        needed, model = PROCESS_BYTES + 4 * parameters, "its pipelines once, in float32, while they load"
        remedy = "use a machine with more"
    else:
        needed, model = (
            PROCESS_BYTES + peak,
            "every tensor of a step on the real shapes, since there is no GPU",
        )
        remedy = (
            "run where there is a GPU (--gpu-memory GB asks about its card from here), or in smaller parts of a "
            "batch (training.accumulate)"
        )
    line = f"memory: {run.name} needs about {size(needed)} ({model}), this machine has {size(total)}"
    return problem(scale.origin.file, line, remedy) if needed > total else fact(line)


def _gpu(run: Run, peak: int, gpus: list[Gpu]) -> Findings:
    part = run.training.batch // run.training.accumulate
    line = f"GPU memory: {run.name} needs about {size(peak)} for {part} images at once ({GPU_MODEL})"
    if not gpus:
        return left(f"{line}; there is no GPU here, and --gpu-memory GB checks for a card of that size")
    smallest = min(gpus, key=lambda gpu: gpu.memory)
    line = f"{line}, {smallest.name} has {size(smallest.memory)}"
    if peak > smallest.memory:
        remedy = (
            "raise training.accumulate, or set training.performance: gradient_checkpointing, "
            "frozen_precision: bf16, eight_bit_optimiser"
        )
        return problem(f"training.batch / training.accumulate = {part}", line, remedy)
    return fact(line)


def _peak(run: Run, shapes: Shapes) -> int:
    from addbench.cost.step import MARGIN, estimate_cost

    return int(estimate_cost(run, configurations=shapes.places).peak_bytes * MARGIN)


def _existing(path: Path) -> Path:
    """The nearest directory above `path` that is there."""
    return next(p for p in (path, *path.parents, Path()) if p.is_dir())


def _size_of(directory: Path) -> int:
    return sum(f.stat().st_size for f in directory.rglob("*") if f.is_file()) if directory.is_dir() else 0
