"""What do all settings share? Strict frozen models, constrained types, and the memory of file and line."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from add.config.yaml import Origin

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
WeightFiles = Annotated[
    dict[Annotated[str, Field(pattern=r"^\w[^/\\]*(/\w[^/\\]*)*$")], Sha256 | None], Field(min_length=1)
]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Channels = tuple[float, float, float]
Deviations = tuple[Positive, Positive, Positive]


def increasing(value: tuple[int, ...]) -> tuple[int, ...]:
    """`value`; raises ValueError where an entry is not above the one before."""
    if any(first >= second for first, second in pairwise(value)):
        raise ValueError(f"should be strictly increasing, not {list(value)}")
    return value


def without_unset(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Serialised `values` without those of `keys` that are null: they came later than results that have none.

    A setting that leaves them out has the values it had before they existed, so nothing is run again for it.
    """
    return {k: v for k, v in values.items() if v is not None or k not in keys}


class Frozen(BaseModel):
    """Strict: no unknown key, no text taken for a number, no boolean for an integer, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Document(Frozen):
    """Something read from one file of its own; errors found later still name the file and the line."""

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def origin(self) -> Origin:
        """The file and its lines."""
        return self._origin

    def read_from(self, origin: Origin) -> None:
        """States where this was read."""
        self._origin = origin
