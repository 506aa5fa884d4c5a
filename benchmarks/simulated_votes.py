"""Votes of a made-up study with known strengths, to see whether an interval covers what it should.

The chance that rater r prefers system i to j on prompt p is logistic in
s_i - s_j + (u_ri - u_rj) + (v_pi - v_pj): raters have tastes u, prompts suit some systems better (v), both
normal. These are the effects for which votes of one rater, or on one prompt, are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.preferences.ratings.bradley_terry import solve
from eval.preferences.ratings.tally import Array, Tally


@dataclass(frozen=True)
class SimulatedStudy:
    """A design and the truth behind it.

    strengths: (n,) of the systems, n >= 2. votes: how many, each on a prompt, by a rater and on a pair drawn at
    random. rater_effect, prompt_effect: the standard deviations of u and v, >= 0, in units of strength.
    ties: the chance that a vote is a tie, whoever would have won.
    """

    strengths: tuple[float, ...]
    raters: int
    prompts: int
    votes: int
    rater_effect: float = 0.0
    prompt_effect: float = 0.0
    ties: float = 0.0


def draw(study: SimulatedStudy, generator: np.random.Generator) -> Tally:
    """One study's votes; raters, prompts and votes are drawn anew."""
    n = len(study.strengths)
    first, second = np.triu_indices(n, 1)
    pair = generator.integers(len(first), size=study.votes)
    rater = generator.integers(study.raters, size=study.votes)
    prompt = generator.integers(study.prompts, size=study.votes)
    taste = generator.normal(0, study.rater_effect, (study.raters, n))
    suits = generator.normal(0, study.prompt_effect, (study.prompts, n))
    worth = np.asarray(study.strengths) + taste[rater] + suits[prompt]
    each = np.arange(study.votes)
    ahead = worth[each, first[pair]] - worth[each, second[pair]]
    score = (generator.random(study.votes) < 1 / (1 + np.exp(-ahead))).astype(np.float64)
    score[generator.random(study.votes) < study.ties] = 0.5
    return Tally(
        systems=tuple(f"system {k:03d}" for k in range(n)),
        raters=tuple(f"rater {k:05d}" for k in range(study.raters)),
        prompts=tuple(f"prompt {k:05d}" for k in range(study.prompts)),
        first=first[pair],
        second=second[pair],
        score=score,
        rater=rater,
        prompt=prompt,
        left=np.where(score == 0.5, np.nan, generator.integers(2, size=study.votes).astype(np.float64)),
    )


def truth(study: SimulatedStudy) -> tuple[Array, Array]:
    """What endless votes would give: strengths (n,) with mean 0, and win rates (K,) of the pairs in order.

    The mean of a logistic function over normal effects is no logistic function, so the strengths are those
    of the Bradley-Terry model nearest to the mean chances, and a little nearer together than the study's own.
    """
    n = len(study.strengths)
    ends = np.triu_indices(n, 1)
    own = np.asarray(study.strengths)
    spread = np.sqrt(2 * (study.rater_effect**2 + study.prompt_effect**2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    ahead = own[ends[0]] - own[ends[1]]
    chance = (1 / (1 + np.exp(-(ahead[:, None] + spread * nodes)))) @ (weights / weights.sum())
    rates = (1 - study.ties) * chance + study.ties / 2
    fitted = solve(rates[None], np.ones((1, len(rates))), (ends[0], ends[1]), n)
    return fitted.values[0], rates
