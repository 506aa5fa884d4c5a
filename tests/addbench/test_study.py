"""The scale's study section: refused with file, line and the nearest name; what is sampled for it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from add.config.load import load_baseline, load_scale
from add.config.resolve import resolve
from add.config.yaml import SpecError
from addbench.workflow import StudyFiles, report_values, study_plan
from eval.preferences.study.sources import read_jobs
from tests.support.specs import copy_settings, edit, table_of

MINI = "config/mini.yaml"
ONE = '{label: "baseline, 1 step", run: baseline, seed: 0, steps: 1}'
TEACHER = "pipeline: sd21, steps: 25, guidance: 2.0"


def plan_of(root: Path, scale: str = "mini") -> StudyFiles:
    return study_plan(load_scale(root / f"config/{scale}.yaml"), table_of(root, scale), f"results/{scale}")


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
        ("steps: 2}", "steps: 3}", 0, "a student is sampled by 1, 2 or 4 steps, not 3"),
        ("run: baseline, seed: 0, steps: 2", "run: baseline, steps: 2", 0, "a run needs its training `seed`"),
        (TEACHER, "pipeline: sd21, steps: 25", 0, "a pipeline needs `guidance`"),
        (TEACHER, f"run: baseline, {TEACHER}", 0, "needs either `run`"),
        (TEACHER, f"seed: 0, {TEACHER}", 0, "was not trained here"),
        ("run: baseline, seed: 0, steps: 2", "steps: 2", 0, "needs either `run`"),
        ("seed: 0, steps: 2}", "seed: 0, steps: 2, guidance: 2.0}", 0, "a student has no guidance"),
        ('label: "baseline, 2 steps"', 'label: "=1+1"', 0, "study.systems[1].label: String should match"),
        ('label: "baseline, 2 steps"', 'label: "unknown"', 0, "has a special meaning"),
        ('label: "baseline, 2 steps"', 'label: "attention-check"', 0, "has a special meaning"),
        ("{kind: realism}", "{kind: realsm}", 0, "'realsm' is not a choice; did you mean 'realism'?"),
        ("{kind: scene_graph}", "{kind: realism}", -1, "realism is listed twice"),
        ('focus: ["baseline, 1 step", "baseline, 4 steps"]', "focus: []", 0, "study.focus"),
        # against other sections and the table
        ("  prompts: parti  ", "  prompts: party  ", 0, "no set 'party'; did you mean 'parti'?"),
        (
            "run: loss_terms-l-adv,",
            "run: loss_terms-ladv,",
            0,
            "no run 'loss_terms-ladv'; did you mean 'loss",
        ),
        (
            TEACHER,
            TEACHER.replace("sd21", "sd15"),
            0,
            "networks.diffusion has no 'sd15'; did you mean 'sd21'?",
        ),
        ('focus: ["baseline, 1 step",', 'focus: ["baseline, 1 stp",', 0, "did you mean 'baseline, 1 step'?"),
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


def test_one_system_under_two_names_and_one_name_for_two_are_refused(root: Path):
    edit(root / MINI, 'label: "baseline, 2 steps"', 'label: "baseline, 1 step"')
    with pytest.raises(SpecError, match="entries 1 and 2 are both called 'baseline, 1 step'"):
        plan_of(root)
    edit(root / MINI, ONE, ONE.replace("1 step", "the same").replace("steps: 1}", "steps: 2}"))
    with pytest.raises(SpecError, match="are the same system"):
        plan_of(root)


def test_the_scene_graph_needs_an_oracle(root: Path):
    text = (root / MINI).read_text()
    head, _, tail = text.partition("  oracle:\n")
    (root / MINI).write_text(head + "  oracle: null\n" + tail[tail.index("  batch:") :])
    with pytest.raises(SpecError, match=r"study\.automatic\[0\]: scene_graph needs evaluation\.oracle"):
        plan_of(root)


def test_what_the_table_has_is_taken_from_there_and_the_rest_is_sampled(root: Path):
    plan = plan_of(root)
    assert len(plan.systems) == 10
    assert plan.samples[0] == "results/mini/baseline/seed0/samples/parti-1step/samples.json"
    assert [s.label for s in plan.extra] == [
        "baseline, 2 steps",
        "SD2.1 teacher, 25 steps",
        "SDXL teacher, 25 steps",
    ]
    assert plan.extra_students == ["results/mini/baseline/seed0/student"]
    assert plan.extra_samples[:2] == [
        "results/mini/study_samples/baseline-seed0/parti-2step/samples.json",
        "results/mini/study_samples/sd21-guidance2/parti-25step/samples.json",
    ]
    entries = json.loads(plan.entries)
    assert [set(entry) for entry in entries] == [{"name", "samples"}] * 10
    jobs = read_jobs(plan.jobs)
    assert [(job.steps, job.guidance) for job in jobs] == [(2, 1.0), (25, 2.0), (25, 2.0)]
    networks = load_scale(root / MINI).networks.diffusion
    assert (jobs[1].system, jobs[1].sha256) == (networks["sd21"].path, networks["sd21"].sha256)


def test_raters_may_have_to_choose(root: Path):
    assert "--no-ties" not in plan_of(root).options
    text = (root / MINI).read_text()
    (root / MINI).write_text(text.replace("  trials_per_rater:", "  ties: false\n  trials_per_rater:"))
    assert plan_of(root).options.endswith(" --no-ties")


def test_a_job_with_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"0\.step: Extra inputs"):
        read_jobs('[{"system": "s", "prompts": "p", "out": "o", "steps": 1, "step": 2}]')


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
    for rated in (True, False):
        study = json.loads(report_values(scale, baseline, table, rated)(None))
        assert bool(study["focus"]) is rated
