"""Which runs a study makes next, and that a study that follows the plan gets its verdicts."""

from __future__ import annotations

from collections import Counter

import numpy as np

from add.config.resolve import Finding
from eval.findings.contrasts import Observation, fit
from eval.findings.page import Answer
from eval.findings.plan import FIRST_SEED, next_jobs, next_seed, wanted_runs
from eval.findings.verdicts import FIRST_LOOK, Claim, judge, look

FULL = {"baseline": 2 * FIRST_LOOK, "a": FIRST_LOOK, "b": FIRST_LOOK, "c": FIRST_LOOK}


def answer(row: str, difference: float, counts: dict[str, int]) -> Answer:
    """Of `row is better than baseline`, with this difference in units of one run's deviation."""
    rng = np.random.default_rng(1)
    observations = []
    for run, count in counts.items():
        noise = rng.standard_normal(count)
        noise -= noise.mean()
        observations += [
            Observation(run, k, "p", float(v) + difference * (run == row)) for k, v in enumerate(noise)
        ]
    claim = Claim(f"{row} is better", (row,), "better", ("baseline",), 0.001, True)
    finding = Finding("a", claim.text, None, "fid", 1, (row,), "better", ("baseline",), None, {}, "x.yaml:1")
    return Answer(finding, judge([claim], [fit(observations)])[0])


def test_before_the_first_look_rows_are_filled_evenly_and_the_default_twice():
    every = wanted_runs("baseline", dict.fromkeys(FULL, 0), ())
    assert every[:5] == [*FULL, "baseline"]
    assert Counter(every) == FULL, "each as often as it lacks runs"
    assert wanted_runs("baseline", {**FULL, "b": 6, "c": 5}, ()) == ["c", "b", "c", "b", "c"]
    assert wanted_runs("baseline", {**FULL, "baseline": 14, "c": 6}, ()) == [
        "c",
        "baseline",
        "c",
        "baseline",
    ]


def test_then_the_claim_that_needs_fewest_runs_comes_first():
    near, far = answer("a", 0.5, FULL), answer("b", 0.35, FULL)
    assert near.verdict == far.verdict == "undecided"
    wanted = wanted_runs("baseline", FULL, (far, near))
    assert wanted[:3] == ["a", "baseline", "baseline"], "evenly to the next look, the default twice as fast"
    assert Counter(wanted) == {"baseline": 2 * FIRST_LOOK, "a": FIRST_LOOK, "b": FIRST_LOOK}
    assert wanted[-FIRST_LOOK:] == ["b"] * FIRST_LOOK, "the claim that needs more comes after"
    # The row that is furthest from the next look comes first.
    assert wanted_runs("baseline", {**FULL, "a": FIRST_LOOK + 1}, (near,))[0] == "baseline"
    assert set(wanted_runs("baseline", {**FULL, "baseline": 4 * FIRST_LOOK}, (near,))) == {"a"}


def test_a_decided_claim_and_one_out_of_reach_ask_for_nothing():
    decided, hopeless = answer("a", 5.0, FULL), answer("b", 1e-3, FULL)
    assert decided.verdict == "reproduced"
    assert hopeless.judged is not None
    assert hopeless.judged.more is None
    assert wanted_runs("baseline", FULL, (decided, hopeless)) == []


def test_jobs_are_the_first_that_are_wanted_and_take_each_seed_once():
    taken = {"a": {FIRST_SEED, FIRST_SEED + 2}}
    assert next_jobs(["a", "b"] * 4, taken, 5) == [
        ("a", FIRST_SEED + 1),
        ("b", FIRST_SEED),
        ("a", FIRST_SEED + 3),
        ("b", FIRST_SEED + 1),
        ("a", FIRST_SEED + 4),
    ]
    assert next_jobs([], taken, 5) == []
    assert next_seed(()) == FIRST_SEED


def test_a_study_that_follows_the_plan_decides_its_claim():
    rng = np.random.default_rng(2)
    counts = dict.fromkeys(FULL, 0)
    runs: list[Observation] = []
    claim = Claim("a is better", ("a",), "better", ("baseline",), 0.001, True)
    finding = Finding("a", claim.text, None, "fid", 1, ("a",), "better", ("baseline",), None, {}, "x.yaml:1")
    answers: tuple[Answer, ...] = ()
    for _ in range(200):
        wanted = wanted_runs("baseline", counts, answers)
        if not wanted:
            break
        for run, seed in next_jobs(wanted, {}, 4):
            runs.append(
                Observation(run, seed + counts[run], "p", float(rng.standard_normal()) + 0.9 * (run == "a"))
            )
            counts[run] += 1
        if min(counts.values()) > 1:
            seen, level = look(runs, claim)
            answers = (Answer(finding, judge([claim], [fit(seen)], [level])[0]),)
    assert answers[0].verdict == "reproduced"
    assert counts["b"] == counts["c"] == FIRST_LOOK, "rows of no claim are not run further"
