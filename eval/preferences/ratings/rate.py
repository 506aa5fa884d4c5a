"""Votes in, ratings out: per kind of raters, per question and both together, per category of prompts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError
from eval.findings.verdicts import LEVEL, holm
from eval.preferences.ratings import win_rates
from eval.preferences.ratings.estimators import elo, strengths, to_elo_scale
from eval.preferences.ratings.resample import Cluster, Spread, resampled, spread, ways
from eval.preferences.ratings.result import ALL, RATED, Diagnostics, Rated, Ratings, SystemRating
from eval.preferences.ratings.tally import Array, Tally, tally
from eval.preferences.record import QUESTIONS, RATER_KINDS, RaterKind, Vote

_FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class RatingSettings:
    """What `rate` was asked for."""

    seed: int
    resamples: int
    shuffles: int

    def seed_of(self, *labels: str) -> int:
        """A seed for one use, so that no rating depends on which others are made."""
        text = ":".join((str(self.seed), *labels))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def rate(
    votes: Sequence[Vote],
    categories: Mapping[str, str] = {},
    *,
    seed: int = 0,
    resamples: int = 1000,
    shuffles: int = 1000,
) -> tuple[Ratings, ...]:
    """Ratings of all systems: kinds of raters in the order of RATER_KINDS; for each, quality, alignment, both; for
    each of these, "all" and then the categories by name. What has no votes has no ratings; no votes give ().

    categories: prompt id -> category. "both" pools the votes of both questions for Bradley-Terry and takes the
    mean of the two questions' ELO, as the paper does. A category whose systems votes do not link is left out, and so
    is "both" where a question lacks a system; the notes of the ratings over all prompts say so. The order of the
    votes does not matter.

    Raises InputError where the votes over all prompts do not link the systems or allow no interval, where all
    raters of a kind are excluded, for resamples < 100 and for shuffles < 1.
    """
    if resamples < _FEWEST_RESAMPLES:
        raise InputError(f"resamples is {resamples}; an interval needs at least {_FEWEST_RESAMPLES}")
    settings = RatingSettings(seed, resamples, shuffles)
    ordered = sorted(votes, key=_place)
    return tuple(
        found
        for kind in RATER_KINDS
        for found in _rate_kind([v for v in ordered if v.rater_kind == kind], kind, categories, settings)
    )


def _place(vote: Vote) -> tuple[str, ...]:
    pair = sorted(((vote.system_a, vote.image_a), (vote.system_b, vote.image_b)))
    return vote.study, vote.prompt_id, vote.question, vote.rater, *pair[0], *pair[1], vote.time


def _rate_kind(
    votes: list[Vote], kind: RaterKind, categories: Mapping[str, str], settings: RatingSettings
) -> list[Ratings]:
    answers = [v for v in votes if v.attention_check != "no"]
    passed = sum(v.passed for v in answers)
    inattentive = win_rates.inattentive(answers)
    several = len({v.study for v in votes}) > 1
    excluded = tuple(f"{rater} (study {study})" if several else rater for study, rater in inattentive)
    checks = {"checks_passed": passed, "checks_failed": len(answers) - passed, "excluded_raters": excluded}
    kept = [v for v in votes if v.attention_check == "no" and (v.study, v.rater) not in inattentive]
    if not kept and excluded:
        raise InputError(
            f"all {kind} raters with votes failed their attention checks: {', '.join(excluded)}; "
            "take their files out of the folder of preference files, or add another rater's"
        )
    made: list[Ratings] = []
    left_out: list[tuple[Rated, str]] = []
    filed = {v.prompt_id: categories[v.prompt_id] for v in kept if v.prompt_id in categories}
    for category in (ALL, *sorted(set(filed.values()))):
        inside = [v for v in kept if category in (ALL, filed.get(v.prompt_id))]
        elos: dict[Rated, dict[str, float]] = {}
        for question in RATED:
            part = [v for v in inside if question in (v.question, "both")]
            if not part or (question == "both" and len({v.question for v in part}) < len(QUESTIONS)):
                continue
            reason: object = _no_mean(elos) if question == "both" else None
            if reason is None:
                try:
                    found = _rate_one(part, kind, question, category, elos, checks, settings)
                except InputError as error:
                    if category == ALL:
                        raise InputError(f"{kind} votes on {question}", error) from error
                    reason = error
            if reason is not None:
                left_out.append((question, f"{question}, {category}: no ratings, since {reason}"))
                continue
            elos[question] = {s.system: s.elo for s in found.systems}
            made.append(found)
    there = {found.question for found in made if found.category == ALL}
    for k, found in enumerate(made):
        if found.category != ALL:
            continue
        notes = [*found.diagnostics.notes]
        notes += [text for of, text in left_out if of == found.question or of not in there]
        unfiled = sum(v.prompt_id not in filed for v in kept if found.question in (v.question, "both"))
        if categories and unfiled:
            notes.append(f"{unfiled} votes are on prompts of no known category")
        diagnostics = dataclasses.replace(found.diagnostics, notes=tuple(notes))
        made[k] = dataclasses.replace(found, diagnostics=diagnostics)
    return sorted(made, key=lambda r: (RATED.index(r.question), r.category != ALL, r.category))


def _no_mean(elos: Mapping[Rated, Mapping[str, float]]) -> str | None:
    """Why there is no mean of the two questions' ELO; None where every system has both."""
    if len(elos) < len(QUESTIONS):
        return "one of the two questions has no ratings"
    quality, alignment = (set(elos[question]) for question in QUESTIONS)
    if quality != alignment:
        return f"these systems have votes on one question only: {', '.join(sorted(quality ^ alignment))}"
    return None


def _rate_one(
    votes: list[Vote],
    kind: RaterKind,
    question: Rated,
    category: str,
    elos: Mapping[Rated, Mapping[str, float]],
    checks: Mapping[str, Any],
    settings: RatingSettings,
) -> Ratings:
    """Ratings of votes of one kind, question and category.

    elos: {question: {system: ELO}}, for the mean. Programs are no sample from a population of raters, so only prompts
    are resampled for them. Raises InputError.
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
    notes = []
    if ties:
        notes.append(f"ELO leaves out {ties} ties of {data.votes} votes; Bradley-Terry counts them half")
    if raters_vary and len(data.raters) > 1 and not win_rates.raters_seen(data):
        notes.append("no pair has votes of two raters: intervals of win rates are for these raters alone")
    return Ratings(
        *(kind, question, category, _clusters(data, tuple(draws), raters_vary)),
        **dataclasses.asdict(settings),
        systems=_systems(data, values, spread(data, values, draws, half_wins), points),
        pairs=win_rates.pair_rates(data, raters_vary),
        diagnostics=Diagnostics(
            votes=data.votes,
            prompts=len(data.prompts),
            raters=len(data.raters),
            tie_rate=ties / data.votes,
            position_bias=win_rates.position_bias(data, raters_vary),
            alpha=win_rates.krippendorff_alpha(votes),
            transitive_share=win_rates.transitive_share(data),
            smallest_difference=win_rates.smallest_difference(data, raters_vary),
            **checks,
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


def _clearly_above(values: Array, uncertain: Spread) -> NDArray[np.bool_]:
    """(n, n): whether system i is above system j by a test at 5% for all pairs together (Holm)."""
    from scipy.stats import t

    n = len(values)
    first, second = np.triu_indices(n, 1)
    error, freedom = uncertain.error(np.eye(n)[first] - np.eye(n)[second])
    difference = values[first] - values[second]
    p = 2 * t.sf(np.abs(difference) / np.maximum(error, 1e-9), freedom)
    apart = np.array([each <= LEVEL for each in holm(p.tolist())], bool)
    clear = np.zeros((n, n), bool)
    clear[first, second], clear[second, first] = apart & (difference > 0), apart & (difference < 0)
    return clear


def _systems(data: Tally, values: Array, uncertain: Spread, elos: Array) -> tuple[SystemRating, ...]:
    n = len(data.systems)
    clear = _clearly_above(values, uncertain)
    half = uncertain.half_width(np.eye(n) - 1 / n)
    rating, low, high = (to_elo_scale(v) for v in (values, values - half, values + half))
    both = np.concatenate([data.first, data.second])
    score = np.concatenate([data.score, 1 - data.score])
    wins, ties, losses = (np.bincount(both, score == s, n).astype(int) for s in (1, 0.5, 0))
    # In the order of SystemRating's fields.
    columns = (wins + ties + losses, wins, ties, losses, elos, rating, low, high, 1 + clear.sum(axis=0))
    rows = zip(data.systems, *(column.tolist() for column in columns), strict=True)
    made = [SystemRating(*row) for row in rows]
    return tuple(made[k] for k in np.argsort(-values, kind="stable"))
