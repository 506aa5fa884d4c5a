"""Do disk, memory and GPU memory suffice? What is needed is modelled, and the model is said with the figure."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from add.resolve import Table
from add.spec import Run, Scale
from addbench.preflight.findings import Findings, fact, left, problem, size, together
from addbench.preflight.networks import Networks

PROCESS_BYTES = 1_500_000_000
"""Python, torch and the libraries by themselves, about."""

GPU_MODEL = "every tensor of a step on the real shapes, and a tenth for what is not counted"


@dataclass(frozen=True)
class Gpu:
    """One GPU, and its memory in bytes."""

    name: str
    memory: int


def check_resources(
    scale: Scale, table: Table, networks: Networks, results: Path, gpus: list[Gpu], needed: int
) -> Findings:
    """needed: bytes on disk that the whole table takes (`addbench.costs.storage`)."""
    run = heaviest(table, networks)
    return together(
        [
            _disk(results / scale.name, needed),
            _memory(scale, run, networks, bool(gpus)),
            _gpu(run, networks, gpus),
        ]
    )


def heaviest(table: Table, networks: Networks) -> Run | None:
    """The run whose student and networks have the most parameters, of those whose pipelines can be read."""

    def weight(run: Run) -> tuple[int, int]:
        used = {networks.pipelines[name].parameters for name in run.networks.diffusion}
        return networks.pipelines[run.variant.student].unet.parameters, sum(used)

    readable = [run for run in table.runs.values() if _readable(run, networks)]
    return max(readable, key=weight) if readable else None


def _readable(run: Run, networks: Networks) -> bool:
    """Whether every network that the run loads was found: its shapes are what is counted."""
    single = [*run.networks.features.values(), run.networks.c_text, run.networks.c_img]
    found = all(network is None or network.path in networks.places for network in single)
    return found and all(name in networks.pipelines for name in run.networks.diffusion)


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


def _disk(results: Path, needed: int) -> Findings:
    there = _existing(results)
    free, has = shutil.disk_usage(there).free, _size_of(results)
    line = f"disk: the table needs about {size(needed)} in {results}, {size(has)} of it is there"
    if free + has < needed:
        what = f"{size(free)} are free on the disk of {there.resolve()}, and {size(needed - has)} more are needed"
        remedy = "free some, or let results/ be a link to a larger disk"
        return fact(line) + problem(str(results), what, remedy)
    return fact(f"{line}, {size(free)} are free")


def _memory(scale: Scale, run: Run | None, networks: Networks, gpu: bool) -> Findings:
    """On a GPU the host holds one pipeline while it loads; on the CPU it holds all that a step needs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if run is None:
        return left("memory: no run's networks can be read")
    if gpu:
        parameters = sum(networks.pipelines[name].parameters for name in run.networks.diffusion)
        needed, model = PROCESS_BYTES + 4 * parameters, "its pipelines once, in float32, while they load"
    else:
        needed = PROCESS_BYTES + _peak(run, networks)
        model = "every tensor of a step on the real shapes, since there is no GPU"
    line = f"memory: {run.name} needs about {size(needed)} ({model}), this machine has {size(total)}"
    if needed > total:
        remedy = "use a machine with more, or smaller parts of a batch (training.accumulate)"
        return problem(scale.origin.file, line, remedy)
    return fact(line)


def _gpu(run: Run | None, networks: Networks, gpus: list[Gpu]) -> Findings:
    if run is None:
        return left("GPU memory: no run's networks can be read")
    if not gpus:
        return left("GPU memory: no GPU here; --gpu-memory GB checks for a card of that size")
    smallest = min(gpus, key=lambda gpu: gpu.memory)
    part = run.training.batch // run.training.accumulate
    needed = _peak(run, networks)
    line = (
        f"GPU memory: {run.name} needs about {size(needed)} for {part} images at once ({GPU_MODEL}), "
        f"{smallest.name} has {size(smallest.memory)}"
    )
    if needed > smallest.memory:
        remedy = (
            "raise training.accumulate, or set training.performance: gradient_checkpointing, "
            "frozen_precision: bf16, eight_bit_optimiser"
        )
        return problem(f"training.batch / training.accumulate = {part}", line, remedy)
    return fact(line)


def _peak(run: Run, networks: Networks) -> int:
    from add.cost import MARGIN, estimate_cost

    return int(estimate_cost(run, configurations=networks.places).peak_bytes * MARGIN)


def _existing(path: Path) -> Path:
    """The nearest directory above `path` that is there."""
    return next(p for p in (path, *path.parents, Path()) if p.is_dir())


def _size_of(directory: Path) -> int:
    return sum(f.stat().st_size for f in directory.rglob("*") if f.is_file()) if directory.is_dir() else 0
