"""What all settings share: strict frozen models, constrained types, and the file and line of each value."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from add.config.yaml import Origin

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]


def _visible(value: str) -> str:
    for character in value:
        if not character.isprintable():
            code = f"U+{ord(character):04X} ({unicodedata.name(character, 'a control character')})"
            raise ValueError(f"holds {code}, which no reader sees or can type; delete it")
    return value


Line = Annotated[str, Field(min_length=1), AfterValidator(_visible)]
"""Text in one line, of characters that can be seen."""
Label = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9](?:[^\t\r\n]*\S)?$", max_length=60), AfterValidator(_visible)
]
"""Name of a system in votes, ratings and the report. It starts with a letter or digit, so that no
spreadsheet takes it for a formula, and has no space at its end.
"""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
WeightFiles = Annotated[
    dict[Annotated[str, Field(pattern=r"^\w[^/\\]*(/\w[^/\\]*)*$")], Sha256 | None], Field(min_length=1)
]
Count = Annotated[int, Field(ge=1)]
FEWEST_IMAGES = 3
"""Images that the jackknife of a distance needs."""
ImageCount = Annotated[int, Field(ge=FEWEST_IMAGES)]
"""A number of images that are measured."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Channels = tuple[float, float, float]
Deviations = tuple[Positive, Positive, Positive]


def distinct(what: str) -> AfterValidator:
    """A validator of a tuple whose entries must differ; `what` is the word for an entry ("a seed")."""

    def check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"names {what} twice: {list(value)}")
        return value

    return AfterValidator(check)


def _increasing(value: tuple[int, ...]) -> tuple[int, ...]:
    if any(first >= second for first, second in pairwise(value)):
        raise ValueError(f"should be strictly increasing, not {list(value)}")
    return value


Increasing = AfterValidator(_increasing)
"""A validator of a tuple whose entries must each be above the one before."""


def _integer(value: Any) -> Any:
    if isinstance(value, bool | float):  # 1 == 1.0 == True, so Literal alone would let them pass
        raise ValueError(f"should be the integer 1, 2 or 4, not {str(value).lower()}")
    return value


StepCount = Annotated[Literal[1, 2, 4], BeforeValidator(_integer)]
"""A number of steps, of the teacher's chain or of sampling."""

WITH_NULLS = {"nulls": True}
"""The context of a `model_dump` that shows optional settings that are null, for people to read."""


class Frozen(BaseModel):
    """Strict: no unknown key, no text taken for a number, no boolean for an integer, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        # An optional setting that is null is not part of the values: a new one changes no hash of older results.
        values, declared = handler(self), type(self).model_fields
        if info.context == WITH_NULLS:
            return values
        return {k: v for k, v in values.items() if v is not None or declared[k].default is not None}


class Document(Frozen):
    """Settings that have their own file; errors found later still name the file and the line."""

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def origin(self) -> Origin:
        """The file and its lines."""
        return self._origin

    def read_from(self, origin: Origin) -> None:
        """Remember where this was read."""
        self._origin = origin
