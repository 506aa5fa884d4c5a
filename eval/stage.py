"""What does each stage read of a scale? Just these values, resolved once and given to the job as JSON.

The workflow reads a scale's YAML before the first job starts, and no job reads it again: an edit while jobs run
cannot mix two protocols. A stage is run again when one of its own values changes, and for no other value.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from add.config.scale import EvaluationSpec, PromptsSpec, SamplingSpec, TimingSpec
from add.config.study import AutomaticRater
from add.config.system import Dtype
from add.config.types import Count, Frozen, Name, Seed, Text
from add.errors import InputError

if TYPE_CHECKING:
    from add.config.scale import Scale


_VALUES = TypeVar("_VALUES", bound=Frozen)
PromptSet = Annotated[PromptsSpec, Field(discriminator="kind")]


class StageValues(Frozen):
    """The values of one stage; its fields are some of those that `_values_of` finds in a scale."""

    @classmethod
    def of(cls, scale: Scale) -> Self:
        """This stage's values out of a scale. Raises InputError where the scale leaves out what this needs."""
        values = _values_of(scale)
        if missing := [name for name in cls.model_fields if name not in values]:
            if missing == ["timing"]:
                raise InputError(
                    f"the scale '{scale.name}' has no `timing`, which says how systems are timed"
                )
            raise InputError(f"the scale '{scale.name}' has no study, and so no {' and no '.join(missing)}")
        return cls.model_validate({name: values[name] for name in cls.model_fields})

    @classmethod
    def read(cls, text: str) -> Self:
        """The values of a stage's option `--scale`: JSON from the workflow, or a scale's YAML file.

        Raises InputError with every value that is wrong; SpecError for a YAML file.
        """
        if not text.lstrip().startswith("{"):
            from add.config.load import load_scale

            return cls.of(load_scale(text))
        return read_option(cls, "--scale", text)


class SampleValues(StageValues):
    """For sampling: every field decides which images are drawn, or their bits."""

    threads: Count
    device: Text | None = None
    sampling: SamplingSpec


class TimingValues(StageValues):
    """For timing systems. dtype: of those that name none."""

    threads: Count
    device: Text | None = None
    dtype: Dtype | None = None
    timing: TimingSpec


class MeasureValues(StageValues):
    """For measuring images of any system. `seed` is the sampling seed, which protocols state.

    identities: which metrics there are, and by which rule a protocol has its id; under another, what was measured is
    measured again.
    """

    name: Name
    notice: Text | None
    threads: Count
    device: Text | None = None
    seed: Seed
    prompts: dict[Name, PromptSet]
    evaluation: EvaluationSpec
    identities: Literal[3] = 3


class ScoreValues(MeasureValues):
    """For scoring a run, which is sampled by each of the numbers of `steps`."""

    steps: tuple[int, ...]


class RaterValues(StageValues):
    """For the study's automatic raters."""

    name: Name
    threads: Count
    device: Text | None = None
    evaluation: EvaluationSpec
    automatic: tuple[AutomaticRater, ...]


class RatingValues(StageValues):
    """For rating the votes: the folder of people's `records`, and the prompt set that was compared."""

    name: Name
    records: Text
    rating_seed: Seed
    compared: PromptSet


def read_option(model: type[_VALUES], option: str, text: str) -> _VALUES:
    """The JSON that an option gives, as a `model`. Raises InputError with every value that is wrong."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        places = ((".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
        raise InputError.of(f"{option}: {place}: {message}" for place, message in places) from error


def add_scale_option(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """The option `--scale` of a stage, for `StageValues.read`."""
    parser.add_argument(
        "--scale",
        required=required,
        metavar="FILE|JSON",
        help="config/<scale>.yaml, or this stage's values as JSON",
    )


def _values_of(scale: Scale) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": scale.name,
        "notice": scale.notice,
        "threads": scale.training.threads,
        "device": scale.training.device,
        "sampling": scale.sampling,
        "steps": scale.sampling.steps,
        "seed": scale.sampling.seed,
        "prompts": scale.sampling.prompts,
        "evaluation": scale.evaluation,
        "identities": 3,
        "dtype": scale.sampling.dtype,
    }
    if scale.timing is not None:
        values["timing"] = scale.timing
    if scale.study is not None:
        values |= {
            "records": scale.study.records,
            "rating_seed": scale.study.seed,
            "automatic": scale.study.automatic,
            "compared": scale.sampling.prompts[scale.study.prompts],
        }
    return values
