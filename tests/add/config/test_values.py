"""Values of settings: what is the same value, what is no value, and what the repository's files hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from add.config.load import load_ablations, load_baseline, load_run, load_scale
from add.config.resolve import resolve
from add.config.run import DiscriminatorSpec, LossSpec, Variant
from add.config.scale import CocoPromptsSpec
from add.config.training import TrainingSpec
from add.config.yaml import SpecError, nearest, read_yaml
from tests.support.specs import ROOT, copy_settings, edit, table_of

BASE = "ablations/baseline.yaml"
TRAINING = load_scale(ROOT / "config/mini.yaml").training.model_dump(exclude={"seeds"})


def test_integers_are_accepted_where_a_float_is_expected():
    assert (
        LossSpec(adversarial=1, distillation="none", distillation_weight=2, space="pixel").distillation_weight
        == 2.0
    )


def test_conditioning_has_one_order():
    pair = [
        DiscriminatorSpec(features="x", conditioning=order, r1_gamma=0.0)
        for order in (("image", "text"), ("text", "image"))
    ]
    assert pair[0] == pair[1]
    assert pair[0].conditioning == ("text", "image")
    assert DiscriminatorSpec(features="x", conditioning=(), r1_gamma=0.0).conditioning == ()


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_a_loss_without_terms_is_refused(weight):
    with pytest.raises(ValidationError, match="nothing would train the student"):
        LossSpec(adversarial=0.0, distillation="none", distillation_weight=weight, space="pixel")
    with pytest.raises(ValidationError, match="nothing would train the student"):
        LossSpec(adversarial=0.0, distillation="sds", distillation_weight=0.0, space="pixel")


def test_models_are_frozen():
    baseline = load_baseline(ROOT / BASE)
    with pytest.raises(ValidationError, match="frozen"):
        baseline.student = "sdxl"


def test_where_a_document_was_read_is_no_part_of_its_value(tmp_path):
    root = copy_settings(tmp_path)
    edit(root / BASE, "student:", "# one line more\nstudent:")
    assert load_baseline(root / BASE) == load_baseline(ROOT / BASE)


def test_a_run_written_as_json_reads_back_equal(tmp_path):
    for run in table_of(ROOT).runs.values():
        path = tmp_path / "spec.json"
        path.write_text(run.model_dump_json(indent=2))
        assert load_run(path) == run


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"student"', '"studnt"', "did you mean 'student'"),
        ('"steps":155', '"steps":"155"', "training.steps"),
        ("{", "", "spec.json:1"),
    ],
)
def test_a_broken_run_is_refused(tmp_path, old, new, message):
    path = tmp_path / "spec.json"
    path.write_text(table_of(ROOT).runs["baseline"].model_dump_json().replace(old, new, 1))
    with pytest.raises(SpecError, match=message):
        load_run(path)


@pytest.mark.parametrize("scale", ["mini", "smoke"])
def test_every_value_of_a_scale_says_whose_it_is(scale):
    path = ROOT / f"config/{scale}.yaml"
    values, origin = read_yaml(path)
    texts = path.read_text("utf-8").splitlines()

    def leaves(node, loc):
        if isinstance(node, dict):
            for key, value in node.items():
                yield from leaves(value, (*loc, key))
        else:
            yield loc

    marks = {loc: texts[origin.line(loc) - 1].partition("# ")[2] for loc in leaves(values, ())}
    assert len(marks) > 100
    assert [loc for loc, mark in marks.items() if not mark.startswith(("ours", "paper"))] == []


def test_nearest_suggests_the_likely_word_and_lists_all_where_none_is():
    assert nearest("vit_s_dino2", ["vit_s_dinov2", "sdxl"]) == "; did you mean 'vit_s_dinov2'?"
    assert nearest("qqq", ["b", "a"]) == "; known: a, b"


ENDING = st.sets(st.integers(1, 998), max_size=5).map(lambda steps: [*sorted(steps), 999])


@given(st.lists(st.integers(-5, 1005), min_size=1, max_size=6) | ENDING)
def test_student_timesteps_are_accepted_exactly_when_they_increase_from_1_to_999(steps):
    good = steps == sorted(set(steps)) and steps[0] >= 1 and steps[-1] == 999
    values = {**TRAINING, "student_timesteps": tuple(steps), "student_timestep_weights": (1.0,) * len(steps)}
    try:
        assert TrainingSpec.model_validate(values).student_timesteps == tuple(steps)
        assert good
    except ValidationError:
        assert not good


@given(st.text(max_size=12))
def test_no_text_whatever_reaches_a_number_as_a_number(text):
    values = load_baseline(ROOT / BASE).model_dump()
    values["loss"]["distillation_weight"] = text
    with pytest.raises(ValidationError):
        Variant.model_validate(values)


def test_resolution_needs_no_file(tmp_path, monkeypatch):
    """Nothing is read or written at parse time beyond the YAML files."""
    scale, baseline = load_scale(ROOT / "config/mini.yaml"), load_baseline(ROOT / BASE)
    ablations = load_ablations(ROOT / "ablations")
    monkeypatch.chdir(tmp_path)
    assert len(resolve(scale, baseline, ablations).runs) == 17
    assert list(tmp_path.iterdir()) == []


def test_fewer_images_at_more_steps():
    whole = CocoPromptsSpec(
        kind="coco", annotations="a.json", caption_rule="first", rule_seed=0, count=40, count_more_steps=10
    )
    assert [whole.at(steps).count for steps in (1, 2, 4)] == [40, 10, 10]
    assert whole.at(4) == CocoPromptsSpec(
        kind="coco", annotations="a.json", caption_rule="first", rule_seed=0, count=10
    ), "the set is known by what it is, not by what it is a part of"
    with pytest.raises(ValueError, match="`count_more_steps` is 50, and `count` 40"):
        CocoPromptsSpec.model_validate({**whole.model_dump(), "count_more_steps": 50})
    with pytest.raises(ValueError, match="leave `count_more_steps` out"):
        CocoPromptsSpec.model_validate({**whole.model_dump(), "present": 5})
