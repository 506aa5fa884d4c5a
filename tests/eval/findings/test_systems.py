"""Claims across systems: which values are compared, whose spread counts, and what cannot be asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from add.config.resolve import Finding
from eval.findings.contrasts import RunSpread, Variance
from eval.findings.page import answers, claim_of
from eval.findings.systems import SystemRuns, fit_system, fit_systems
from eval.result import Result, SystemResult

ADD, LCM, TEACHER = "ADD, 1 step", "LCM, 1 step", "Teacher, 25 steps"


def finding(rows: str = ADD, than: str = LCM, relation: Any = "better", metric: Any = "fid") -> Finding:
    return Finding("systems", "a claim", None, metric, None, (rows,), relation, (than,), None, {}, "a.yaml:3")


def runs(
    label: str, values: list[float], seeds: bool = True, first: float | None = None, **more: Any
) -> SystemRuns:
    """A system with an FID for each seed; `first`: what those of its first images are times this."""
    name, _, words = label.partition(", ")
    steps = int(words.split()[0])
    results: list[Result | SystemResult] = []
    for seed, value in enumerate(values):
        fid = {"value": value, "protocol": "a" * 12, "stderr": 0.02 * value} | more
        measured: dict[str, Any] = {"images": 1000, "metrics": {"fid": fid}}
        system = {"steps": steps, "prompts": "coco", **measured}
        if first is not None:
            part = {**fid, "value": first * value}
            system["metrics"] = {"fid": {**fid, "protocol": "b" * 12}}
            system |= {"images": 4000, "first": {"images": 1000, "metrics": {"fid": part}}}
        facts = {"schema": 1, "scale": "mini", "systems": [system], "protocols": {}, "provenance": {}}
        facts |= {"system": name.lower(), "label": label, "seed": seed if seeds else None}
        results.append(SystemResult.model_validate(facts))
    return SystemRuns(name, steps, "baseline" if name == "ADD" else None, tuple(results))


def test_values_are_of_as_many_images_and_the_teachers_error_counts():
    """By hand: variances of log FID, and the relative error over the teacher's images."""
    systems = {ADD: runs(ADD, [40.0, 44.0, 42.0], first=1.1), TEACHER: runs(TEACHER, [45.0], seeds=False)}
    asked = finding(than=TEACHER)
    found = fit_systems(asked, claim_of(asked), systems, "coco", None).difference(ADD, TEACHER)
    logs = [math.log(1.1 * v) for v in (40.0, 44.0, 42.0)]
    mean = sum(logs) / 3
    variance = sum((v - mean) ** 2 for v in logs) / 2
    assert found.estimate == pytest.approx(mean - math.log(45.0))
    assert found.error == pytest.approx(math.sqrt(variance / 3 + 0.02**2))
    assert found.lasting == pytest.approx(0.02)


def test_a_single_seed_takes_the_spread_from_another_study_by_its_run_and_steps():
    spreads = {
        ("fid", 1, "coco"): RunSpread(Variance(0.03**2, 90.0), {"baseline": Variance(0.05**2, 15.0)}),
        ("fid", 4, "coco"): RunSpread(Variance(0.07**2, 80.0), {}),
    }
    four = "LCM, 4 steps"
    systems = {ADD: runs(ADD, [40.0]), LCM: runs(LCM, [50.0]), four: runs(four, [45.0])}
    for other, deviation in ((LCM, 0.03), (four, 0.07)):
        asked = finding(than=other)
        found = fit_systems(asked, claim_of(asked), systems, "coco", spreads).difference(ADD, other)
        assert found.error == pytest.approx(math.hypot(0.05, deviation))
    two = "ADD, 2 steps"
    (answer,) = answers(
        [finding(two, LCM)],
        {},
        "coco",
        systems={**systems, two: runs(two, [39.0])},
        comparable_spreads=spreads,
    )
    assert answer.verdict == "not tested"
    assert answer.reason is not None
    assert answer.reason.startswith("No study says how far runs by 2 step(s) spread (ADD, 2 steps)")


def test_a_mean_has_the_spread_of_its_runs_and_what_was_not_trained_here_has_none():
    spreads = {("fid", 1, "coco"): RunSpread(Variance(0.03**2, 90.0), {"baseline": Variance(0.05**2, 15.0)})}
    systems = {ADD: runs(ADD, [40.0]), LCM: runs(LCM, [50.0]), TEACHER: runs(TEACHER, [45.0], seeds=False)}
    for label, value, deviation in ((ADD, 40.0, 0.05), (LCM, 50.0, 0.03)):
        found = fit_system(label, "fid", systems, "coco", spreads)
        assert found is not None
        assert found.mean(label).estimate == pytest.approx(math.log(value))
        assert found.mean(label).error == pytest.approx(deviation)
        assert fit_system(label, "fid", systems, "coco", {}) is None, "nothing says how far runs spread"
    assert fit_system(TEACHER, "fid", systems, "coco", spreads) is None
    systems[LCM] = runs(LCM, [50.0, 52.0, 51.0])
    seeds = fit_system(LCM, "fid", systems, "coco", spreads)
    assert seeds is not None
    assert seeds.runs[LCM] == 3, "its own seeds count, not another study's"
    assert seeds.spread.of(LCM).freedom == 2


def test_students_by_as_many_steps_tell_of_the_spread():
    """Breaks where one student's values by several steps, which hang together, count as several students'."""
    others = {
        label: runs(label, values)
        for label, values in {
            "GAN, 1 step": [60.0, 61.0, 63.0],
            "GAN, 4 steps": [50.0, 51.0, 53.0],
            LCM: [50.0, 52.0, 51.0],
            "LCM, 4 steps": [40.0, 42.0, 41.0],
        }.items()
    }
    systems = {ADD: runs(ADD, [40.0, 41.0, 42.0]), **others, TEACHER: runs(TEACHER, [45.0], seeds=False)}
    asked = finding()
    made = fit_systems(asked, claim_of(asked), systems, "coco", None)
    assert set(made.rows) == {ADD, LCM, "GAN, 1 step"}
    variances = [np.var(np.log(values), ddof=1) for values in ([40, 41, 42], [50, 52, 51], [60, 61, 63])]
    for label in (ADD, LCM):
        spread = made.spread.of(label)
        assert spread.value == pytest.approx(np.mean(variances))
        assert spread.freedom == pytest.approx(2 * sum(variances) ** 2 / np.square(variances).sum())


def test_systems_by_other_numbers_of_steps_spread_as_others_by_as_many():
    """Runs spread further by four steps: breaks where a claim's interval is made of the spread at one."""
    rng = np.random.default_rng(0)
    deviations = {1: 0.1, 4: 0.3}
    held = dict.fromkeys(deviations, 0)
    for _ in range(300):
        systems = {TEACHER: runs(TEACHER, [40.0], seeds=False, stderr=0.4)}
        for name in ("ADD", "LCM", "GAN", "VSD"):
            for steps, deviation in deviations.items():
                label = f"{name}, {steps} step{'s' * (steps > 1)}"
                systems[label] = runs(label, list(40 * np.exp(deviation * rng.standard_normal(3))))
        for steps in deviations:
            label = f"ADD, {steps} step{'s' * (steps > 1)}"
            asked = finding(label, TEACHER, "equivalent")
            made = fit_systems(asked, claim_of(asked), systems, "coco", None)
            low, high = made.difference(label, TEACHER).interval()
            held[steps] += low <= 0 <= high
    assert all(0.92 < count / 300 < 0.98 for count in held.values()), held


def test_a_claim_across_numbers_of_steps_has_each_one_s_spread():
    four = "ADD, 4 steps"
    systems = {ADD: runs(ADD, [40.0, 41.0, 42.0]), four: runs(four, [20.0, 30.0, 40.0])}
    asked = finding(four, ADD)
    found = fit_systems(asked, claim_of(asked), systems, "coco", None).difference(four, ADD)
    variances = [np.var(np.log(values), ddof=1) for values in ([40, 41, 42], [20, 30, 40])]
    assert found.error == pytest.approx(math.sqrt(sum(variances) / 3))


@pytest.mark.parametrize(
    ("systems", "reason"),
    [
        ({ADD: runs(ADD, [40.0, 41.0])}, "fid was not measured of LCM, 1 step"),
        ({}, "fid was not measured"),
        (
            {ADD: runs(ADD, [40.0, 41.0]), LCM: runs(LCM, [50.0, 51.0], protocol="c" * 12)},
            "fid of its systems was measured under 2 protocols",
        ),
        (
            {ADD: runs(ADD, [40.0, 41.0]), LCM: runs(LCM, [50.0], seeds=False, stderr=None)},
            "LCM, 1 step has no training seed, and its fid states no error over images",
        ),
        ({ADD: runs(ADD, [40.0]), LCM: runs(LCM, [50.0])}, "No study says how far runs by 1 step(s) spread"),
    ],
)
def test_what_cannot_be_asked_is_not_tested_and_says_why(systems: dict[str, SystemRuns], reason: str):
    (answer,) = answers([finding()], {}, "coco", systems=systems)
    assert answer.verdict == "not tested"
    assert answer.reason is not None
    assert answer.reason.startswith(reason)


def test_two_that_have_no_training_seed_are_compared_by_their_images():
    eight = "Teacher, 8 steps"
    systems = {TEACHER: runs(TEACHER, [45.0], seeds=False), eight: runs(eight, [60.0], seeds=False)}
    (answer,) = answers([finding(TEACHER, eight)], {}, "coco", systems=systems)
    assert answer.verdict == "reproduced"
    assert answer.judged is not None
    assert answer.judged.contrast.error == pytest.approx(0.02 * math.sqrt(2))
