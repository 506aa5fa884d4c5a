"""Verdicts of a page of claims: by hand, and how often they are false by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from add.config.load import BASELINE
from eval.findings.contrasts import Contrast, Fit, Observation, RunSpread, Variance, fit
from eval.findings.verdicts import FIRST_LOOK, LEVEL, Claim, Relation, holm, judge, look, transformed

ROWS = [f"r{k}" for k in range(17)]
MARGIN = 3.0


def claims(margin: float = MARGIN) -> list[Claim]:
    """As many claims, of as many kinds, as the paper's page has."""
    better = [Claim(f"better {k}", ("r0",), "better", (f"r{k}",), margin, False) for k in range(1, 9)]
    best = [Claim("best", ("r0",), "better", ("r1", "r2", "r3"), margin, False)]
    worse = [Claim("worse", ("r9",), "worse", ("r0",), margin, True)]
    same = [Claim(f"same {k}", ("r0",), "equivalent", (f"r{k}",), margin, False) for k in (10, 11)]
    no = [Claim(f"no better {k}", (f"r{k}",), "not_better", ("r0",), margin, False) for k in (12, 13)]
    return [*better, *best, *worse, *same, *no]


def runs_of(rng: np.random.Generator, runs: int, means: dict[str, float] | None = None) -> list[Observation]:
    return [
        Observation(row, seed, "one", (means or {}).get(row, 0.0) + rng.standard_normal())
        for row in ROWS
        for seed in range(2 * runs if row == "r0" else runs)
    ]


def page(observations: list[Observation], asked: list[Claim], level: float = LEVEL):
    result = fit(observations)
    return judge(asked, [result] * len(asked), level)


def exact(difference: float, error: float = 1.0, freedom: float = math.inf) -> Fit:
    """Two rows, a and b, whose means differ by `difference` with this standard error."""
    spread = RunSpread(Variance(error**2 / 2, freedom), {})
    return fit([Observation("a", 0, "p", difference), Observation("b", 0, "p", 0.0)], spread)


@pytest.mark.parametrize(
    ("relation", "larger", "difference", "favoured", "p"),
    [
        ("better", True, 3.0, "reproduced", 2 * stats.norm.sf(3)),
        ("better", False, 3.0, "contradicted", 2 * stats.norm.sf(3)),
        ("worse", False, 3.0, "reproduced", 2 * stats.norm.sf(3)),
        ("better", True, 0.5, "equivalent", stats.norm.sf(3.5)),
        ("equivalent", True, -0.5, "reproduced", stats.norm.sf(3.5)),
        ("equivalent", True, 7.0, "contradicted", 2 * stats.norm.sf(3)),
        ("not_better", True, 1.0, "reproduced", 2 * stats.norm.sf(3)),
        ("not_better", True, 7.0, "contradicted", 2 * stats.norm.sf(3)),
        ("not_better", False, -7.0, "contradicted", 2 * stats.norm.sf(3)),
    ],
)
def test_one_pair_by_hand(relation, larger, difference, favoured, p):
    claim = Claim("a and b", ("a",), relation, ("b",), 4.0, larger)
    (found,) = judge([claim], [exact(difference)])
    assert found.favoured == favoured
    assert found.p == pytest.approx(p, rel=1e-6)
    assert found.verdict == favoured
    assert found.contrast.estimate == pytest.approx(difference)


def test_a_claim_of_several_pairs_is_as_strong_as_its_weakest():
    rows = {"a": 0.0, "b": 5.0, "c": 2.1}
    spread = RunSpread(Variance(0.5, math.inf), {})
    result = fit([Observation(row, 0, "p", value) for row, value in rows.items()], spread)
    (best,) = judge([Claim("a is best", ("a",), "better", ("b", "c"), 0.01, False)], [result])
    assert best.pair == ("a", "c")
    assert best.p == pytest.approx(2 * stats.norm.sf(2.1))
    # One pair contradicts it, at the price of having looked at two.
    (not_best,) = judge([Claim("b is best", ("b",), "better", ("a", "c"), 0.01, False)], [result])
    assert (not_best.verdict, not_best.pair) == ("contradicted", ("b", "a"))
    assert not_best.p == pytest.approx(2 * 2 * stats.norm.sf(5.0))


def test_holm_against_a_worked_example():
    """Holm (1979): the ordered p-values are multiplied by 4, 3, 2, 1, and never fall."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def apart(means: dict[str, float], runs: int, variance: float = 0.5) -> Fit:
    """Rows of so many runs with these means, of which each has this variance."""
    weights = dict(zip(means, np.eye(len(means)), strict=True))
    spread = RunSpread(Variance(variance, 1.0), {row: Variance(variance, runs - 1.0) for row in means})
    return Fit(tuple(means), means, weights, tuple(means), dict.fromkeys(means, runs), spread, {}, {})


def shown(ratio: float, runs: int, level: float) -> float:
    """The chance that Student's t with 2 (runs - 1) degrees of freedom, moved by `ratio`, is beyond a one-sided bar."""
    t = stats.t(2 * (runs - 1))
    return float(t.sf(t.isf(level) - ratio))


def test_what_would_be_detected_and_how_many_more_runs():
    claim = Claim("a and b", ("a",), "better", ("b",), 0.1, True)
    (found,) = judge([claim], [exact(1.0)])
    assert found.verdict == "undecided"
    assert found.detectable == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    (found,) = judge([claim], [apart({"a": 1.0, "b": 0.0}, 10)])
    assert found.more == next(n for n in range(10, 1000) if shown(math.sqrt(n / 10), n, 0.025) >= 0.8) - 10
    (never,) = judge([claim], [apart({"a": 0.1, "b": 0.0}, 10)])  # on the margin: neither side would be shown
    assert never.more is None


def test_a_contradiction_by_one_of_several_pairs_is_planned_by_its_stricter_level():
    """Breaks where no more runs are promised to a claim that Bonferroni's rule over its pairs left undecided."""
    made = apart({"a": 0.0, "b": 2.0, "c": 2.0}, 100)
    claim = Claim("a is better than either", ("a",), "better", ("b", "c"), 0.1, True)
    (found,) = judge([claim], [made], LEVEL)
    assert found.favoured == "contradicted"
    (single,) = judge([replace(claim, others=("b",))], [made])
    assert (found.verdict, single.verdict) == ("undecided", "contradicted")
    enough = next(n for n in range(100, 999) if shown(2 * math.sqrt(n / 100), n, 0.05 / 4) >= 0.8)
    assert found.more == enough - 100


def test_a_claim_of_several_pairs_is_planned_so_that_all_of_them_are_shown():
    """Breaks where the pair that decides stands for all: three equal pairs are then shown in half the studies."""
    made = apart({"a": 1.9, "b": 0.0, "c": 0.0, "d": 0.0}, 100)
    (found,) = judge([Claim("a is best", ("a",), "better", ("b", "c", "d"), 0.1, True)], [made])
    # Each is missed in a fifteenth, so that one of three is in a fifth at most.
    enough = next(n for n in range(100, 999) if shown(1.9 * math.sqrt(n / 100), n, 0.025) >= 1 - 0.2 / 3)
    assert found.more == enough - 100


def test_a_growing_study_is_planned_for_its_next_looks_and_their_levels():
    """Breaks where the plan takes this look's level: the next one's is a fifth of it."""
    claim = Claim("a and b", ("a",), "better", ("b",), 0.001, True)
    for gain in (0.4, 0.6, 1.0, 1.6):
        (found,) = judge([claim], [apart({"a": gain, "b": 0.0}, 8)], 0.04)
        assert found.verdict == "undecided"
        looks = (2**k for k in range(1, 7) if shown(gain * 2 ** (k / 2), 8 * 2**k, 0.02 * 0.2**k) >= 0.8)
        enough = next(looks, None)
        assert found.more == (None if enough is None else 8 * enough - 8)
    # Before the first look, the first look: three runs are 5 short of it.
    (early,) = judge([claim], [apart({"a": 2.5, "b": 0.0}, 3)], 0.0)
    assert (early.verdict, early.more) == ("undecided", 5)


@pytest.mark.parametrize(("gain", "others"), [(0.9, ("b",)), (0.7, ("b",)), (0.9, ("b", "c", "d"))])
def test_a_growing_study_is_decided_by_the_predicted_look_with_the_stated_power(
    gain: float, others: tuple[str, ...]
):
    """Breaks when the plan and the looks disagree: what should be found in 80 of 100 studies is found in 30 to 70."""
    rng = np.random.default_rng(0)
    claim = Claim("a is better", ("a",), "better", others, 0.001, True)
    made = apart({"a": gain, **dict.fromkeys(others, 0.0)}, 8, 1 / 8)
    (found,) = judge([claim], [made], 0.04)
    assert found.more is not None
    decided = []
    for _ in range(400):
        everything = [
            Observation(row, k, "p", gain * (row == "a") + rng.standard_normal())
            for row in ("a", *others)
            for k in range(8 + found.more)
        ]
        seen, level = look(everything, claim)
        decided.append(judge([claim], [fit(seen)], level)[0].verdict == "reproduced")
    assert np.mean(decided) > 0.76


def test_the_predicted_number_of_runs_decides_with_the_stated_power():
    """Breaks when the plan and the test disagree: what should be found in 80 of 100 studies is found in 60."""
    rng = np.random.default_rng(0)
    claim = Claim("a is better", ("a",), "better", ("b",), 0.001, True)
    made = apart({"a": 0.5, "b": 0.0}, 8, 1 / 8)
    (found,) = judge([claim], [made])
    assert found.more is not None
    decided = []
    for _ in range(800):
        sample = [
            Observation(row, k, "p", 0.5 * (row == "a") + rng.standard_normal())
            for row in "ab"
            for k in range(8 + found.more)
        ]
        decided.append(judge([claim], [fit(sample)])[0].verdict == "reproduced")
    assert np.mean(decided) == pytest.approx(0.8, abs=0.05)


def test_pages_where_nothing_differs_are_rarely_decided():
    rng = np.random.default_rng(1)
    wrong = [
        any(each.verdict in ("reproduced", "contradicted") for each in page(runs_of(rng, 8), claims()[:10]))
        for _ in range(1500)
    ]
    assert np.mean(wrong) < LEVEL


def test_a_difference_as_large_as_the_margin_is_rarely_called_equivalent():
    rng = np.random.default_rng(2)
    means = {row: MARGIN for row in ROWS if row != "r0"}
    same = [c for c in claims() if c.relation == "equivalent"]
    wrong = [
        any(each.verdict == "reproduced" for each in page(runs_of(rng, 40, means), same)) for _ in range(800)
    ]
    assert 0.01 < np.mean(wrong) < LEVEL


def test_adding_runs_until_something_is_decided_decides_nothing_falsely():
    """Looks after each further four runs a row, as an impatient reader would; most of them see no more."""
    rng = np.random.default_rng(3)
    asked = claims()[:10]
    wrong = []
    for _ in range(600):
        everything = runs_of(rng, 32)
        false = False
        for runs in range(4, 33, 4):
            there = [o for o in everything if o.seed < runs]
            seen, level = look(there, asked[0])
            if level:
                # All rows have as many runs, so every claim is at the same look.
                judged = judge(asked, [fit(seen)] * len(asked), level)
                false = false or any(each.verdict in ("reproduced", "contradicted") for each in judged)
        wrong.append(false)
    assert np.mean(wrong) < LEVEL


def test_a_look_sees_whole_doublings_alone():
    rng = np.random.default_rng(4)
    claim = Claim("r0 and r1", ("r0",), "better", ("r1",), MARGIN, False)
    with_default = Claim("the default and r1", (BASELINE,), "better", ("r1",), MARGIN, False)
    everything = runs_of(rng, 64)
    everything += [replace(o, row=BASELINE) for o in everything if o.row == "r0"]
    levels = []
    for runs in (4, 8, 15, 16, 31, 32):
        there = [o for o in everything if o.row != "r1" or o.seed < runs]
        for asks in (claim, with_default):
            seen, level = look(there, asks)
            levels.append(level)
            if level:
                asked = FIRST_LOOK * 2 ** int(math.log2(runs / FIRST_LOOK))
                assert sum(o.row == BASELINE for o in seen) == 2 * asked
                assert sum(o.row == "r0" for o in seen) == asked
                assert {o.seed for o in seen if o.row == "r1"} == set(range(asked))
    assert levels[::2] == levels[1::2] == pytest.approx([0, 0.04, 0.04, 0.008, 0.008, 0.0016])
    # The default's further runs are no further look: one at 15 and one at 16 of them would have one level twice.
    few = [o for o in everything if o.seed < (15 if o.row == BASELINE else 8)]
    assert look(few, with_default)[1] == 0
    assert look(few, claim)[1] == pytest.approx(0.04)


def test_looking_after_every_single_run_decides_nothing_falsely():
    """Breaks where runs between two doublings are looked at: each such look is another test at the same level."""
    rng = np.random.default_rng(5)
    claim = Claim("r0 and r1", ("r0",), "better", ("r1",), MARGIN, False)
    false = 0
    for _ in range(400):
        everything = [o for o in runs_of(rng, 33) if o.row in ("r0", "r1")]
        for runs in range(FIRST_LOOK, 34):
            seen, level = look([o for o in everything if o.seed < runs], claim)
            difference = fit(seen).difference("r0", "r1")
            if 2 * min(difference.above(0), difference.below(0)) <= level:
                false += 1
                break
    assert false / 400 < 0.06


def test_the_logarithm_of_a_distance_and_its_refusal():
    assert transformed("fid", math.e) == pytest.approx(1.0)
    assert transformed("alignment", 0.9) == 0.9
    with pytest.raises(ValueError, match="fid is 0, which has no logarithm"):
        transformed("fid", 0.0)


def test_a_contrasts_tails_are_students():
    found = Contrast(1.0, 0.5, 7.0)
    assert found.above(0) == pytest.approx(stats.t.sf(2.0, 7))
    assert found.below(0) == pytest.approx(stats.t.cdf(2.0, 7))


def against_images(rng: np.random.Generator, runs: int, difference: float, images: float) -> Fit:
    """Rows a, b of several runs, and t without a training seed, whose true value is `difference` below theirs."""
    sample = [Observation(row, k, "p", rng.standard_normal()) for row in "ab" for k in range(runs)]
    return fit([*sample, Observation("t", None, "p", images * rng.standard_normal() - difference, images)])


@pytest.mark.parametrize("images", [0.3, 1.0])
def test_claims_about_what_has_no_training_seed_are_rarely_decided_falsely(images: float):
    """Pages of four claims where nothing differs, and one of an equivalence whose difference is the margin."""
    rng = np.random.default_rng(6)
    relations: tuple[Relation, ...] = ("better", "worse")
    asked = [Claim(f"{row} {r}", (row,), r, ("t",), MARGIN, False) for row in "ab" for r in relations]
    same = [Claim("same", ("a",), "equivalent", ("t",), MARGIN, False)]
    differ, equal = [], []
    for _ in range(1200):
        page = judge(asked, [against_images(rng, 5, 0.0, images)] * len(asked))
        differ.append(any(each.verdict in ("reproduced", "contradicted") for each in page))
        (each,) = judge(same, [against_images(rng, 5, MARGIN, images)])
        equal.append(each.verdict == "reproduced")
    assert np.mean(differ) < LEVEL
    assert 0.02 < np.mean(equal) < 0.06, "at the margin itself, the test has its size"


def test_more_runs_are_promised_only_where_runs_can_decide():
    """The images' error of the row without a training seed stays, however many runs the other has."""
    rng = np.random.default_rng(7)
    claim = Claim("a is better than t", ("a",), "better", ("t",), 0.001, True)
    values = [Observation("a", k, "p", v) for k, v in enumerate((-1.0, 0.0, 1.0, 2.0, -2.0))]

    def asked(images: float, difference: float):
        (found,) = judge([claim], [fit([*values, Observation("t", None, "p", -difference, images)])])
        return found

    hopeless = asked(0.5, 1.0)
    assert (hopeless.verdict, hopeless.more) == ("undecided", None)
    found = asked(0.2, 1.0)
    assert found.more is not None
    runs = 5 + found.more
    deviation = math.sqrt(2.5)
    decided = []
    for _ in range(800):
        sample = [Observation("a", k, "p", deviation * rng.standard_normal()) for k in range(runs)]
        sample.append(Observation("t", None, "p", 0.2 * rng.standard_normal() - 1.0, 0.2))
        decided.append(judge([claim], [fit(sample)])[0].verdict == "reproduced")
    assert np.mean(decided) > 0.76


def test_a_look_waits_for_the_trained_rows_alone():
    claim = Claim("a and t", ("a",), "equivalent", ("t",), 1.0, False)
    teacher = Observation("t", None, "p", 0.0, 0.1)
    few = [Observation("a", k, "p", float(k)) for k in range(7)]
    assert look([*few, teacher], claim)[1] == 0.0
    seen, level = look([*few, Observation("a", 7, "p", 7.0), teacher], claim)
    assert (len(seen), level) == (9, pytest.approx(0.04))
    assert look(
        [teacher, Observation("u", None, "p", 0.0, 0.1)], Claim("", ("t",), "better", ("u",), 1.0, False)
    )[1] == pytest.approx(LEVEL)
