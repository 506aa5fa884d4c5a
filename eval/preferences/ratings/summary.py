"""Votes in, ratings out: per kind of raters, per question and both together, per category of prompts.

Kinds of raters are never pooled. Attention checks enter no rating; raters who failed them are left out by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eval.preferences.ratings.agreement import inattentive
from eval.preferences.ratings.bradley_terry import DisconnectedError
from eval.preferences.ratings.pairs import PairRate
from eval.preferences.ratings.resample import NoIntervalError
from eval.preferences.ratings.result import (
    ALL,
    RATED,
    Diagnostics,
    Rated,
    Ratings,
    SystemRating,
    read_ratings,
    write_ratings,
)
from eval.preferences.ratings.single import Settings, rate_one
from eval.preferences.record import QUESTIONS, RATER_KINDS, RaterKind, Vote

__all__ = [
    "ALL",
    "Diagnostics",
    "DisconnectedError",
    "InattentiveError",
    "NoIntervalError",
    "PairRate",
    "Ratings",
    "SystemRating",
    "rate",
    "read_ratings",
    "write_ratings",
]

_FEWEST_RESAMPLES = 100


class InattentiveError(ValueError):
    """Every rater of a kind failed the attention checks: what is left of these votes is none."""


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
    votes does not matter. Raises DisconnectedError and NoIntervalError (both ValueError) for all prompts together,
    InattentiveError where all raters of a kind are excluded, ValueError for resamples < 100 and for shuffles < 1.
    """
    if resamples < _FEWEST_RESAMPLES:
        raise ValueError(f"resamples is {resamples}; an interval needs at least {_FEWEST_RESAMPLES}")
    settings = Settings(seed, resamples, shuffles)
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
    votes: list[Vote], kind: RaterKind, categories: Mapping[str, str], settings: Settings
) -> list[Ratings]:
    checks = [v for v in votes if v.attention_check != "no"]
    excluded = inattentive(checks)
    kept = [v for v in votes if v.attention_check == "no" and v.rater not in excluded]
    if not kept and excluded:
        raise InattentiveError(
            f"all {kind} raters with votes failed their attention checks: {', '.join(excluded)}; "
            "take their files out of the folder of preference files, or add another rater's"
        )
    passed = sum(v.passed for v in checks)
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
            try:
                if question == "both":
                    _require_same_systems(elos)
                found = rate_one(part, kind, question, category, elos, settings)
            except _DifferentSystemsError as error:
                left_out.append((question, f"{question}, {category}: no ratings, since {error}"))
            except (DisconnectedError, NoIntervalError) as error:
                if category == ALL:
                    error.args = (f"{kind} votes on {question}: {error}",)
                    raise
                left_out.append((question, f"{question}, {category}: no ratings, since {error}"))
            else:
                elos[question] = {s.system: s.elo for s in found.systems}
                made.append(
                    _noted(
                        found,
                        checks_passed=passed,
                        checks_failed=len(checks) - passed,
                        excluded_raters=excluded,
                    )
                )
    there = {found.question for found in made if found.category == ALL}
    noted = []
    for found in made:
        notes = list(found.diagnostics.notes)
        if found.category == ALL:
            notes += [text for of, text in left_out if of == found.question or of not in there]
            homeless = sum(v.prompt_id not in filed for v in kept if found.question in (v.question, "both"))
            if categories and homeless:
                notes.append(f"{homeless} votes are on prompts of no known category")
        noted.append(_noted(found, notes=tuple(notes)))
    return sorted(noted, key=lambda r: (RATED.index(r.question), r.category != ALL, r.category))


def _noted(found: Ratings, **facts: Any) -> Ratings:
    return dataclasses.replace(found, diagnostics=dataclasses.replace(found.diagnostics, **facts))


class _DifferentSystemsError(ValueError):
    pass


def _require_same_systems(elos: Mapping[Rated, Mapping[str, float]]) -> None:
    """The mean over two questions exists for systems that have both."""
    if len(elos) < len(QUESTIONS):
        raise _DifferentSystemsError("one of the two questions has no ratings")
    quality, alignment = (set(elos[question]) for question in QUESTIONS)
    if quality != alignment:
        names = ", ".join(sorted(quality ^ alignment))
        raise _DifferentSystemsError(f"these systems have votes on one question only: {names}")
