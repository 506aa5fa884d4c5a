"""The schema of ratings.json, its writer and its reader; and ratings.csv, with one line a system."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from csv import DictWriter
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from add.errors import InputError
from add.files import write_whole
from eval.preferences.ratings.win_rates import Alpha, PairRate, Proportion
from eval.preferences.record import Question, RaterKind, invalid

Rated = Question | Literal["both"]

RATED: tuple[Rated, ...] = ("quality", "alignment", "both")

ALL = "all"
"""The category of ratings over all prompts."""

COLUMNS = (
    *("rater_kind", "question", "category", "system", "votes", "wins", "ties", "losses"),
    *("elo", "rating", "low", "high", "rank", "clusters"),
)
"""The header of ratings.csv."""


@dataclass(frozen=True)
class SystemRating:
    """One system: its votes, the paper's ELO, and the Bradley-Terry rating with its 95% interval.

    rating, low, high: on ELO's scale, 400/ln 10 points per unit of log strength, the systems' mean 1000. rank: 1 +
    the number of systems clearly above, by a test at 5% for all pairs of systems together (Holm).
    """

    system: str
    votes: int
    wins: int
    ties: int
    losses: int
    elo: float
    rating: float
    low: float
    high: float
    rank: int


@dataclass(frozen=True)
class Diagnostics:
    """Facts about the votes behind a rating.

    tie_rate: share of ties. position_bias: share of left among decided votes with known sides. transitive_share,
    smallest_difference: see win_rates.py. checks_passed, checks_failed: attention checks of this kind of raters, all
    questions; excluded_raters: who passed fewer than 80% of them, and are not rated. half_wins: whether half wins
    were added (estimators.py); half_win_share: the share of resamples that needed them.
    """

    votes: int
    prompts: int
    raters: int
    tie_rate: float
    position_bias: Proportion | None
    alpha: Alpha
    transitive_share: float | None
    smallest_difference: float
    checks_passed: int
    checks_failed: int
    excluded_raters: tuple[str, ...]
    half_wins: bool
    half_win_share: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ratings:
    """All systems under one kind of raters, one question (or both) and one category of prompts ("all": any).

    systems: the best rating first. pairs: in the order of names. clusters: what the intervals resample, in words.
    resamples, shuffles, seed: of the intervals and of the ELO.
    """

    rater_kind: RaterKind
    question: Rated
    category: str
    clusters: str
    resamples: int
    shuffles: int
    seed: int
    systems: tuple[SystemRating, ...]
    pairs: tuple[PairRate, ...]
    diagnostics: Diagnostics


def write_ratings(ratings: Sequence[Ratings], csv: Path, json: Path) -> None:
    """Writes ratings.csv and ratings.json, each whole or not at all. Without ratings: a header, an empty list."""
    text = io.StringIO()
    writer = DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for r in ratings:
        for s in r.systems:
            points = {name: f"{getattr(s, name):.2f}" for name in ("elo", "rating", "low", "high")}
            writer.writerow(vars(r) | vars(s) | points)
    write_whole(csv, text.getvalue())
    content = [dataclasses.asdict(r) for r in ratings]
    write_whole(json, dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_ratings(json: Path) -> tuple[Ratings, ...]:
    """The ratings that `write_ratings` wrote. Raises InputError with file, field and reason."""
    try:
        content = json.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(json, f"cannot be read: {error}") from error
    try:
        return TypeAdapter(tuple[Ratings, ...]).validate_json(content, strict=True, extra="forbid")
    except ValidationError as error:
        raise InputError(json, f"{invalid(error)}; write it anew from the votes") from error
