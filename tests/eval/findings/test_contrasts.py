"""Means and contrasts of runs with different seeds: exact cases, and whether 95% intervals hold in 95% of studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from eval.findings.contrasts import Observation, RunSpread, Variance, fit

ROWS = [f"r{k}" for k in range(17)]
RUNS = {row: 16 if row == "r0" else 8 for row in ROWS}


def study(rng: np.random.Generator, runs: dict[str, int], sd: dict[str, float] | None = None, **more: float):
    """Runs whose rows do not differ. more: a processor's shift, by name; seeds alternate between them."""
    processors = list(more) or ["one"]
    return [
        Observation(
            row,
            seed,
            processors[seed % len(processors)],
            (sd or {}).get(row, 1.0) * rng.standard_normal()
            + more.get(processors[seed % len(processors)], 0.0),
        )
        for row, n in runs.items()
        for seed in range(n)
    ]


@pytest.mark.parametrize("sd", [1.0, 20.0])
def test_two_rows_with_enough_runs_are_welchs_test(sd: float):
    """Against SciPy's two-sample test with unequal variances, whether they spread alike or not."""
    runs = study(np.random.default_rng(0), {"a": 9, "b": 12}, {"b": sd})
    a, b = ([o.value for o in runs if o.row == row] for row in "ab")
    result = fit(runs)
    assert set(result.spread.own) == {"a", "b"}
    found = result.difference("a", "b")
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert 2 * min(found.above(0), found.below(0)) == pytest.approx(expected.pvalue)


def test_two_rows_with_few_runs_are_students_test():
    """Against SciPy's test with a pooled variance, but for the freedom, which is less where they spread differently."""
    runs = study(np.random.default_rng(0), {"a": 4, "b": 4})
    a, b = ([o.value for o in runs if o.row == row] for row in "ab")
    result = fit(runs)
    assert not result.spread.own
    expected = stats.ttest_ind(a, b)
    found = result.difference("a", "b")
    assert found.estimate / found.error == pytest.approx(expected.statistic)
    one, two = np.var(a, ddof=1), np.var(b, ddof=1)
    assert found.freedom == pytest.approx(3 * (one + two) ** 2 / (one**2 + two**2))
    assert found.freedom < 6


def test_a_row_that_was_never_run_spreads_as_the_rows_do_on_average():
    """One narrow row does not speak for a new one: an interval of a rival would hold in a quarter of cases."""
    rng = np.random.default_rng(2)
    wide = {f"r{k}": 10.0 for k in range(16)}
    spread = fit(study(rng, dict.fromkeys([*wide, "narrow"], 8), wide)).spread
    assert spread.of("new").value == pytest.approx(100 * 16 / 17, rel=0.2)
    assert spread.of("narrow").value < 5
    wild = fit(study(rng, dict.fromkeys([*wide, "wild"], 8), {**wide, "wild": 1500.0})).spread
    assert wild.of("new").value == pytest.approx(100, rel=0.3)
    few = [fit(study(rng, dict.fromkeys(wide, 2), wide)).spread.of("new").value for _ in range(200)]
    assert np.mean(few) == pytest.approx(100, rel=0.1), "with two runs a row none is taken for a wild one"


def test_a_hand_computed_contrast():
    values = {"a": (1.0, 3.0), "b": (4.0, 6.0), "c": (7.0,)}
    runs = [Observation(row, k, "p", v) for row, found in values.items() for k, v in enumerate(found)]
    result = fit(runs)
    # Both pairs have variance 2, pooled with 2 degrees of freedom; c has one run and the pooled variance.
    assert result.spread.typical.value == pytest.approx(2.0)
    assert result.spread.typical.freedom == pytest.approx(2.0)
    difference = result.difference("c", "a")
    assert difference.estimate == pytest.approx(5.0)
    assert difference.error == pytest.approx(math.sqrt(2 * (1 + 1 / 2)))
    half = 4.302653 * math.sqrt(3)  # Student's .975 quantile at 2 degrees of freedom
    assert difference.interval() == pytest.approx((5 - half, 5 + half), abs=1e-5)
    assert result.mean("a").error == pytest.approx(1.0)


def test_a_processor_is_a_factor():
    """Breaks when a row that was run mostly on a processor of high values is called worse for it."""
    rng = np.random.default_rng(2)
    runs = study(rng, {"a": 12, "b": 12}, old=0.0, new=100.0)
    kept = [o for o in runs if o.row == "a" or o.processor == "new" or o.seed == 0]
    result = fit(kept)
    assert abs(result.difference("a", "b").estimate) < 2
    assert result.difference("a", "b").error < 1
    assert result.processors["old"] == 0
    assert result.processors["new"] == pytest.approx(100, abs=2)
    plain = fit([Observation(o.row, o.seed, "one", o.value) for o in kept])
    assert abs(plain.difference("a", "b").estimate) > 20
    with pytest.raises(ValueError, match="cannot be told apart"):
        fit([o for o in runs if (o.row == "a") == (o.processor == "new")])
    backwards = fit(kept[::-1])
    for row in ("a", "b"):
        assert backwards.mean(row).estimate == pytest.approx(result.mean(row).estimate)
        assert backwards.mean(row).error == pytest.approx(result.mean(row).error)
    assert result.mean("a").estimate == pytest.approx(50, abs=2), "over both processors"


def test_what_does_not_vary_is_not_tested():
    found = fit([Observation("t", None, "p", 4.0, 0.0), Observation("u", None, "p", 5.0, 0.0)])
    with pytest.raises(ValueError, match="nothing can be tested"):
        found.difference("t", "u").above(0)


def test_a_second_processor_widens_an_unbalanced_comparison_and_not_a_balanced_one():
    rng = np.random.default_rng(3)
    runs = study(rng, {"a": 12, "b": 12}, old=0.0, new=0.0)
    one = fit([Observation(o.row, o.seed, "one", o.value) for o in runs]).difference("a", "b").error
    assert fit(runs).difference("a", "b").error == pytest.approx(one, rel=0.1)
    uneven = [o for o in runs if not (o.row == "b" and o.processor == "old" and o.seed > 0)]
    same = [Observation(o.row, o.seed, "one", o.value) for o in uneven]
    assert fit(uneven).difference("a", "b").error > 1.02 * fit(same).difference("a", "b").error


def test_one_run_a_row_is_judged_by_another_studys_spread():
    runs = [Observation("a", 0, "p", 1.0), Observation("b", 0, "p", 2.0)]
    with pytest.raises(ValueError, match="No row has two different runs"):
        fit(runs)
    found = fit(runs, RunSpread(Variance(0.5, 100.0), {"b": Variance(1.5, 7.0)})).difference("b", "a")
    assert found.error == pytest.approx(math.sqrt(2.0))
    assert found.freedom == pytest.approx(2.0**2 / (0.5**2 / 100 + 1.5**2 / 7))


@pytest.mark.parametrize(
    ("sd", "processors"),
    [
        ({}, {}),
        ({}, {"old": 0.0, "new": 3.0}),
        ({"r5": 2.0}, {}),
        ({"r5": 6.0}, {}),
        ({row: 0.7 + 0.6 * (k % 2) for k, row in enumerate(ROWS)}, {}),
    ],
    ids=["alike", "two processors", "one row twice", "one row six times", "two kinds of rows"],
)
def test_intervals_hold_in_95_of_100_studies(sd: dict[str, float], processors: dict[str, float]):
    """A difference of two common rows, of the default (16 runs) and another one, and of the row that spreads more."""
    rng = np.random.default_rng(4)
    pairs = [("r0", "r1"), ("r2", "r5"), ("r7", "r16")]
    held = np.zeros((2500, len(pairs)))
    for study_number in range(len(held)):
        result = fit(study(rng, RUNS, sd, **processors))
        for k, pair in enumerate(pairs):
            low, high = result.difference(*pair).interval()
            held[study_number, k] = low < 0 < high
    coverage = held.mean(0)
    assert ((coverage > 0.93) & (coverage < 0.97)).all(), coverage


def test_what_has_no_training_seed_has_the_error_of_its_images():
    runs = [
        Observation("a", 0, "p", 1.0),
        Observation("a", 1, "p", 3.0),
        Observation("t", None, "p", 4.0, 0.5),
    ]
    result = fit(runs)
    assert result.spread.typical == Variance(pytest.approx(2.0), pytest.approx(1.0))
    found = result.difference("t", "a")
    assert found.error == pytest.approx(math.sqrt(2 / 2 + 0.5**2))
    assert found.lasting == pytest.approx(0.5)
    assert found.freedom == pytest.approx(1.25**2 / (1.0**2 / 1))
    assert result.runs_of("t", "a") == 2
    other = fit([*runs, Observation("u", None, "p", 4.0, 0.3)]).difference("t", "u")
    assert (other.error, other.freedom) == (pytest.approx(math.hypot(0.5, 0.3)), math.inf)
    alone = fit([runs[2], Observation("u", None, "p", 5.0, 1.2)])
    assert alone.difference("u", "t").error == pytest.approx(1.3), "no training seed, and none is asked for"
    with pytest.raises(ValueError, match="No row has two different runs"):
        fit(runs[1:])


@pytest.mark.parametrize(
    ("runs", "images", "common", "reach"),
    [
        ({"a": 8, "b": 8, "c": 8}, 1.0, 0.0, (0.93, 0.97)),
        ({"a": 8, "b": 8, "c": 8}, 0.2, 0.0, (0.93, 0.97)),
        ({"a": 3, "b": 3}, 1.0, 0.0, (0.93, 0.97)),
        ({"a": 1, "b": 1}, 1.0, 0.0, (0.93, 0.97)),
        ({"a": 8, "b": 8, "c": 8}, 1.0, 0.7, (0.95, 1.0)),
    ],
    ids=[
        "as wide as a run",
        "narrow",
        "three seeds",
        "one seed, another study's spread",
        "half of it common",
    ],
)
def test_intervals_against_what_has_no_training_seed_hold(
    runs: dict[str, int], images: float, common: float, reach: tuple[float, float]
):
    """images: the error of the untrained row's value. common: its part that the runs have too, as of the prompts."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(2500):
        shared, spread = common * images * rng.standard_normal(), None
        own = math.sqrt(1 - common**2) * images * rng.standard_normal()
        sample = [Observation(o.row, o.seed, o.processor, o.value + shared) for o in study(rng, runs)]
        if max(runs.values()) == 1:
            freedom = 30
            spread = RunSpread(Variance(rng.chisquare(freedom) / freedom, freedom), {})
        result = fit([*sample, Observation("t", None, "one", shared + own, images)], spread)
        low, high = result.difference("a", "t").interval()
        held.append(low < 0 < high)
    assert reach[0] < np.mean(held) < reach[1], np.mean(held)
