"""What real images score: reference.json, read and compared with the table's own protocols."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reports.results import Finite, Metric, read_json
from reports.study import ReportError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Blur(_Frozen):
    """FID of the same images blurred; `factor` is that over the floor (None where the floor is nought)."""

    sigma_pixels: Finite
    fid: Finite
    factor: Finite | None = None


class RealImages(_Frozen):
    """The real images of one prompt set, measured as if they were a system's."""

    prompts: str
    images: Annotated[int, Field(ge=1)]
    metrics: dict[str, Metric]
    blur: Blur | None = None


class Reference(_Frozen):
    """reference.json: the set that FID compares with, and what real images score."""

    reference: dict[str, Any]
    real: tuple[RealImages, ...]


@dataclass(frozen=True)
class Floor:
    """What real images score by one metric, under the very protocol of a column."""

    metric: str
    value: float


def read_reference(path: Path) -> Reference | None:
    """reference.json, or None where there is none. Raises ReportError with the file and the wrong field."""
    if not path.exists():
        return None
    try:
        return Reference.model_validate(read_json(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ReportError(f"{path}: {problems}; make it again with `python -m eval.reference`") from error
