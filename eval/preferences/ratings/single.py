"""The ratings of one set of votes: one kind of raters, one question or both, one category of prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eval.preferences.ratings.agreement import (
    krippendorff_alpha,
    position_bias,
    smallest_difference,
    transitive_share,
)
from eval.preferences.ratings.bradley_terry import strengths, to_elo_scale
from eval.preferences.ratings.elo import elo
from eval.preferences.ratings.pairs import pair_rates
from eval.preferences.ratings.resample import Cluster, Spread, resampled, spread, ways
from eval.preferences.ratings.result import Diagnostics, Rated, Ratings, SystemRating
from eval.preferences.ratings.tally import Array, Tally, tally
from eval.preferences.record import QUESTIONS, RaterKind, Vote


@dataclass(frozen=True)
class Settings:
    """What `summary.rate` was asked for."""

    seed: int
    resamples: int
    shuffles: int

    def seed_of(self, *labels: str) -> int:
        """A seed for one use, so that no rating depends on which others are made."""
        text = ":".join((str(self.seed), *labels))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def rate_one(
    votes: list[Vote],
    kind: RaterKind,
    question: Rated,
    category: str,
    elos: Mapping[Rated, Mapping[str, float]],
    settings: Settings,
) -> Ratings:
    """Ratings of votes that are of one kind already, without facts on attention checks.

    elos: {question: {system: ELO}} of the single questions, of which "both" takes the mean. Programs are no sample
    from a population of raters, so only prompts are resampled for them. Raises DisconnectedError, NoIntervalError.
    """
    data = tally(votes)
    raters_vary = kind == "human"
    generator = np.random.default_rng(settings.seed_of(kind, question, category, "resamples"))
    found = strengths(data)
    values, half_wins = found.values[0], bool(found.regularised[0])
    draws = {
        by: resampled(data, by, settings.resamples, generator, start=values, half_wins=half_wins)
        for by in ways(data, raters_vary)
    }
    if question == "both":
        points = np.array([np.mean([elos[q][name] for q in QUESTIONS]) for name in data.systems])
    else:
        points = elo(data, settings.shuffles, seed=settings.seed_of(kind, question, category, "elo"))
    ties = int((data.score == 0.5).sum())
    notes = (
        [f"ELO leaves out {ties} ties of {data.votes} votes; Bradley-Terry counts them half"] if ties else []
    )
    return Ratings(
        rater_kind=kind,
        question=question,
        category=category,
        clusters=_clusters(data, tuple(draws), raters_vary),
        resamples=settings.resamples,
        shuffles=settings.shuffles,
        seed=settings.seed,
        systems=_systems(data, values, spread(data, values, draws), points),
        pairs=pair_rates(data, raters_vary),
        diagnostics=Diagnostics(
            votes=data.votes,
            prompts=len(data.prompts),
            raters=len(data.raters),
            tie_rate=ties / data.votes,
            position_bias=position_bias(data, raters_vary),
            alpha=krippendorff_alpha(votes),
            transitive_share=transitive_share(data),
            smallest_difference=smallest_difference(data, raters_vary),
            checks_passed=0,
            checks_failed=0,
            excluded_raters=(),
            half_wins=half_wins,
            half_win_share=float(np.mean([d.regularised for d in draws.values()])),
            notes=tuple(notes),
        ),
    )


def _clusters(data: Tally, by: tuple[Cluster, ...], raters_vary: bool) -> str:
    raters, prompts = f"{len(data.raters)} raters", f"{len(data.prompts)} prompts"
    if len(by) == 2:
        return f"{raters} and {prompts}"
    if by == ("rater",):
        return f"{raters}; there is one prompt"
    if len(data.raters) == 1:
        return f"{prompts}; there is one rater"
    return prompts if raters_vary else f"{prompts}; the {raters} are programs, and stay as they are"


def _systems(data: Tally, values: Array, uncertain: Spread, elos: Array) -> tuple[SystemRating, ...]:
    n = len(data.systems)
    first, second = (index.ravel() for index in np.indices((n, n)))
    contrasts = np.eye(n)[first] - np.eye(n)[second]
    clear = (values[first] - values[second] > uncertain.half_width(contrasts)).reshape(n, n)
    half = uncertain.half_width(np.eye(n) - 1 / n)
    rating, low, high = (to_elo_scale(v) for v in (values, values - half, values + half))
    both = np.concatenate([data.first, data.second])
    score = np.concatenate([data.score, 1 - data.score])
    wins, ties, losses = (np.bincount(both, score == s, n).astype(int) for s in (1, 0.5, 0))
    return tuple(
        SystemRating(
            system=data.systems[k],
            votes=int(wins[k] + ties[k] + losses[k]),
            wins=int(wins[k]),
            ties=int(ties[k]),
            losses=int(losses[k]),
            elo=float(elos[k]),
            rating=float(rating[k]),
            low=float(low[k]),
            high=float(high[k]),
            rank=1 + int(clear[:, k].sum()),
        )
        for k in np.argsort(-values, kind="stable")
    )
