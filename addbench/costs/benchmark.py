"""What rate did ADD's step reach in a benchmark on the device that will train? From benchmarks/gpu_step.py's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from add.spec_yaml import SpecError
from addbench.costs.timing import Rate

STEP = "add.step"
"""The row of this project's own step; the other is the same step written plainly."""


class _Row(BaseModel):
    name: str
    batch: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(gt=0)] | None


class _Modelled(BaseModel):
    step_flops: Annotated[int, Field(gt=0)]


class _Benchmark(BaseModel):
    """What is read of the file; it says more."""

    model_config = ConfigDict(extra="ignore")

    size: Literal["sd21", "sdxl", "tiny"]
    batch: Annotated[int, Field(gt=0)]
    device: str
    rows: list[_Row]
    modelled: _Modelled


def benchmark_rate(file: Path) -> Rate:
    """The counted operations of the timed step over its seconds, taken for sampling too.

    Raises SpecError where the file is none of `python -m benchmarks.gpu_step`, or the step did not fit.
    """
    name = file.as_posix()
    try:
        found = _Benchmark.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(name, 1, f"cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(name, 1, f"{where}: {first['msg']}; {_MADE_BY}") from None
    except ValueError as error:
        raise SpecError(name, 1, f"is not JSON: {error}; {_MADE_BY}") from None
    row = next((row for row in found.rows if row.name == STEP), None)
    if row is None or row.seconds is None:
        raise SpecError(name, 1, f"has no timed row '{STEP}': the step did not fit; time smaller batches")
    rate = found.modelled.step_flops * row.batch / found.batch / row.seconds
    said = (
        f"{rate / 1e12:.3g} TFLOP/s, as {name} measured a step of {found.size}'s size with {row.batch} images on "
        f"{found.device}; sampling is taken to reach it too"
    )
    return Rate(rate, rate, "scaled", said)


_MADE_BY = "it should be a file that `python -m benchmarks.gpu_step` wrote"
