"""How much disk does a table take? Students, checkpoints, images, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from addbench.study import StudyFiles

PNG_BYTES = 2.0
"""Bytes a pixel of a photograph as PNG with little compression; 3 are the pixels themselves."""

CHECKPOINTS = 2
"""How many a run keeps while it trains."""

STATES = 4
"""Numbers kept of each trained parameter in a checkpoint: itself, its average, two moments."""

FEATURES = 2048
PICTURES = 3 * 8
"""Pictures in one grid of the training log; they are kept twice, as PNG and for TensorBoard."""


@dataclass(frozen=True)
class Storage:
    """Bytes. checkpoints: of the runs that train at one time; they go when the run is done."""

    students: int
    checkpoints: int
    samples: int
    logs: int
    reference: int

    @property
    def total(self) -> int:
        """All of it at the worst time."""
        return self.students + self.checkpoints + self.samples + self.logs + self.reference


def storage(
    scale: Scale,
    table: Table,
    study: StudyFiles,
    parameters: Mapping[str, tuple[int, int]],
    png_bytes: float = PNG_BYTES,
    jobs: int = 1,
) -> Storage:
    """parameters: of each diffusion network, of its UNet and of the whole pipeline. jobs: trainings at a time."""
    seeds = len(scale.training.seeds)
    pixels = scale.evaluation.resolution**2
    runs = [run for run in table.runs.values() if run.variant.student in parameters]
    unets = [parameters[run.variant.student][0] for run in runs]
    students = sum(4 * parameters[run.variant.student][1] for run in runs) * seeds
    shown = scale.study.prompts if scale.study else ""
    extra = sum(scale.sampling.prompts[shown].count for _ in study.extra) if shown else 0
    images = images_sampled(scale, table) + extra
    return Storage(
        students=students,
        checkpoints=jobs * (CHECKPOINTS + 1) * 4 * STATES * max(unets, default=0),
        samples=int(images * pixels * png_bytes),
        logs=sum(_grids(run) for run in runs) * seeds * int(2 * PICTURES * pixels * png_bytes),
        reference=4 * FEATURES * (scale.evaluation.reference.count + _coco(scale)),
    )


def images_sampled(scale: Scale, table: Table) -> int:
    """Images of all runs and seeds, by all numbers of steps."""
    prompts = sum(prompts.count for prompts in scale.sampling.prompts.values())
    return prompts * len(scale.sampling.steps) * len(table.runs) * len(scale.training.seeds)


def _grids(run: Run) -> int:
    return -(-run.training.steps // run.training.pictures_every)


def _coco(scale: Scale) -> int:
    return sum(p.count for p in scale.sampling.prompts.values() if p.kind == "coco")
