"""The report's page of ratings as JSON values: what people preferred, or, marked, what stands in for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.plots.figures import Drawn
from reports.plots.ratings import plot_elo, plot_pairs, plot_winrates
from reports.plots.style import save, styled
from reports.ratings import KINDS, QUESTIONS, Preferences
from reports.render.layout import fixed

if TYPE_CHECKING:
    from eval.preferences.ratings.result import Diagnostics, Ratings, SystemRating

Data = dict[str, Any]

_ABSENT = "\N{EN DASH}"
_TITLES = {"quality": "Quality", "alignment": "Alignment", "both": "Both questions"}


@dataclass(frozen=True)
class RatingsPage:
    """The page's figures, and its text and numbers."""

    figures: tuple[Drawn, ...]
    data: Data


def ratings_page(preferences: Preferences, folder: Path) -> RatingsPage:
    """Draws the figures into `folder` as PDF and PNG, and states the rest as JSON values."""
    with styled():
        figures = (
            Drawn("winrates", WINRATES, *save(plot_winrates(preferences), folder, "winrates")),
            Drawn("elo", ELO, *save(plot_elo(preferences), folder, "elo")),
            Drawn("pairs", PAIRS, *save(plot_pairs(preferences), folder, "pairs")),
        )
    data = {
        "warning": warning(preferences),
        "notes": notes(preferences),
        "kinds": [_kind(preferences, kind) for kind in preferences.kinds],
        "diagnostics": _diagnostics(preferences),
        "figures": [{"file": f"{figure.name}.pdf", "caption": figure.caption} for figure in figures],
    }
    return RatingsPage(figures, data)


def warning(preferences: Preferences) -> str | None:
    """What must be said where no person has voted, or too few questions were asked; None otherwise."""
    if "human" in preferences.kinds:
        return None
    there = " and ".join(_BY[kind] for kind in preferences.kinds) or "nothing"
    return (
        f"No person has voted yet. All that this page shows is by {there}: a program's answers, not people's. "
        "“snakemake --cores all study” makes pages for raters; put the files that they hand in into the folder of "
        "preference files and make the report again."
    )


def notes(preferences: Preferences) -> tuple[str, ...]:
    """What a reader must know to read the page, as sentences of plain text."""
    found = [
        "Rating: Bradley-Terry on ELO's scale, mean 1000, ties half; brackets are 95% intervals over whole raters "
        "and prompts. Rank: 1 + the number of systems clearly above. ELO: as in the paper (K = 1 from 1000, mean "
        "over random orders and over the two questions, ties left out); at this number of votes it has not converged, "
        "so its differences are too small.",
    ]
    if "human" in preferences.kinds and len(preferences.kinds) > 1:
        found.append("People and programs are rated apart and never pooled.")
    if "oracle" in preferences.kinds:
        found.append(
            "Oracle: for alignment, the image with more attributes of its prompt right by the built-in world's own "
            "classifier; for quality, the image whose features lie nearer to the reference photographs' Gaussian. "
            "The latter uses FID's features, so it is no judgement independent of FID."
        )
    if "model" in preferences.kinds:
        found.append(
            "Models: trained on people's overall preference; one answer may stand under both questions."
        )
    found.append(
        "Seconds an image: wall time of sampling the prompts once, images saved, on the hardware under Provenance; "
        "other jobs may have run beside it."
    )
    if preferences.categories:
        listed = ", ".join(preferences.categories)
        found.append(f"Ratings by PartiPrompts category ({listed}) are in reports/ratings.csv.")
    return tuple(found)


def _kind(preferences: Preferences, kind: str) -> Data:
    """One table: a line a system, best first."""
    asked = [q for q in QUESTIONS if (kind, q) in preferences.ratings]
    return {
        "title": KINDS[kind],
        "clusters": "; ".join(
            f"{_TITLES[q].lower()}: {preferences.ratings[kind, q].clusters}" for q in asked
        ),
        "questions": [_TITLES[q] for q in asked],
        "rows": [
            {
                "system": name,
                "focus": name in preferences.focus,
                "seconds": fixed(preferences.seconds[name], 3),
                "cells": [_cell(preferences.system(kind, q, name)) for q in asked],
            }
            for name in preferences.in_order(kind)
        ],
    }


def _cell(rated: SystemRating | None) -> Data:
    if rated is None:
        return {"rank": _ABSENT, "rating": _ABSENT, "interval": "", "elo": _ABSENT}
    return {
        "rank": str(rated.rank),
        "rating": fixed(rated.rating, 0),
        "interval": f"[{fixed(rated.low, 0)}, {fixed(rated.high, 0)}]".replace("-", "\N{MINUS SIGN}"),
        "elo": fixed(rated.elo, 1),
    }


def _diagnostics(preferences: Preferences) -> Data:
    """One column a kind of rater and question."""
    columns = [
        (kind, question, preferences.ratings[kind, question])
        for kind in preferences.kinds
        for question in QUESTIONS
        if (kind, question) in preferences.ratings
    ]
    values = [diagnostic_values(ratings) for _, _, ratings in columns]
    remarks: dict[str, list[str]] = {}
    for kind, question, ratings in columns:
        for text in _remarks(ratings.diagnostics):
            remarks.setdefault(text, []).append(f"{KINDS[kind]}, {_TITLES[question].lower()}")
    return {
        "heads": [[KINDS[kind], _TITLES[question]] for kind, question, _ in columns],
        "rows": [[name, *(column[name] for column in values)] for name in (values[0] if values else ())],
        "remarks": [f"{'; '.join(about)}: {text}" for text, about in remarks.items()],
    }


def diagnostic_values(ratings: Ratings) -> dict[str, str]:
    """What the votes behind a rating are worth, by name, as text."""
    d = ratings.diagnostics
    bias, alpha, checks = d.position_bias, d.alpha.value, d.checks_passed + d.checks_failed
    return {
        "votes": str(d.votes),
        "raters": str(d.raters),
        "prompts": str(d.prompts),
        "ties": _percent(d.tie_rate),
        "chose the left": _ABSENT
        if bias is None
        else f"{_percent(bias.value)} [{100 * bias.low:.0f}, {100 * bias.high:.0f}]",
        "Krippendorff's alpha": _ABSENT if alpha is None else fixed(alpha, 2),
        "transitive triples": _ABSENT if d.transitive_share is None else _percent(d.transitive_share),
        "detectable difference": f"{100 * d.smallest_difference:.0f} points",
        "attention checks passed": f"{d.checks_passed} of {checks}" if checks else _ABSENT,
        "raters left out": str(len(d.excluded_raters)),
    }


def _remarks(d: Diagnostics) -> tuple[str, ...]:
    found = [note for note in d.notes if not note.startswith(_SAID_BEFORE)]
    if d.excluded_raters:
        found.append(f"left out for failed attention checks: {', '.join(d.excluded_raters)}")
    if d.alpha.value is None and d.alpha.reason:
        found.append(f"no alpha: {d.alpha.reason}")
    if d.half_wins:
        found.append("some systems lost no vote, so half a win was added to either side of each pair")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


_SAID_BEFORE = "ELO leaves out"
"""How a note begins that the page's own notes make needless."""

_BY = {"human": "people", "oracle": "the oracle", "model": "models of preference"}

WINRATES = (
    "How often a system is preferred to each other one (the paper's Figures 5 and 6), with 95% intervals; ties count "
    "half. Right of the dashed line it is preferred more often than not."
)
ELO = (
    "Rating against the time that an image takes (the paper's Figure 7). Discs: Bradley-Terry with 95% intervals. "
    "Diamonds: ELO as in the paper. Blue: the systems of the bars above. Dotted: the mean, 1000."
)
PAIRS = (
    "How often the system of a line is preferred to that of a column, in percent, ties half; best rated on top. Bold: "
    "the 95% interval leaves out 50. Blue: preferred; orange: not."
)
