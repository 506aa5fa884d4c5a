"""What the votes are worth: agreement of raters, position bias, transitivity, and what they could have detected."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.preferences.ratings.pairs import design_effect
from eval.preferences.ratings.tally import Tally
from eval.preferences.record import Vote

POWER_FACTOR = 1.959964 + 0.841621
"""Quantiles of the normal distribution for a two-sided test at 5% that finds a difference 80% of the time."""

_FEWEST_CHECKS = 2


@dataclass(frozen=True)
class Proportion:
    """A share from 0 to 1 and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha, 1 for full agreement and 0 for chance; or None and the reason why there is none."""

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
        units[v.question, v.prompt_id, images]["tie" if not answer else "01"[answer == lower]] += 1
    shared = [unit for unit in units.values() if unit.total() > 1]
    if not shared:
        return Alpha(None, "no two raters saw the same two images under the same question")
    counts = np.array([[unit["0"], unit["1"], unit["tie"]] for unit in shared])
    if not counts[:, :2].any():
        return Alpha(None, "every answer that could be compared was a tie")
    both = np.concatenate([counts, counts[:, [1, 0, 2]]])
    return Alpha(float(krippendorff.alpha(value_counts=both, level_of_measurement="nominal")))


def position_bias(votes: Tally, raters_vary: bool = True) -> Proportion | None:
    """The share of votes that chose the left image, of those that chose one and whose sides are known; None
    where there are none. 1/2 is no bias. `raters_vary`: see `resample.ways`."""
    known = ~np.isnan(votes.left)
    if not known.any():
        return None
    part, left = votes.only(known), votes.left[known]
    effect = design_effect(part, left, np.zeros(part.votes, np.int64), raters_vary)
    value = left.mean(keepdims=True)
    low, high = effect.interval(value, np.array([float(part.votes)]))
    return Proportion(float(value[0]), float(low[0]), float(high[0]))


def transitive_share(votes: Tally) -> float | None:
    """The share of triples of systems whose three majorities are no cycle; None without a triple that has three.

    Triples with a pair that is even, or has no votes, do not count. Three coins give 3/4.
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
    """How far from 1/2 a win rate must be for a pair with the median number of votes to show it, tested at 5%,
    in 80% of studies: 2.80 sqrt(1/4 D / votes), D the design effect of the clusters. At most 1/2."""
    effect = design_effect(votes, votes.score, votes.pair, raters_vary).value
    return float(min(0.5, POWER_FACTOR * np.sqrt(effect / 4 / np.median(votes.total))))


def inattentive(checks: Sequence[Vote]) -> tuple[str, ...]:
    """Raters who failed more than half of their attention checks, and had at least two; in order of names."""
    passed: dict[str, list[bool]] = defaultdict(list)
    for vote in checks:
        passed[vote.rater].append(vote.passed)
    return tuple(
        rater
        for rater, results in sorted(passed.items())
        if len(results) >= _FEWEST_CHECKS and results.count(False) > len(results) / 2
    )
