"""The scale's study section: refused with file, line and the nearest name; which systems it shows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from add.config.load import load_baseline, load_scale
from add.config.resolve import resolve
from add.config.yaml import SpecError
from addbench.workflow import ComparedSystems, StudyFiles, plan_compared, report_study
from tests.support.specs import copy_settings, edit, table_of

MINI = "config/mini.yaml"


def plan_of(root: Path, scale: str = "mini") -> StudyFiles:
    return plan_compared(
        load_scale(root / f"config/{scale}.yaml"), table_of(root, scale), f"results/{scale}"
    ).study


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(copy_settings(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        # the section's own rules
        ("  raters: 10", "  rater: 10", 0, "unknown key 'study.rater'; did you mean 'raters'?"),
        ("  votes_per_pair: 20", "  votes_per_pair: 0", 0, "study.votes_per_pair: should be greater than"),
        ("  raters: 10", "  raters: ten", 0, "study.raters: should be a valid integer, not 'ten'"),
        ('- "ADD, 2 steps"', '- "=1+1"', 0, "study.systems[1]: String should match pattern"),
        ('- "ADD, 2 steps"', '- "ADD, 1 step"', -2, "names a system twice"),
        ("{kind: realism}", "{kind: realsm}", 0, "'realsm' is not a choice; did you mean 'realism'?"),
        ("{kind: scene_graph}", "{kind: realism}", -1, "realism is listed twice"),
        ('focus: ["ADD, 1 step", "ADD, 4 steps"]', "focus: []", 0, "study.focus"),
        # against other sections and the systems
        ("  prompts: parti  ", "  prompts: party  ", 0, "no set 'party'; did you mean 'parti'?"),
        (
            '- "ADD, 2 steps"',
            '- "ADD, 3 steps"',
            0,
            "systems/mini has no system 'ADD, 3 steps'; did you mean",
        ),
        ('focus: ["ADD, 1 step",', 'focus: ["ADD, 1 stp",', 0, "did you mean 'ADD, 1 step'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_the_nearest_name(
    root: Path, old: str, new: str, line: int, message: str
):
    at = edit(root / MINI, old, new)
    with pytest.raises(SpecError) as error:
        plan_of(root)
    problems = [p for p in error.value.problems if message in p.message]
    assert problems, str(error.value)
    assert problems[0].line == at + line
    assert problems[0].file.endswith(MINI)


def test_a_study_needs_a_folder_of_systems(root: Path):
    edit(root / MINI, "systems: systems/mini  ", "# none  ")
    with pytest.raises(SpecError, match="`systems` names no folder of them"):
        plan_of(root)


def test_the_scene_graph_needs_an_oracle(root: Path):
    text = (root / MINI).read_text()
    head, _, tail = text.partition("  oracle:\n")
    (root / MINI).write_text(head + "  oracle: null\n" + tail[tail.index("  batch:") :])
    with pytest.raises(SpecError, match=r"study\.automatic\[0\]: scene_graph needs evaluation\.oracle"):
        plan_of(root)


def test_what_the_table_has_is_taken_from_there(root: Path):
    plan = plan_of(root)
    assert len(plan.systems) == 10
    assert plan.samples[:2] == [
        "results/mini/baseline/seed0/samples/parti-1step/samples.json",
        "results/mini/systems/add-seed0/samples/parti-2step/samples.json",
    ]
    assert plan.samples[-1] == "results/mini/systems/sdxl/samples/parti-25step/samples.json"
    entries = json.loads(plan.entries)
    assert [set(entry) for entry in entries] == [{"name", "samples"}] * 10
    assert ("baseline", 0) in plan.trained


def test_raters_may_have_to_choose(root: Path):
    assert "--no-ties" not in plan_of(root).options
    text = (root / MINI).read_text()
    (root / MINI).write_text(text.replace("  trials_per_rater:", "  ties: false\n  trials_per_rater:"))
    assert plan_of(root).options.endswith(" --no-ties")


def test_a_scale_without_a_study_has_an_empty_plan(root: Path):
    text = (root / MINI).read_text()
    (root / MINI).write_text(text[: text.index("\nstudy:")] + "\n")
    plan = plan_of(root)
    assert (plan.systems, plan.samples, plan.options) == ((), [], "")


def test_votes_and_keys_that_are_there_are_found_in_order(root: Path):
    folder = root / "preferences"
    folder.mkdir()
    for name in ("b.csv", "a.csv", "study-x.key.json", "README.md"):
        (folder / name).write_text("")
    plan = plan_of(root)
    assert plan.records == ("preferences/a.csv", "preferences/b.csv")
    assert plan.keys == ("preferences/study-x.key.json",)
    assert plan_of(root, "smoke").records == ()


def test_a_table_whose_systems_are_not_rated_asks_for_no_ratings(root: Path):
    """Breaks when another folder of ablations cannot be reported in a clone that never made the table."""
    scale, baseline = load_scale(root / MINI), load_baseline(root / "ablations/baseline.yaml")
    table = resolve(scale, baseline, ())
    compared = plan_compared(scale, table_of(root, "mini"), "results/mini")
    for each, rated in ((compared, True), (ComparedSystems(), False)):
        assert bool(report_study(scale, baseline, table, each).focus) is rated


def test_a_folder_of_its_own_that_has_the_rated_rows_makes_their_images(root: Path):
    """Breaks when no rule makes what the study shows beside the table's samples: then nothing can be planned."""
    table = table_of(root, "mini")
    found = plan_compared(load_scale(root / MINI), table, "results/mini", whole=False)
    assert found.systems == ()
    made = found.wildcards("sampled").split("|") + found.wildcards("handed in").split("|")
    for system in found.study.systems:
        if system.own:
            assert system.wildcard in made + [f"{s.wildcard}" for s in found.study.systems if s.student]
            assert (
                found.by_wildcards(SimpleNamespace(system=system.wildcard, steps=str(system.steps))) == system
            )
    assert found.study.systems
