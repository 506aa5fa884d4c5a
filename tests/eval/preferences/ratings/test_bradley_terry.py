"""Bradley-Terry: a published example, evalica, the likelihood's own equations, and data without an estimate."""

from __future__ import annotations

from itertools import combinations

import evalica
import numpy as np
import pytest
from hypothesis import assume, given, settings

from add.errors import InputError
from eval.preferences.ratings.estimators import (
    islands,
    separated,
    solve,
    strengths,
    to_elo_scale,
)
from eval.preferences.ratings.tally import Tally, tally
from tests.support.rated import NAMES, as_tally, few_votes, linked_votes, random_votes, renamed, swapped

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
# Wins of the row over the column, American League East 1987: Agresti, Categorical Data Analysis, 2nd ed., table 10.10.
WINS = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)
# Estimates with Baltimore at 0, as table 10.11 there and the tests of R's BradleyTerry2 have them.
PUBLISHED = (1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0)


def values(votes: Tally) -> np.ndarray:
    return strengths(votes).values[0]


def test_agrestis_baseball() -> None:
    votes = as_tally([(TEAMS[i], TEAMS[j], WINS[i][j], 0, WINS[j][i]) for i, j in combinations(range(7), 2)])
    assert set(votes.total) == {13}
    found = dict(zip(votes.systems, values(votes), strict=True))
    assert [round(found[team] - found["Baltimore"], 2) for team in TEAMS] == list(PUBLISHED)


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_evalica_ties_included(seed: int) -> None:
    votes = random_votes(seed, 300, systems=6)
    winner = {"a": evalica.Winner.X, "b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    theirs = evalica.bradley_terry(
        [v.system_a for v in votes],
        [v.system_b for v in votes],
        [winner[v.winner] for v in votes],
        tie_weight=0.5,
        tolerance=1e-13,
        limit=100_000,
    )
    logs = np.log(theirs.scores[list(NAMES)].to_numpy())
    ours = values(tally(votes))
    assert ours == pytest.approx(logs - logs.mean(), abs=1e-6, rel=0)
    assert np.ptp(ours) > 1


@given(votes=linked_votes())
@settings(max_examples=60, deadline=None)
def test_every_system_is_expected_to_score_what_it_scored(votes) -> None:
    counted = tally(votes)
    found = strengths(counted)
    half = 0.5 * found.regularised[0]
    won, total = counted.won + half, counted.total + 2 * half
    first, second = counted.ends
    value = found.values[0]
    expected = total / (1 + np.exp(value[second] - value[first]))
    for system in range(len(counted.systems)):
        surprise = (won - expected)[first == system].sum() - (won - expected)[second == system].sum()
        assert surprise == pytest.approx(0, abs=1e-8)
    assert value.mean() == pytest.approx(0, abs=1e-12)


@given(votes=linked_votes())
@settings(max_examples=40, deadline=None)
def test_sides_names_and_copies_do_not_matter(votes) -> None:
    counted = tally(votes)
    found = values(counted)
    assert values(tally(swapped(votes))) == pytest.approx(found, abs=1e-8)
    names = dict(zip(NAMES, ("fig", "nut", "pea", "yam", "oat", "rye"), strict=True))
    shuffled = {name: names[NAMES[(k * 3 + 1) % 4]] for k, name in enumerate(NAMES[:4])}
    other = tally(renamed(votes, shuffled))
    again = dict(zip(other.systems, values(other), strict=True))
    assert [again[shuffled[s]] for s in counted.systems] == pytest.approx(list(found), abs=1e-8)
    if not strengths(counted).regularised[0]:
        assert values(tally((*votes, *votes))) == pytest.approx(found, abs=1e-8)


@given(votes=few_votes())
@settings(max_examples=80, deadline=None)
def test_separated_is_fords_condition(votes) -> None:
    """There is an estimate if and only if, of any two groups of systems, each scored against the other."""
    counted = tally(votes)
    n = len(counted.systems)
    assume(len(islands(counted)) == 1)
    scored = np.zeros((n, n), bool)
    for a, b, score in zip(counted.first, counted.second, counted.score, strict=True):
        scored[a, b] |= score > 0
        scored[b, a] |= score < 1
    groups = [set(g) for size in range(1, n) for g in combinations(range(n), size)]
    without = any(not any(scored[i, j] for i in g for j in set(range(n)) - g) for g in groups)
    assert separated(counted.won[None], counted.total[None], counted.ends, n)[0] == without


def test_a_system_that_won_every_vote_gets_a_finite_rating_and_a_mark() -> None:
    found = strengths(as_tally([("ant", "bee", 3, 0, 0)]))
    assert found.regularised[0]
    assert found.values[0, 0] - found.values[0, 1] == pytest.approx(np.log(3.5 / 0.5), abs=1e-9)
    chain = strengths(as_tally([("ant", "bee", 40, 0, 0), ("bee", "cat", 5, 0, 5)]))
    assert chain.regularised[0]
    assert np.isfinite(chain.values).all()
    assert chain.values[0, 0] > chain.values[0, 1] + 4
    assert not strengths(as_tally([("ant", "bee", 3, 1, 0)])).regularised[0], (
        "a tie is enough for an estimate"
    )


def test_islands_are_named() -> None:
    votes = as_tally([("ant", "bee", 2, 0, 2), ("cat", "dog", 1, 0, 1), ("dog", "eel", 1, 1, 1)])
    with pytest.raises(InputError, match=r"island 1: cat, dog, eel; island 2: ant, bee"):
        strengths(votes)
    assert islands(votes) == (("cat", "dog", "eel"), ("ant", "bee"))


def test_a_batch_is_solved_as_each_one_alone_from_any_start() -> None:
    data = [tally(random_votes(seed, 200)) for seed in range(5)]
    won, total = np.array([d.won for d in data]), np.array([d.total for d in data])
    ends = data[0].ends
    alone = np.concatenate([solve(won[[k]], total[[k]], ends, 4).values for k in range(5)])
    assert solve(won, total, ends, 4).values == pytest.approx(alone, abs=1e-12)
    far = np.array([30.0, -30.0, 10.0, -10.0])
    assert solve(won, total, ends, 4, start=far).values == pytest.approx(alone, abs=1e-9)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_nearly_separated_data_converge() -> None:
    votes = as_tally([("ant", "bee", 5000, 0, 1), ("bee", "cat", 5000, 0, 1)])
    assert values(votes) == pytest.approx(np.log(5000) * np.array([1, 0, -1]), abs=1e-6)


def test_the_scale_is_elos() -> None:
    assert to_elo_scale(np.log(10) * np.array([0.5, -0.5])) == pytest.approx([1200, 800])
