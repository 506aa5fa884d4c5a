"""The ratings of a scale as the report shows them: people's first, other kinds of rater beside, never pooled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from add.errors import InputError
from eval.result import read_json, require
from reports.study import ReportStudy

if TYPE_CHECKING:
    from eval.preferences.ratings.result import Ratings, SystemRating

KINDS = {"human": "People", "oracle": "Oracle", "model": "Models"}
"""Kinds of rater in the order of the report, and what they are called there."""

QUESTIONS = ("quality", "alignment", "both")


@dataclass(frozen=True)
class PreferenceRate:
    """How often one system was preferred to another: shares from 0 to 1 with a 95% interval."""

    value: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True)
class Preferences:
    """All ratings of all prompts together, by (kind of rater, question); `categories` are rated besides.

    systems, focus: names in the study's order. seconds: for one image as sampled, by system.
    """

    systems: tuple[str, ...]
    focus: tuple[str, ...]
    seconds: Mapping[str, float]
    ratings: Mapping[tuple[str, str], Ratings]
    categories: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of rater that voted, people first."""
        return tuple(kind for kind in KINDS if any(key[0] == kind for key in self.ratings))

    def system(self, kind: str, question: str, name: str) -> SystemRating | None:
        """A system's rating, None where nobody voted on it."""
        ratings = self.ratings.get((kind, question))
        return next((s for s in ratings.systems if s.system == name), None) if ratings else None

    def rate(self, kind: str, question: str, name: str, other: str) -> PreferenceRate | None:
        """How often `name` was preferred to `other`, None where nobody compared them."""
        ratings = self.ratings.get((kind, question))
        for pair in ratings.pairs if ratings else ():
            if (pair.system_a, pair.system_b) == (name, other):
                return PreferenceRate(pair.win_rate, pair.low, pair.high, pair.votes)
            if (pair.system_a, pair.system_b) == (other, name):
                return PreferenceRate(1 - pair.win_rate, 1 - pair.high, 1 - pair.low, pair.votes)
        return None

    def in_order(self, kind: str) -> tuple[str, ...]:
        """The systems from the highest rating over both questions to the lowest; unrated ones last."""

        def place(name: str) -> tuple[float, int]:
            rated = (self.system(kind, question, name) for question in reversed(QUESTIONS))
            first = next((s for s in rated if s is not None), None)
            return (-first.rating if first else float("inf"), self.systems.index(name))

        return tuple(sorted(self.systems, key=place))


def read_preferences(study: ReportStudy, results: Path) -> Preferences | None:
    """The ratings below results/<scale>/ratings, or None where the scale has no study.

    Raises InputError where a file is missing, or where ratings and systems are not of one study.
    """
    if not study.focus:
        return None
    from eval.preferences.ratings.result import read_ratings

    listed, rated = results / "ratings" / "systems.json", results / "ratings" / "ratings.json"
    require((listed, rated))
    entries = read_json(listed)
    try:
        folders = {entry["name"]: Path(entry["samples"]) for entry in entries}
    except (KeyError, TypeError) as error:
        raise InputError(f"{listed}: is no list of systems with `name` and `samples`") from error
    if absent := [name for name in study.focus if name not in folders]:
        raise InputError(f"{listed}: lacks {', '.join(absent)}; run `snakemake` to make it again")
    require(folder / "samples.json" for folder in folders.values())
    try:
        ratings = read_ratings(rated)
    except (ValueError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{rated}: {error}; run `snakemake` to make it again") from error
    unknown = sorted({s.system for each in ratings for s in each.systems} - set(folders))
    if unknown:
        raise InputError(f"{rated}: rates {', '.join(unknown)}, which {listed} does not name")
    if kinds := sorted({each.rater_kind for each in ratings} - set(KINDS)):
        raise InputError(
            f"{rated}: holds ratings by {', '.join(kinds)}, a kind that the report has no place for"
        )
    return Preferences(
        systems=tuple(folders),
        focus=study.focus,
        seconds={name: _seconds(folder / "samples.json") for name, folder in folders.items()},
        ratings={(r.rater_kind, r.question): r for r in ratings if r.category == "all"},
        categories=tuple(dict.fromkeys(r.category for r in ratings if r.category != "all")),
    )


def _seconds(file: Path) -> float:
    """Seconds for one image. Raises InputError."""
    facts: Any = read_json(file)
    seconds, count = (facts.get(key) if isinstance(facts, dict) else None for key in ("seconds", "count"))
    if not isinstance(seconds, int | float) or not isinstance(count, int) or seconds <= 0 or count < 1:
        raise InputError(f"{file}: `seconds` and `count` must be above nought; sample the set again")
    return seconds / count
