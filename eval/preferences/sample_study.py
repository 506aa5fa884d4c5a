"""Sample the systems that only the study compares, in one process.

    python -m eval.preferences.sample_study --scale config/mini.yaml --jobs '[{"system": ...}, ...]'

A job is {"system": directory or hub id, "prompts": set, "steps": k, "out": folder} for a student, and besides
"guidance", "revision" and "sha256" for a pretrained pipeline. Only that prompt set is sampled, by the scale's own
seed and batch, so an image is the one that eval.sample makes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from add.device import add_device_option, open_device
from add.errors import InputError, refuses
from add.models.hub import local_directory
from add.models.weights import check_weights
from eval.sample import sample_sets
from eval.stage import SampleValues, add_scale_option

if TYPE_CHECKING:
    from add.config.scale import SamplingSpec


class Job(BaseModel):
    """One system to sample on the set `prompts`: `steps` steps into `out`/<prompts>-<steps>step."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    system: Annotated[str, Field(min_length=1)]
    prompts: Annotated[str, Field(min_length=1)]
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


def sample_jobs(sampling: SamplingSpec, jobs: tuple[Job, ...], device: str) -> None:
    """Sample each job on its prompts. Raises ValueError, OSError, InputError, WeightsError."""
    from eval.sample import load_system

    for job in jobs:
        directory = local_directory(job.system, job.revision, job.files)
        if job.sha256 is not None or job.files is not None:
            check_weights(directory, job.sha256, job.files)
        system = load_system(str(directory), job.guidance, device)
        sample_sets(system, sampling, [job.steps], Path(job.out), [job.prompts])


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.preferences.sample_study", description=__doc__)
    add_scale_option(parser)
    parser.add_argument("--jobs", required=True, help="JSON list of what to sample")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    values = SampleValues.read(options.scale)
    device = open_device(options.device, values.device, values.threads)
    sample_jobs(values.sampling, read_jobs(options.jobs), device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
