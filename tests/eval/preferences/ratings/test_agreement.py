"""Agreement, position bias, transitivity, detectable difference, inattentive raters: against values by hand."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings

from eval.preferences.ratings.rate import rate
from eval.preferences.ratings.tally import tally
from eval.preferences.ratings.win_rates import (
    inattentive,
    krippendorff_alpha,
    pair_rates,
    position_bias,
    smallest_difference,
    transitive_share,
)
from eval.preferences.record import Vote
from tests.support.rated import NAMES, as_tally, few_votes, random_votes, renamed, simulated, swapped, vote


def rated_twice(*answers: tuple[str, str]) -> tuple[Vote, ...]:
    """Two raters' answers (a, b or tie) on one pair of images of each prompt."""
    return tuple(
        vote("ant", "bee", answer, number, rater=rater)  # type: ignore[arg-type]
        for number, both in enumerate(answers)
        for rater, answer in zip(("x", "y"), both, strict=True)
    )


def test_alpha_by_hand() -> None:
    """Krippendorff's 1 - (n - 1) sum of o_ck / sum of n_c n_k, c != k, over both orders of each unit."""
    votes = rated_twice(("a", "a"), ("a", "b"), ("b", "b"), ("tie", "b"))
    disagreeing = 2 * 2 * 2  # two units disagree, each in both orders, each coincidence counted twice
    counts = {"0": 7, "1": 7, "tie": 2}  # of 16 values
    expected = sum(counts[c] * counts[k] for c in counts for k in counts if c != k) / 15
    assert krippendorff_alpha(votes).value == pytest.approx(1 - disagreeing / expected)


def test_alpha_is_one_for_agreement_and_about_zero_for_coins() -> None:
    assert krippendorff_alpha(rated_twice(("a", "a"), ("b", "b"), ("tie", "tie"))).value == pytest.approx(1)
    coins = np.random.default_rng(0).choice(["a", "b", "tie"], (4000, 2))
    assert krippendorff_alpha(rated_twice(*map(tuple, coins))).value == pytest.approx(0, abs=0.05)
    opposed = krippendorff_alpha(rated_twice(*[("a", "b")] * 50)).value
    assert opposed == pytest.approx(-1, abs=0.02)


def test_alpha_depends_on_no_name_and_no_side() -> None:
    votes = rated_twice(("a", "a"), ("a", "b"), ("a", "a"), ("a", "tie"), ("a", "a"))
    half = (*votes[:4], *swapped(votes[4:]))
    alpha = krippendorff_alpha(votes).value
    assert krippendorff_alpha(half).value == pytest.approx(alpha)
    other = krippendorff_alpha(renamed(votes, {"ant": "zebra", "bee": "bee"})).value
    assert other == pytest.approx(alpha)


def test_alpha_says_why_there_is_none() -> None:
    assert "no two raters" in krippendorff_alpha(random_votes(0, 30)).reason
    assert "tie" in krippendorff_alpha(rated_twice(("tie", "tie"))).reason
    one, other = rated_twice(("a", "a"))
    apart = (one, dataclasses.replace(other, question="alignment"))
    assert krippendorff_alpha(apart).value is None, "two questions are two units"


def test_position_bias_is_of_decided_votes_with_known_sides() -> None:
    votes = [vote("ant", "bee", "a", k, rater=f"r{k}", shown_left="a" if k < 15 else "b") for k in range(20)]
    votes += [vote("ant", "bee", "b", 30, shown_left="none"), vote("ant", "bee", "tie", 31, shown_left="a")]
    found = position_bias(tally(votes))
    assert found is not None
    assert found.value == 0.75
    assert found.low == pytest.approx(0.52, abs=0.03)
    assert found.high == pytest.approx(0.89, abs=0.03)
    assert position_bias(tally(votes[20:])) is None


def test_a_rater_who_always_takes_the_left_widens_the_interval() -> None:
    votes = simulated(votes=1200)
    calm = position_bias(votes)
    lazy = position_bias(dataclasses.replace(votes, left=(votes.rater % 2).astype(float)))
    assert calm is not None
    assert lazy is not None
    assert lazy.high - lazy.low > 4 * (calm.high - calm.low)


def test_transitivity() -> None:
    cycle = [("ant", "bee", 2, 0, 1), ("bee", "cat", 2, 0, 1), ("cat", "ant", 2, 0, 1)]
    assert transitive_share(as_tally(cycle)) == 0
    assert transitive_share(as_tally([*cycle[:2], ("ant", "cat", 1, 1, 0)])) == 1
    assert transitive_share(as_tally([*cycle[:2], ("cat", "ant", 1, 1, 1)])) is None, "an even pair"
    assert transitive_share(as_tally(cycle[:2])) is None


@given(votes=few_votes())
@settings(max_examples=60, deadline=None)
def test_transitivity_counts_triples(votes) -> None:
    counted = tally(votes)
    lead: dict[tuple[int, int], float] = {}
    for a, b, won, total in zip(*counted.ends, counted.won, counted.total, strict=True):
        lead[a, b], lead[b, a] = won - total / 2, total / 2 - won
    fine = []
    for i, j, k in combinations(range(len(counted.systems)), 3):
        leads = [lead.get(pair, 0) for pair in ((i, j), (j, k), (k, i))]
        if all(leads):
            fine.append(len({value > 0 for value in leads}) > 1)
    assert transitive_share(counted) == (pytest.approx(np.mean(fine)) if fine else None)


def test_four_hundred_votes_show_seven_points() -> None:
    """2.80 / 2 / sqrt(400) for independent votes; clusters make it larger."""
    votes = [vote("ant", "bee", "ab"[k % 2], k, rater=f"r{k}") for k in range(400)]  # type: ignore[arg-type]
    assert smallest_difference(tally(votes)) == pytest.approx(0.0700, abs=0.0005)
    lumpy = [dataclasses.replace(v, rater=f"{k % 2}{k % 20}") for k, v in enumerate(votes)]
    assert smallest_difference(tally(lumpy)) > 0.2
    more = [
        vote("ant", name, "ab"[k % 2], k, rater=f"r{k}")  # type: ignore[arg-type]
        for name in ("bee", "cat", "dog")
        for k in range(400)
    ]
    # Among three pairs each is tested at a third of 5%: 2.394 + 0.842 in place of 1.960 + 0.842.
    assert smallest_difference(tally(more)) == pytest.approx((2.394 + 0.842) / 40, abs=0.001)
    assert smallest_difference(as_tally([("ant", "bee", 1, 0, 1)])) == 0.5, "a win rate cannot differ by more"


def test_inattentive_raters() -> None:
    def check(rater: str, good: bool, number: int) -> Vote:
        winner = "a" if good else "b"
        return vote("ant", NAMES[5], winner, number, rater=rater, attention_check="a")  # type: ignore[arg-type]

    results = {"one": [False], "half": [True, False], "most": [False, True, False], "both": [False, False]}
    checks = [check(r, good, k) for r, goods in results.items() for k, good in enumerate(goods)]
    results = {"lazy": [True] * 7 + [False] * 2, "careful": [True] * 8 + [False] * 2}
    checks += [check(r, good, k) for r, goods in results.items() for k, good in enumerate(goods)]
    study = checks[0].study
    assert inattentive(checks) == tuple((study, rater) for rater in ("both", "half", "lazy", "most"))
    # Another study's rater of the same name may be somebody else, and passes or fails there.
    again = [replace(check("careful", False, k), study="another") for k in range(3)]
    assert inattentive([*checks, *again]) == (("another", "careful"), *inattentive(checks))


def test_one_id_in_two_studies_is_two_prompts_where_the_prompts_differ() -> None:
    """Breaks where row 2 of one file and row 2 of another are taken for votes on one prompt."""
    votes = [vote("ant", "bee", "a", k % 3, rater=f"r{k % 2}") for k in range(6)]
    other = [replace(v, study="another", prompt=f"another {v.prompt}") for v in votes]
    assert len(tally([*votes, *other]).prompts) == 6
    same = [replace(v, study="another") for v in votes]
    assert len(tally([*votes, *same]).prompts) == 3


def test_few_votes_that_all_agree_do_not_set_systems_apart() -> None:
    """By the binomial distribution: five of five have p = .0625, six of six .03125, and the normal tail .025."""
    for count, apart in ((4, False), (5, False), (6, True)):
        votes = [vote("ant", "bee", "a", k, rater="r") for k in range(count)]
        (pair,) = pair_rates(tally(votes))
        assert pair.apart is apart


def coins(seed: int) -> list[Vote]:
    """Forty votes on each of 15 pairs of six systems, by forty raters on twenty prompts, all by coin."""
    rng = np.random.default_rng(seed)
    return [
        vote(a, b, "ab"[rng.integers(2)], k % 20, rater=f"r{k}")  # type: ignore[arg-type]
        for a, b in combinations(NAMES[:6], 2)
        for k in range(40)
    ]


def test_where_nothing_differs_hardly_a_pair_is_called_different() -> None:
    """Of fifteen pairs, a test of each one alone finds one in about half of the studies."""
    alone, together = [], []
    for seed in range(150):
        pairs = pair_rates(tally(coins(seed)))
        alone.append(any(not pair.low <= 0.5 <= pair.high for pair in pairs))
        together.append(any(pair.apart for pair in pairs))
    assert np.mean(alone) > 0.2, "nothing to correct: the test shows nothing"
    assert np.mean(together) < 0.09  # 5%, and three standard errors of 150 studies are 5%


def test_a_clear_pair_stays_clear_among_many() -> None:
    votes = [v for v in coins(0) if {v.system_a, v.system_b} != set(NAMES[:2])]
    votes += [vote(*NAMES[:2], "a", k % 20, rater=f"r{k}") for k in range(40)]
    assert [(p.system_a, p.system_b) for p in pair_rates(tally(votes)) if p.apart] == [
        tuple(sorted(NAMES[:2]))
    ]


def test_ranks_are_of_all_pairs_together() -> None:
    """With votes by coin all systems share the first rank in nearly every study."""
    ranked = [
        max(s.rank for s in rate(coins(seed), resamples=100, shuffles=1)[0].systems) > 1 for seed in range(40)
    ]
    assert np.mean(ranked) < 0.16


def test_ties_alone_show_no_difference() -> None:
    """Breaks where votes that do not vary at all are taken for an exact measurement of every pair."""
    ties = [vote("ant", "bee", "tie", number) for number in range(20)]
    both = [*ties, *(vote("ant", "cow", "a", number) for number in range(2))]
    for votes in (ties, both):
        for pair in pair_rates(tally(votes)):
            assert not pair.apart
            assert pair.high - pair.low > 0.3


def test_systems_that_are_alike_in_every_vote_have_one_rank() -> None:
    """Breaks where rounding gives their difference a variance below 0, and a p that is no number."""
    votes = [
        vote(first, second, "a" if number % 3 else "b", number)
        for number in range(6)
        for first in ("ant", "bee")
        for second in ("cow", "dog")
    ]
    found = {system.system: system for system in rate(votes, {}, resamples=200, shuffles=1)[0].systems}
    assert found["ant"].rank == found["bee"].rank
    assert found["ant"].rating == pytest.approx(found["bee"].rating)
    assert all(system.low < system.rating < system.high for system in found.values())
