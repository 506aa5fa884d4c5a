"""The ratings of a scale as the report shows them: people first, other kinds of rater beside them, never pooled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.errors import InputError
from eval.images import read_facts
from eval.preferences.ratings.result import ALL, Diagnostics, Ratings, SystemRating, read_ratings
from eval.preferences.ratings.win_rates import Proportion
from eval.result import read_json, require
from reports.layout import ABSENT, bracketed, fixed
from reports.study import ReportStudy

KINDS = {"human": "People", "oracle": "Oracle", "model": "Models"}
"""Kinds of rater in the order of the report, and their titles there."""

QUESTIONS = {"quality": "Quality", "alignment": "Alignment", "both": "Both questions"}
"""What was rated, in the order of the report, and the titles there."""


@dataclass(frozen=True)
class Preferences:
    """All ratings over all prompts, by (kind of rater, question). `categories` also have ratings of their own.

    systems, focus: names in the study's order. seconds: for sampling one image, by system.
    """

    systems: tuple[str, ...]
    focus: tuple[str, ...]
    seconds: Mapping[str, float]
    ratings: Mapping[tuple[str, str], Ratings]
    categories: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of rater that voted, people first."""
        return tuple(kind for kind in KINDS if self.questions(kind))

    def questions(self, kind: str) -> tuple[str, ...]:
        """The questions that a kind of rater has ratings for; "both" comes last."""
        return tuple(question for question in QUESTIONS if (kind, question) in self.ratings)

    def system(self, kind: str, question: str, name: str) -> SystemRating | None:
        """A system's rating, or None if nobody voted on it."""
        ratings = self.ratings.get((kind, question))
        return next((s for s in ratings.systems if s.system == name), None) if ratings else None

    def rate(self, kind: str, question: str, name: str, other: str) -> Proportion | None:
        """How often `name` was preferred to `other`, or None if nobody compared them."""
        ratings = self.ratings.get((kind, question))
        for pair in ratings.pairs if ratings else ():
            if (pair.system_a, pair.system_b) == (name, other):
                return Proportion(pair.win_rate, pair.low, pair.high)
            if (pair.system_a, pair.system_b) == (other, name):
                return Proportion(1 - pair.win_rate, 1 - pair.high, 1 - pair.low)
        return None

    def apart(self, kind: str, question: str, name: str, other: str) -> bool:
        """Whether the rate of the two differs from 1/2 by the test of all pairs together."""
        ratings = self.ratings.get((kind, question))
        both = {name, other}
        return any(
            pair.apart
            for pair in (ratings.pairs if ratings else ())
            if {pair.system_a, pair.system_b} == both
        )

    def in_order(self, kind: str) -> tuple[str, ...]:
        """The systems from the highest rating over both questions to the lowest; unrated ones last."""

        def place(name: str) -> float:
            rated = (self.system(kind, question, name) for question in reversed(QUESTIONS))
            return next((-s.rating for s in rated if s is not None), float("inf"))

        return tuple(sorted(self.systems, key=place))


def read_preferences(study: ReportStudy, results: Path) -> Preferences | None:
    """The ratings below results/<scale>/ratings, or None if the scale has no study.

    Raises InputError where a file is missing, or where ratings and systems belong to different studies.
    """
    if not study.focus:
        return None
    listed, rated = results / "ratings" / "systems.json", results / "ratings" / "ratings.json"
    require((listed, rated))
    try:
        folders = {entry["name"]: Path(entry["samples"]) for entry in read_json(listed)}
    except (KeyError, TypeError) as error:
        raise InputError(listed, "is not a list of systems with `name` and `samples`") from error
    if absent := [name for name in study.focus if name not in folders]:
        raise InputError(listed, f"lacks {', '.join(absent)}; run `snakemake` to make it again")
    require(folder / "samples.json" for folder in folders.values())
    try:
        ratings = read_ratings(rated)
    except InputError as error:
        raise InputError(f"{error}; run `snakemake` to make it again") from error
    if not ratings:
        raise InputError(rated, "holds no ratings, because nobody voted")
    if unknown := sorted({s.system for each in ratings for s in each.systems} - set(folders)):
        raise InputError(rated, f"rates {', '.join(unknown)}, which {listed} does not name")
    if kinds := sorted({each.rater_kind for each in ratings} - set(KINDS)):
        raise InputError(rated, f"the report has no place for ratings by {', '.join(kinds)}")
    return Preferences(
        systems=tuple(folders),
        focus=study.focus,
        seconds={name: _seconds(folder / "samples.json") for name, folder in folders.items()},
        ratings={(r.rater_kind, r.question): r for r in ratings if r.category == ALL},
        categories=tuple(dict.fromkeys(r.category for r in ratings if r.category != ALL)),
    )


def _seconds(file: Path) -> float:
    """Seconds for one image. Raises InputError."""
    facts = read_facts(file)
    if facts["seconds"] <= 0 or facts["count"] < 1:
        raise InputError(file, "`seconds` and `count` must be above 0; sample the set again")
    return float(facts["seconds"] / facts["count"])


def ratings_page(preferences: Preferences) -> dict[str, Any]:
    """The report's page of ratings, but for its figures, as JSON values."""
    return {
        "warning": warning(preferences),
        "notes": notes(preferences),
        "kinds": [_kind_table(preferences, kind) for kind in preferences.kinds],
        "diagnostics": _diagnostics_table(preferences),
    }


_RATERS = {"human": "people", "oracle": "the oracle", "model": "models of preference"}


def warning(preferences: Preferences) -> str | None:
    """The text to print above the page if no person has voted; None otherwise."""
    if "human" in preferences.kinds:
        return None
    there = " and ".join(_RATERS[kind] for kind in preferences.kinds)
    return (
        f"No person has voted yet. Everything on this page comes from {there}: a program's answers, not people's. "
        "“snakemake --cores all study” makes pages for raters. Put the files that they hand in into the folder of "
        "preference files and make the report again."
    )


def notes(preferences: Preferences) -> tuple[str, ...]:
    """What a reader must know to read the page, in plain sentences."""
    found = [
        "Rating: Bradley-Terry on ELO's scale with mean 1000; a tie counts as half a win. Brackets are 95% intervals "
        "over whole raters and prompts. Rank: 1 + the number of systems that are clearly better. ELO: as in the paper "
        "(K = 1, starting at 1000, mean over random orders and over the two questions, without ties). It has not "
        "converged at this number of votes, so its differences are too small."
    ]
    if "human" in preferences.kinds and len(preferences.kinds) > 1:
        found.append("People and programs are rated apart and never pooled.")
    if "oracle" in preferences.kinds:
        found.append(
            "Oracle: for alignment, it prefers the image in which the built-in world's own classifier finds more "
            "attributes of the prompt. For quality, it prefers the image whose features lie nearer to the Gaussian of "
            "the reference photographs. Those are FID's features, so this judgement is not independent of FID."
        )
    if "model" in preferences.kinds:
        found.append(
            "Models: trained on people's overall preference, so one answer may stand under both questions."
        )
    found.append(
        "Seconds per image: wall time of sampling the prompts once and saving the images, on the hardware under "
        "Provenance. Other jobs may have run at the same time."
    )
    if preferences.categories:
        listed = ", ".join(preferences.categories)
        found.append(f"Ratings by PartiPrompts category ({listed}) are in ratings.csv.")
    return tuple(found)


def _kind_table(preferences: Preferences, kind: str) -> dict[str, Any]:
    """One table for a kind of rater: a line for each system, best first."""
    asked = preferences.questions(kind)
    clusters = [f"{QUESTIONS[q].lower()}: {preferences.ratings[kind, q].clusters}" for q in asked]
    return {
        "title": KINDS[kind],
        "clusters": "; ".join(clusters),
        "questions": [QUESTIONS[q] for q in asked],
        "rows": [
            {
                "system": name,
                "focus": name in preferences.focus,
                "seconds": fixed(preferences.seconds[name], 3),
                "cells": [_rating_cell(preferences.system(kind, q, name)) for q in asked],
            }
            for name in preferences.in_order(kind)
        ],
    }


def _rating_cell(rated: SystemRating | None) -> dict[str, str]:
    if rated is None:
        return {"rank": ABSENT.value, "rating": ABSENT.value, "interval": "", "elo": ABSENT.value}
    return {
        "rank": str(rated.rank),
        "rating": fixed(rated.rating, 0),
        "interval": bracketed(rated.low, rated.high, 0).replace("-", "\N{MINUS SIGN}"),
        "elo": fixed(rated.elo, 1),
    }


def _diagnostics_table(preferences: Preferences) -> dict[str, Any]:
    """What the votes are worth: one column for each kind of rater and question."""
    asked = [(kind, question) for kind in preferences.kinds for question in preferences.questions(kind)]
    values = [diagnostic_values(preferences.ratings[key].diagnostics) for key in asked]
    remarks: dict[str, list[str]] = {}
    for kind, question in asked:
        for text in _remarks(preferences.ratings[kind, question].diagnostics):
            remarks.setdefault(text, []).append(f"{KINDS[kind]}, {QUESTIONS[question].lower()}")
    return {
        "heads": [[KINDS[kind], QUESTIONS[question]] for kind, question in asked],
        "rows": [[name, *(column[name] for column in values)] for name in (values[0] if values else ())],
        "remarks": [f"{'; '.join(about)}: {text}" for text, about in remarks.items()],
    }


def diagnostic_values(d: Diagnostics) -> dict[str, str]:
    """What the votes behind a rating are worth, by name, as text."""
    bias, alpha, checks = d.position_bias, d.alpha.value, d.checks_passed + d.checks_failed
    return {
        "votes": str(d.votes),
        "raters": str(d.raters),
        "prompts": str(d.prompts),
        "ties": _percent(d.tie_rate),
        "chose the left": ABSENT.value
        if bias is None
        else f"{_percent(bias.value)} [{100 * bias.low:.0f}, {100 * bias.high:.0f}]",
        "Krippendorff's alpha": ABSENT.value if alpha is None else fixed(alpha, 2),
        "transitive triples": ABSENT.value if d.transitive_share is None else _percent(d.transitive_share),
        "detectable difference": f"{100 * d.smallest_difference:.0f} points",
        "attention checks passed": f"{d.checks_passed} of {checks}" if checks else ABSENT.value,
        "raters left out": str(len(d.excluded_raters)),
    }


def _remarks(d: Diagnostics) -> tuple[str, ...]:
    found = [note for note in d.notes if not note.startswith("ELO leaves out")]  # the page's notes say so
    if d.excluded_raters:
        found.append(f"left out for failed attention checks: {', '.join(d.excluded_raters)}")
    if d.alpha.value is None and d.alpha.reason:
        found.append(f"no alpha: {d.alpha.reason}")
    if d.half_wins:
        found.append("some systems lost no vote, so half a win was added to both sides of each pair")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
