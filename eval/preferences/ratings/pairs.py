"""Win rates of pairs of systems, ties half, with intervals that know that votes come in clusters.

The design effect is how much more the rates vary, votes being clustered by rater and prompt, than as many
independent yes-or-no answers would; it is estimated over all pairs together, since one pair has too few votes
for its own. A rate's interval is Wilson's, for the votes divided by that effect: it stays within 0 and 1 and
does not collapse where all votes agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.preferences.ratings.resample import LEVEL, Spread, VarianceWay, ways
from eval.preferences.ratings.tally import Array, Index, Tally


@dataclass(frozen=True)
class PairRate:
    """How often system_a was preferred to system_b: of `votes`, `wins` for a, `losses` against it, and `ties`.

    win_rate: (wins + ties/2) / votes, of system_a; low, high: its 95% interval. All three from 0 to 1.
    """

    system_a: str
    system_b: str
    votes: int
    wins: int
    ties: int
    losses: int
    win_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class DesignEffect:
    """The variance of rates over that of independent yes-or-no answers; `freedom`: its degrees of freedom."""

    value: float
    freedom: float

    def interval(self, rate: Array, votes: Array) -> tuple[Array, Array]:
        """95% intervals, low and high, of rates from 0 to 1 of `votes` votes each."""
        from scipy.stats import t

        square = t.ppf((1 + LEVEL) / 2, self.freedom) ** 2 * self.value / votes
        middle = (rate + square / 2) / (1 + square)
        half = np.sqrt(square * (rate * (1 - rate) + square / 4)) / (1 + square)
        return np.clip(middle - half, 0, rate), np.clip(middle + half, rate, 1)


def pair_rates(votes: Tally, raters_vary: bool = True) -> tuple[PairRate, ...]:
    """The rate of every pair with votes, in the order of the systems' names. `raters_vary`: see `ways`."""
    count = len(votes.ends[0])
    wins = np.bincount(votes.pair, votes.score == 1, count)
    ties = np.bincount(votes.pair, votes.score == 0.5, count)
    rate = votes.won / votes.total
    low, high = design_effect(votes, votes.score, votes.pair, raters_vary).interval(rate, votes.total)
    return tuple(
        PairRate(
            system_a=votes.systems[votes.ends[0][k]],
            system_b=votes.systems[votes.ends[1][k]],
            votes=int(votes.total[k]),
            wins=int(wins[k]),
            ties=int(ties[k]),
            losses=int(votes.total[k] - wins[k] - ties[k]),
            win_rate=float(rate[k]),
            low=float(low[k]),
            high=float(high[k]),
        )
        for k in range(count)
    )


def design_effect(votes: Tally, values: Array, group: Index, raters_vary: bool = True) -> DesignEffect:
    """The design effect of the means of `values` (v,), each 0, 1/2 or 1, within groups (v,).

    At least that of independent votes (below 1 where there are ties); 1 where the values do not vary.
    """
    total = np.bincount(group)
    rate = np.bincount(group, values) / np.maximum(total, 1)
    surprise = values - rate[group]
    answers = float((total * rate * (1 - rate)).sum())
    if answers <= 1e-12:
        return DesignEffect(1.0, 1e9)
    single, _ = _variance(surprise, group, np.arange(len(values)))
    parts = [
        _part(surprise, group, votes.rater if by == "rater" else votes.prompt)
        for by in ways(votes, raters_vary)
    ]
    if len(parts) == 2:
        parts.append(_part(surprise, group, votes.rater * len(votes.prompts) + votes.prompt, -1))
    error, freedom = Spread(tuple(parts)).error(np.ones((1, 1)))
    if error[0] ** 2 <= single:
        return DesignEffect(single / answers, 1e9)
    return DesignEffect(float(error[0] ** 2) / answers, float(freedom[0]))


def _part(surprise: Array, group: Index, cluster: Index, sign: int = 1) -> VarianceWay:
    variance, freedom = _variance(surprise, group, cluster)
    return VarianceWay(np.array([[variance]]), 1 + freedom, sign)


def _variance(surprise: Array, group: Index, cluster: Index) -> tuple[float, int]:
    """The variance of the groups' sums, clusters being independent, summed over groups with two clusters or more;
    and its degrees of freedom, one fewer than clusters in each group."""
    width = int(cluster.max()) + 1
    held, where = np.unique(group * width + cluster, return_inverse=True)
    squares = np.bincount(where, surprise) ** 2
    clusters = np.bincount(held // width)
    variance = np.bincount(held // width, squares)
    freedom = np.maximum(clusters - 1, 0)
    return float((variance * clusters / np.maximum(freedom, 1))[freedom > 0].sum()), int(freedom.sum())
