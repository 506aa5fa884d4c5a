"""Sample the systems that only the study compares, in one process.

    python -m eval.preferences.sample_study --scale config/mini.yaml --jobs '[{"system": ...}, ...]'

A job is {"system": directory or hub id, "steps": k, "out": folder} for a student, and besides "guidance",
"revision" and "sha256" for a pretrained pipeline. Only the study's prompt set is sampled, by the scale's own
seed and batch, so an image is the one that eval.sample makes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from add.errors import InputError, refuses
from add.models.hub import local_directory
from add.models.weights import check_weights
from eval.sample import sample_scale

if TYPE_CHECKING:
    from add.config.scale import Scale


class Job(BaseModel):
    """One system to sample: `steps` steps into `out`/<prompt set>-<steps>step."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    system: Annotated[str, Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)]
    out: Annotated[str, Field(min_length=1)]
    guidance: Annotated[float, Field(gt=0)] = 1.0
    revision: str | None = None
    sha256: str | None = None
    files: dict[str, str | None] | None = None


def read_jobs(text: str) -> tuple[Job, ...]:
    """The jobs in a JSON list. Raises InputError with the entry and the field that is wrong."""
    try:
        return tuple(TypeAdapter(list[Job]).validate_json(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"jobs: {problems}") from error


def sample_jobs(scale: Scale, jobs: tuple[Job, ...], device: str) -> None:
    """Sample each job on the study's prompts. Raises InputError, WeightsError, OSError."""
    from eval.systems import load_system

    if scale.study is None:
        raise InputError(f"the scale '{scale.name}' has no study")
    for job in jobs:
        directory = local_directory(job.system, job.revision, job.files)
        if job.sha256 is not None or job.files is not None:
            check_weights(directory, job.sha256, job.files)
        system = load_system(str(directory), job.guidance, device)
        sample_scale(system, scale, [job.steps], Path(job.out), [scale.study.prompts])


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.preferences.sample_study", description=__doc__)
    parser.add_argument("--scale", type=Path, required=True, help="config/<scale>.yaml")
    parser.add_argument("--jobs", required=True, help="JSON list of systems to sample")
    parser.add_argument("--device", help="default: cuda where there is one")
    options = parser.parse_args(arguments)

    import torch

    from add.config.load import load_scale

    scale = load_scale(options.scale)
    torch.set_num_threads(scale.training.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    sample_jobs(scale, read_jobs(options.jobs), device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
