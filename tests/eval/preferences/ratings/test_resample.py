"""Intervals: what is resampled, how the two ways are put together, and that they hold the truth often enough."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from add.errors import InputError
from benchmarks.ratings_coverage import STUDIES, SimulatedStudy, coverage, product, truth
from eval.preferences.ratings import resample
from eval.preferences.ratings.estimators import strengths
from eval.preferences.ratings.rate import rate
from eval.preferences.ratings.resample import (
    Spread,
    VarianceWay,
    cells,
    resampled,
    spread,
    ways,
)
from eval.preferences.ratings.tally import Tally
from tests.support.rated import as_tally, simulated, vote


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def repeated(votes: Tally, times: np.ndarray) -> Tally:
    """Votes with each as often as `times` says, copied out."""
    at = np.repeat(np.arange(votes.votes), times)
    names = ("first", "second", "score", "rater", "prompt", "left")
    return dataclasses.replace(votes, **{name: getattr(votes, name)[at] for name in names})


@pytest.mark.parametrize("by", ["rater", "prompt"])
def test_a_resample_is_the_votes_of_whole_clusters_copied_out(by) -> None:
    votes = simulated()
    drawn = resampled(votes, by, 6, rng(4))
    cluster, count = (votes.rater, 12) if by == "rater" else (votes.prompt, 30)
    times = rng(4).multinomial(count, np.full(count, 1 / count), size=6)
    assert not drawn.regularised.any()
    for b in range(6):
        alone = strengths(repeated(votes, times[b][cluster])).values[0]
        assert drawn.values[b] == pytest.approx(alone, abs=1e-8)
    assert drawn.values.std(axis=0).min() > 0.01


def test_large_counts_are_added_exactly() -> None:
    votes = simulated(votes=600, ties=0.3)
    many = repeated(votes, np.full(600, 2001))
    times = rng().integers(0, 9, (5, 12))
    times[0, 0] = 9  # twice the votes nine times is more than 2^24
    won, total = resample._sums(many, many.rater, 12, times)
    for b in range(5):
        weight = times[b][votes.rater]
        assert (total[b] == 2001 * votes.per_pair(weight)).all()
        assert (won[b] == 2001 * votes.per_pair(weight * votes.score)).all()


def test_with_two_systems_the_draws_spread_as_the_textbook_says() -> None:
    """The delta method for a logit of a share whose votes come in clusters."""
    votes = simulated(strengths=(-0.1, 0.1), raters=60, rater_effect=0.6, prompt_effect=0.0, votes=3000)
    value = strengths(votes).values[0]
    share = votes.score.mean()
    by_rater = np.bincount(votes.rater, votes.score - share)
    expected = (by_rater**2).sum() / (3000 * share * (1 - share)) ** 2
    contrast = np.array([[1.0, -1.0]])
    draws = resampled(votes, "rater", 4000, rng(), start=value).values @ contrast[0]
    assert draws.var() == pytest.approx(expected, rel=0.08)
    single = ((votes.score - share) ** 2).sum() / (3000 * share * (1 - share)) ** 2
    alone = dataclasses.replace(votes, rater=np.arange(3000), raters=("r",) * 3000)
    part = cells(alone, value)
    assert (contrast @ part.covariance @ contrast.T).item() == pytest.approx(single, rel=1e-9)
    assert expected > 1.5 * single, "the raters' effect does not show"


def test_two_ways_add_up_and_cells_are_taken_away_once() -> None:
    def one(v: float, clusters: int, sign: int = 1) -> VarianceWay:
        return VarianceWay(np.array([[v]]), clusters, sign)

    contrast = np.ones((1, 1))
    both = Spread((one(4.0, 11), one(3.0, 101), one(1.0, 900, -1)))
    error, freedom = both.error(contrast)
    assert error[0] ** 2 == pytest.approx(6)
    assert freedom[0] == pytest.approx(36 / (16 / 10 + 9 / 100 + 1 / 899))
    assert both.half_width(contrast)[0] == pytest.approx(np.sqrt(6) * 2.077, abs=0.01), "t with 21.3 degrees"
    low, freedom = Spread((one(0.5, 11), one(0.4, 101), one(1.0, 900, -1))).error(contrast)
    assert low[0] ** 2 == pytest.approx(0.4), "never less than the least of the three"
    assert freedom[0] == 10, "nor fewer degrees of freedom than the fewest clusters give"
    assert Spread((one(4.0, 11),)).error(contrast)[1][0] == pytest.approx(10)


@pytest.mark.parametrize("ties", [True, False])
def test_votes_that_no_resample_tells_apart_still_have_an_interval(ties: bool) -> None:
    """Breaks where five ties, or a win either way on each prompt, give a rating of 1000 without any doubt."""
    votes = [
        vote("ant", "bee", "tie" if ties else winner, prompt, rater=f"r{k}")  # type: ignore[arg-type]
        for prompt in range(5)
        for k, winner in enumerate("ab")
    ]
    (found,) = rate(votes, {}, resamples=100, shuffles=5)
    first = found.systems[0]
    assert first.low < 1000 < first.high
    pair = found.pairs[0]
    assert (first.high - first.low) / 400 > 0.2 * (pair.high - pair.low)


def test_few_clusters_are_corrected_for() -> None:
    votes = simulated(raters=4, rater_effect=0.5)
    value = strengths(votes).values[0]
    draws = {"rater": resampled(votes, "rater", 500, rng(), start=value)}
    found = spread(votes, value, draws).parts[0]  # type: ignore[arg-type]
    raw = np.cov(draws["rater"].values, rowvar=False)
    assert found.covariance == pytest.approx(raw * 4 / 3)
    assert found.clusters == 4


def test_what_is_resampled() -> None:
    votes = simulated()
    assert ways(votes) == ("rater", "prompt")
    assert ways(votes, raters_vary=False) == ("prompt",)
    one_rater = dataclasses.replace(votes, rater=np.zeros(900, int), raters=("r",))
    assert ways(one_rater) == ("prompt",)
    one_prompt = dataclasses.replace(votes, prompt=np.zeros(900, int), prompts=("p",))
    assert ways(one_prompt) == ("rater",)
    with pytest.raises(InputError, match="one prompt"):
        ways(one_prompt, raters_vary=False)


def test_resamples_without_an_estimate_are_finite_and_counted() -> None:
    votes = as_tally([("ant", "bee", 9, 0, 1), ("bee", "cat", 4, 0, 4)])
    drawn = resampled(votes, "prompt", 400, rng())
    assert np.isfinite(drawn.values).all()
    lost = (1 - 1 / 18) ** 18  # the one prompt on which bee won is not drawn
    assert drawn.regularised.mean() == pytest.approx(lost, abs=0.08)
    assert resampled(votes, "prompt", 5, rng(), half_wins=True).regularised.all()


def test_the_truth_without_effects_is_the_studys_own() -> None:
    values, rates = truth(SimulatedStudy((-0.5, 0.1, 0.4), raters=2, prompts=2, votes=2))
    assert values == pytest.approx([-0.5, 0.1, 0.4], abs=1e-9)
    assert rates[0] == pytest.approx(1 / (1 + np.exp(0.6)))
    near, _ = truth(SimulatedStudy((-0.5, 0.1, 0.4), raters=2, prompts=2, votes=2, rater_effect=1.0))
    assert 0.5 < np.ptp(near) / 0.9 < 0.9, "tastes blur the mean chances"


def test_intervals_hold_the_truth_and_the_simpler_ones_do_not() -> None:
    found = coverage(STUDIES["rater and prompt effects"], studies=60, resamples=150, seed=3)
    for name in ("ratings", "differences", "win rates"):
        assert 0.91 < found[name] < 0.985, name
    assert found["by prompt alone"] < 0.90
    assert found["product bootstrap"] > found["differences"]


def test_the_product_counts_a_votes_noise_three_times() -> None:
    """Owen 2007, where neither raters nor prompts matter; the two-way intervals count it once."""
    votes = simulated(
        strengths=(0.0, 0.0), raters=80, prompts=80, votes=4000, rater_effect=0.0, prompt_effect=0.0
    )
    value = strengths(votes).values[0]
    single = cells(votes, value).covariance[0, 0]
    ratio = product(votes, 600, rng(), value)[:, 0].var() / single
    assert 2.3 < ratio < 3.9
    draws = {by: resampled(votes, by, 600, rng(), start=value) for by in ways(votes)}
    error, _ = spread(votes, value, draws).error(np.array([[1.0, 0.0]]))
    assert 0.9 < error[0] ** 2 / single < 1.8


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_coverage_is_93_to_97_percent(name: str) -> None:
    found = coverage(STUDIES[name], studies=500, resamples=200, seed=1, others=False)
    for what, share in found.items():
        assert 0.93 <= share <= 0.97, f"{name}: {what}"


@pytest.mark.parametrize(("votes", "chance"), [(10, 0.9), (4, 0.5)])
def test_intervals_hold_where_one_system_wins_nearly_all(votes: int, chance: float) -> None:
    """Where resamples are all alike, since a system won every vote, they would give no width and claim ranks."""
    generator, held, apart = rng(3), [], []
    truth = 400 * np.log10(chance / (1 - chance))
    for _ in range(60):
        wins = generator.random(votes) < chance
        cast = [vote("ant", "bee", "a" if win else "b", number) for number, win in enumerate(wins)]
        first, second = sorted(rate(cast, {}, resamples=100, shuffles=1)[0].systems, key=lambda s: s.system)
        half = (first.high - first.low) / 2
        held.append(abs((first.rating - second.rating) / 2 - truth / 2) <= half)
        apart.append(first.rank != second.rank)
    assert np.mean(held) >= 0.93
    if chance == 0.5:
        assert np.mean(apart) <= 0.05
