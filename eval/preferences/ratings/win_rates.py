"""Win rates of pairs of systems, and what the votes behind them are worth.

Votes come in clusters: one rater's share that rater's taste, and those on one prompt its difficulty. The design effect
is how much more a rate varies for it than as many independent yes-or-no answers would. How alike the votes of a cluster
are is estimated over all pairs together, since one pair has too few votes for that, from those with two clusters or
more; a pair's own effect follows from how its votes are spread over its clusters. So a pair with one rater alone has
the effect of that rater's many votes, which its own votes do not show. A rate's interval is Wilson's, for the votes
divided by the effect: it stays within 0 and 1 and does not collapse where all votes agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.findings.verdicts import LEVEL as LEVEL_OF_TESTS
from eval.findings.verdicts import POWER, holm
from eval.preferences.ratings.resample import LEVEL, ways
from eval.preferences.ratings.tally import Array, Index, Tally
from eval.preferences.record import Vote

_FEWEST_CHECKS = 2
_ATTENTIVE = 0.8
"""The share of checks that a rater must pass: who answers by coin passes 11 of 13 in 1 of 90 cases."""


@dataclass(frozen=True)
class PairRate:
    """How often system_a was preferred to system_b: of `votes`, `wins` for a, `losses` against it, and `ties`.

    win_rate: (wins + ties/2) / votes, of system_a; low, high: its 95% interval. All three from 0 to 1. apart: whether
    it differs from 1/2 by a test at 5% for all pairs together (Holm).
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
    apart: bool


@dataclass(frozen=True)
class DesignEffect:
    """The variance of each rate over that of independent yes-or-no answers, (K,), and its degrees of freedom, (K,)."""

    value: Array
    freedom: Array

    def interval(self, rate: Array, votes: Array) -> tuple[Array, Array]:
        """95% intervals, low and high, of rates from 0 to 1 of `votes` votes each."""
        from scipy.stats import t

        square = t.ppf((1 + LEVEL) / 2, self.freedom) ** 2 * self.value / votes
        middle = (rate + square / 2) / (1 + square)
        half = np.sqrt(square * (rate * (1 - rate) + square / 4)) / (1 + square)
        return np.clip(middle - half, 0, rate), np.clip(middle + half, rate, 1)

    def p(self, rate: Array, votes: Array) -> Array:
        """Two-sided p-values of a rate of 1/2: the larger of the interval's own test and the binomial one."""
        from scipy.special import betainc
        from scipy.stats import t

        score = 2 * t.sf(np.abs(rate - 0.5) / np.sqrt(self.value / 4 / votes), self.freedom)
        # Of few votes the normal tail is too short: four that all agree have .046 by it, and .125 by the binomial.
        count = votes / self.value
        more, less = count * np.maximum(rate, 1 - rate), count * np.minimum(rate, 1 - rate)
        return np.asarray(np.maximum(score, np.minimum(1.0, 2 * betainc(more, less + 1, 0.5))))


def pair_rates(votes: Tally, raters_vary: bool = True) -> tuple[PairRate, ...]:
    """The rate of every pair with votes, in the order of the systems' names. `raters_vary`: see `ways`."""
    count, total = len(votes.ends[0]), votes.total
    wins, ties = (np.bincount(votes.pair, votes.score == score, count) for score in (1, 0.5))
    rate = votes.won / total
    effect = design_effect(votes, votes.score, votes.pair, raters_vary)
    low, high = effect.interval(rate, total)
    apart = [p <= LEVEL_OF_TESTS for p in holm(effect.p(rate, total).tolist())]
    names = ([votes.systems[k] for k in end] for end in votes.ends)
    counts = (column.astype(int).tolist() for column in (total, wins, ties, total - wins - ties))
    # In the order of PairRate's fields.
    rows = zip(*names, *counts, rate.tolist(), low.tolist(), high.tolist(), apart, strict=True)
    return tuple(PairRate(*row) for row in rows)


def design_effect(votes: Tally, values: Array, group: Index, raters_vary: bool = True) -> DesignEffect:
    """The design effects of the means of `values` (v,), each 0, 1/2 or 1, within K groups (v,), numbered from 0.

    At least that of independent votes (below 1 where there are ties); 1 where the values do not vary within their
    groups. Where no group has two raters (`raters_seen`), what raters do cannot be told from rates, and is not in it.
    """
    total = np.bincount(group)
    rate = np.bincount(group, values) / total
    surprise = values - rate[group]
    answers = total * rate * (1 - rate)
    unclustered = DesignEffect(np.ones(len(total)), np.full(len(total), 1e9))
    if answers.sum() <= 1e-12:
        return unclustered
    single, _, _ = _variance(surprise, group, np.arange(len(values)))
    # Where every vote is its pair's rate, as where all are ties, nothing says how they vary.
    if single.sum() <= 1e-12:
        return unclustered
    alone = single.sum() / answers.sum()
    clusters = [votes.clusters(by)[0] for by in ways(votes, raters_vary)]
    if len(clusters) == 2:
        clusters.append(votes.rater * len(votes.prompts) + votes.prompt)
    signs = (1, 1, -1)[: len(clusters)]
    effects, errors, extrapolated, fewest = [], [], [], []
    for cluster in clusters:
        variance, clusters_less_one, together = _variance(surprise, group, cluster)
        seen = clusters_less_one > 0
        # How alike two votes of a cluster are, in units of a vote's variance; how many times as many such pairs of
        # votes a group has as those that tell.
        pairs, of_seen = float((answers / total * together)[seen].sum()), float(answers[seen].sum())
        likeness = float((variance - single)[seen].sum()) / pairs if pairs else 0.0
        times = together / total * of_seen / pairs if pairs else np.ones(len(total))
        freedom = max(1, int(clusters_less_one.sum()))
        error = variance.sum() / max(of_seen, 1e-12) / np.sqrt(freedom)
        effects.append(alone + likeness * together / total)
        errors.append(times * error)
        extrapolated.append(np.maximum(times - 1, 0) * error)
        fewest.append(freedom / np.maximum(times, 1) ** 2)
    found = np.maximum(signs @ np.array(effects), np.min(effects, axis=0))
    value = np.maximum(found, alone)
    # Satterthwaite's. That votes are independent at best is known, and how far it is beyond that where a group has more
    # votes a cluster than those that tell, is not.
    error = np.where(
        found > alone, np.sum(np.square(errors), axis=0), np.sum(np.square(extrapolated), axis=0)
    )
    least = np.maximum(np.min(fewest, axis=0), 1)
    return DesignEffect(value, np.maximum(value**2 / np.maximum(error, 1e-9), least))


def raters_seen(votes: Tally) -> bool:
    """Whether a pair of systems has votes of two raters."""
    return len(np.unique(votes.pair * len(votes.raters) + votes.rater)) > len(votes.total)


def _variance(surprise: Array, group: Index, cluster: Index) -> tuple[Array, Index, Index]:
    """Of each group (K,) the variance of its sum, clusters being independent, 0 with one cluster; its degrees of
    freedom, one fewer than its clusters; how many ordered pairs of its votes are of one cluster."""
    width = int(cluster.max()) + 1
    held, where = np.unique(group * width + cluster, return_inverse=True)
    groups, sizes = held // width, np.bincount(where)
    count = np.bincount(groups)
    freedom = count - 1
    variance = np.bincount(groups, np.bincount(where, surprise) ** 2) * count / np.maximum(freedom, 1)
    together = np.bincount(groups, sizes * (sizes - 1)).astype(np.int64)
    return np.where(freedom > 0, variance, 0.0), freedom, together


@dataclass(frozen=True)
class Proportion:
    """A share from 0 to 1 and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha, 1 for full agreement and 0 for chance; or None, and the reason."""

    value: float | None
    reason: str = ""


def krippendorff_alpha(votes: Sequence[Vote]) -> Alpha:
    """Nominal alpha of the answers (one system, the other, tie); a unit is a question on two images of a prompt.

    Which of the two systems is called the first would change alpha's expected disagreement, so every unit is
    entered in both orders, and alpha does not depend on names (Krippendorff, Content Analysis, chapter 11).
    """
    import krippendorff  # type: ignore[import-untyped]

    units: dict[object, Counter[str]] = defaultdict(Counter)
    for v in votes:
        images = frozenset(((v.system_a, v.image_a), (v.system_b, v.image_b)))
        answer = {"a": v.system_a, "b": v.system_b, "tie": ""}[v.winner]
        lower = min(v.system_a, v.system_b)
        units[v.question, v.whole_prompt, images]["tie" if not answer else "01"[answer == lower]] += 1
    shared = [unit for unit in units.values() if unit.total() > 1]
    if not shared:
        return Alpha(None, "no two raters saw the same two images under the same question")
    counts = np.array([[unit["0"], unit["1"], unit["tie"]] for unit in shared])
    if not counts[:, :2].any():
        return Alpha(None, "every answer that could be compared was a tie")
    both = np.concatenate([counts, counts[:, [1, 0, 2]]])
    return Alpha(float(krippendorff.alpha(value_counts=both, level_of_measurement="nominal")))


def position_bias(votes: Tally, raters_vary: bool = True) -> Proportion | None:
    """Share of the decided votes with known sides that chose the left image; None without such votes.

    1/2 is no bias. raters_vary: see `resample.ways`.
    """
    known = ~np.isnan(votes.left)
    if not known.any():
        return None
    part, left = votes.only(known), votes.left[known]
    effect = design_effect(part, left, np.zeros(part.votes, np.int64), raters_vary)
    value = left.mean(keepdims=True)
    low, high = effect.interval(value, np.array([float(part.votes)]))
    return Proportion(float(value[0]), float(low[0]), float(high[0]))


def transitive_share(votes: Tally) -> float | None:
    """Share of triples of systems whose three majorities form no cycle; None where no triple has three majorities.

    Triples with a pair that is even, or has no votes, do not count. Tosses of a coin give 3/4.
    """
    n = len(votes.systems)
    ahead = np.zeros((n, n), bool)
    first, second = votes.ends
    ahead[first, second] = votes.won > votes.total / 2
    ahead[second, first] = votes.won < votes.total / 2
    beats = ahead.astype(np.int64)
    decided = beats + beats.T
    triples = int(np.trace(decided @ decided @ decided)) // 6
    cycles = int(np.trace(beats @ beats @ beats)) // 3
    return 1 - cycles / triples if triples else None


def smallest_difference(votes: Tally, raters_vary: bool = True) -> float:
    """How far from 1/2 a win rate must be for the median pair to be `apart` in 80% of studies, at most 1/2.

    (t_(1 - .05 / 2 K) + t_.8) sqrt(1/4 D / votes): K pairs, D the pair's design effect, t Student's quantiles.
    """
    from scipy.stats import t

    effect = design_effect(votes, votes.score, votes.pair, raters_vary)
    quantiles = sum(t.ppf(p, effect.freedom) for p in (1 - LEVEL_OF_TESTS / 2 / len(votes.total), POWER))
    return float(min(0.5, np.median(quantiles * np.sqrt(effect.value / 4 / votes.total))))


def inattentive(checks: Sequence[Vote]) -> tuple[tuple[str, str], ...]:
    """(study, rater) of those who passed fewer than 80% of a study's attention checks, and had at least two; in order.

    By study, since two studies may have given one id to two people.
    """
    passed: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for vote in checks:
        passed[vote.study, vote.rater].append(vote.passed)
    return tuple(
        rater
        for rater, results in sorted(passed.items())
        if len(results) >= _FEWEST_CHECKS and results.count(True) < _ATTENTIVE * len(results)
    )
