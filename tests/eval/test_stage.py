"""What a stage reads of a scale: from the workflow's JSON as from the YAML, and nothing that another stage reads."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from add.config.load import load_scale
from add.config.scale import TimingSpec
from add.errors import InputError
from eval.stage import (
    MeasureValues,
    RaterValues,
    RatingValues,
    SampleValues,
    ScoreValues,
    StageValues,
    TimingValues,
)
from tests.support.smoke import REPOSITORY

STAGES = [MeasureValues, RaterValues, RatingValues, SampleValues, ScoreValues]


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_json_of_the_workflow_says_what_the_yaml_says(stage: type[StageValues], scale: str) -> None:
    file = REPOSITORY / f"config/{scale}.yaml"
    values = stage.of(load_scale(file))
    assert stage.read(values.model_dump_json()) == stage.read(str(file)) == values


def test_prompt_sets_keep_their_order() -> None:
    scale = load_scale(REPOSITORY / "config/smoke.yaml")
    turned = dict(reversed(scale.sampling.prompts.items()))
    changed = scale.model_copy(update={"sampling": scale.sampling.model_copy(update={"prompts": turned})})
    assert list(MeasureValues.read(MeasureValues.of(changed).model_dump_json()).prompts) == list(turned)


def test_a_scale_without_a_study_has_nothing_to_rate() -> None:
    scale = load_scale(REPOSITORY / "config/smoke.yaml").model_copy(update={"study": None})
    assert ScoreValues.of(scale).name == "smoke"
    with pytest.raises(InputError, match="the scale 'smoke' has no study, and so no automatic"):
        RaterValues.of(scale)


def test_a_wrong_value_is_named() -> None:
    text = SampleValues.of(load_scale(REPOSITORY / "config/smoke.yaml")).model_dump_json()
    with pytest.raises(InputError, match=r"--scale: threads: .* greater than or equal to 1"):
        SampleValues.read(text.replace('"threads":1', '"threads":0'))


def test_a_scale_that_says_not_how_systems_are_timed_times_none() -> None:
    scale = load_scale(REPOSITORY / "config/smoke.yaml")
    assert TimingValues.read(TimingValues.of(scale).model_dump_json()).timing == scale.timing
    with pytest.raises(InputError, match="has no `timing`"):
        TimingValues.of(scale.model_copy(update={"timing": None}))
    assert scale.timing is not None
    with pytest.raises(ValidationError, match="should begin with 1"):
        TimingSpec.model_validate({**scale.timing.model_dump(), "batches": (2, 4)})
