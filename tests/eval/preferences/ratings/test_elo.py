"""The paper's ELO: its formula by hand, against a slow implementation, against evalica, and what must not matter."""

from __future__ import annotations

import evalica
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.preferences.ratings import estimators as module
from eval.preferences.ratings.estimators import elo, games, slow_elo
from eval.preferences.ratings.tally import tally
from tests.support.rated import NAMES, as_tally, few_votes, random_votes, renamed, swapped


def test_one_game_moves_half_a_point_and_a_second_one_a_little_less() -> None:
    assert elo(as_tally([("ant", "bee", 1, 0, 0)]), 5) == pytest.approx([1000.5, 999.5], abs=1e-12)
    second = 1 - 1 / (1 + 10 ** (-1 / 400))
    expected = [1000.5 + second, 999.5 - second]
    assert elo(as_tally([("ant", "bee", 2, 0, 0)]), 5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", ["left out", "half"])
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_slow_implementation(seed: int, ties) -> None:
    votes = tally(random_votes(seed, 700, systems=6))
    fast = elo(votes, 30, seed=seed, ties=ties)
    assert fast == pytest.approx(slow_elo(votes, 30, seed=seed, ties=ties), abs=1e-9, rel=0)
    assert np.ptp(fast) > 10, "nothing moved"


@pytest.mark.parametrize("ties", ["left out", "half"])
def test_one_order_equals_evalica(ties) -> None:
    votes = tally(random_votes(3, 500))
    first, second, score = games(votes, ties)
    order = module._orders(len(score), 1, np.random.default_rng(8))[0]
    winner = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    theirs = evalica.elo(
        [NAMES[k] for k in first[order]],
        [NAMES[k] for k in second[order]],
        [winner[s] for s in score[order]],
        initial=1000.0,
        base=10.0,
        scale=400.0,
        k=1.0,
    )
    ours = elo(votes, 1, seed=8, ties=ties)
    assert ours == pytest.approx(theirs.scores[list(votes.systems)].to_numpy(), abs=1e-9, rel=0)


@given(votes=few_votes(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_sum_is_kept_and_sides_and_names_do_not_matter(votes, seed: int) -> None:
    counted = tally(votes)
    ratings = elo(counted, 7, seed=seed)
    assert ratings.sum() == pytest.approx(1000 * len(counted.systems), abs=1e-9)
    assert elo(tally(swapped(votes)), 7, seed=seed) == pytest.approx(ratings, abs=1e-9)
    names = dict(zip(NAMES, reversed(NAMES), strict=True))
    other = tally(renamed(votes, names))
    again = dict(zip(other.systems, elo(other, 7, seed=seed), strict=True))
    assert [again[names[s]] for s in counted.systems] == pytest.approx(list(ratings), abs=1e-9)


def test_orders_matter_so_the_mean_over_many_is_steadier() -> None:
    votes = tally(random_votes(5, 400))
    single = np.std([elo(votes, 1, seed=s) for s in range(30)], axis=0).max()
    many = np.std([elo(votes, 100, seed=s) for s in range(30)], axis=0).max()
    assert 6 < single / many < 16, "the error should fall with the root of the number of orders"


def test_ties_are_left_out_unless_asked_for() -> None:
    plain = as_tally([("ant", "bee", 3, 0, 1), ("bee", "cat", 2, 0, 2)])
    with_ties = as_tally([("ant", "bee", 3, 5, 1), ("bee", "cat", 2, 1, 2)])
    assert len(games(with_ties)[0]) == 8
    assert elo(with_ties, 400) == pytest.approx(elo(plain, 400), abs=0.02)
    lead = as_tally([("ant", "bee", 40, 400, 0)])
    assert elo(lead, 10, ties="half")[0] < elo(lead, 10)[0] - 5, "ties pull a leader back"
    assert list(elo(as_tally([("ant", "bee", 0, 4, 0)]), 3)) == [1000, 1000]


def test_memory_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = tally(random_votes(1, 300))
    whole = elo(votes, 10)
    monkeypatch.setattr(module, "_TOGETHER", 900)
    assert elo(votes, 10) == pytest.approx(whole, abs=1e-10)


def test_wrong_settings_are_refused() -> None:
    votes = tally(random_votes(1, 10))
    with pytest.raises(ValueError, match="shuffles is 0"):
        elo(votes, 0)
    with pytest.raises(ValueError, match="ties is 'lost'"):
        elo(votes, ties="lost")  # type: ignore[arg-type]
