"""Votes to rate: written as counts, at random, or from a simulated study."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from benchmarks.ratings_coverage import SimulatedStudy, draw
from eval.preferences.ratings.tally import Tally, tally
from eval.preferences.record import Question, RaterKind, Vote, Winner

_WINS: tuple[Winner, ...] = ("a",)
_TIES: tuple[Winner, ...] = ("tie",)
_LOSSES: tuple[Winner, ...] = ("b",)

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def vote(a: str, b: str, winner: Winner, number: int = 0, **changes: Any) -> Vote:
    """A human's vote on quality, the only one on its prompt; `number` distinguishes it from others."""
    made = Vote(
        prompt_id=f"p{number:05d}",
        prompt="a red ball",
        system_a=a,
        system_b=b,
        image_a=f"{a}/{number}",
        image_b=f"{b}/{number}",
        question="quality",
        winner=winner,
        rater=f"r{number % 7}",
        rater_kind="human",
        shown_left="a" if number % 2 else "b",
        time="2026-01-02T03:04:05Z",
        attention_check="no",
        study="test",
    )
    return dataclasses.replace(made, **changes)


def table(rows: Iterable[tuple[str, str, int, int, int]]) -> tuple[Vote, ...]:
    """Votes of rows (a, b, wins of a, ties, wins of b)."""
    made: list[Vote] = []
    for a, b, wins, ties, losses in rows:
        outcomes = [*_WINS * wins, *_TIES * ties, *_LOSSES * losses]
        made += [vote(a, b, outcome, len(made) + k) for k, outcome in enumerate(outcomes)]
    return tuple(made)


def swapped(votes: Sequence[Vote]) -> tuple[Vote, ...]:
    """The same votes with a and b exchanged."""
    other: dict[str, Any] = {"a": "b", "b": "a"}
    return tuple(
        dataclasses.replace(
            v,
            system_a=v.system_b,
            system_b=v.system_a,
            image_a=v.image_b,
            image_b=v.image_a,
            winner=other.get(v.winner, "tie"),
            shown_left=other.get(v.shown_left, "none"),
            attention_check=other.get(v.attention_check, "no"),
        )
        for v in votes
    )


def renamed(votes: Sequence[Vote], names: dict[str, str]) -> tuple[Vote, ...]:
    """The same votes with renamed systems."""
    return tuple(
        dataclasses.replace(v, system_a=names[v.system_a], system_b=names[v.system_b]) for v in votes
    )


def random_votes(seed: int, count: int, systems: int = 4, ties: float = 0.2) -> tuple[Vote, ...]:
    """Votes on random pairs, in which later names are a little better.

    If count is large, votes link all systems and no system wins all of its votes.
    """
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        i, j = generator.choice(systems, 2, replace=False)
        first = generator.random() < 1 / (1 + np.exp(0.4 * (j - i)))
        winner: Winner = "tie" if generator.random() < ties else "a" if first else "b"
        made.append(vote(NAMES[i], NAMES[j], winner, number))
    return tuple(made)


def votes_of(data: Tally, question: Question = "quality", kind: RaterKind = "human") -> tuple[Vote, ...]:
    """The votes of a simulated study."""
    outcome: dict[float, Winner] = {1.0: "a", 0.0: "b", 0.5: "tie"}
    return tuple(
        vote(
            data.systems[data.first[k]],
            data.systems[data.second[k]],
            outcome[float(data.score[k])],
            k,
            question=question,
            rater_kind=kind,
            rater=data.raters[data.rater[k]],
            prompt_id=data.prompts[data.prompt[k]],
        )
        for k in range(data.votes)
    )


def simulated(seed: int = 0, **changes: Any) -> Tally:
    """A study of four systems, 12 raters and 30 prompts."""
    study = SimulatedStudy(
        (-0.6, -0.1, 0.1, 0.6), raters=12, prompts=30, votes=900, rater_effect=0.3, prompt_effect=0.3
    )
    return draw(dataclasses.replace(study, **changes), np.random.default_rng(seed))


@st.composite
def few_votes(draw_from: st.DrawFn) -> tuple[Vote, ...]:
    """Any small set of votes on four systems, linked or not."""
    rows: list[tuple[int, int, Any]]
    rows = draw_from(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["a", "b", "tie"])).filter(
                lambda row: row[0] != row[1]
            ),
            min_size=1,
            max_size=25,
        )
    )
    return tuple(vote(NAMES[a], NAMES[b], winner, k) for k, (a, b, winner) in enumerate(rows))


@st.composite
def linked_votes(draw_from: st.DrawFn) -> tuple[Vote, ...]:
    """Any votes on four systems that link them all."""
    chain = [
        vote(NAMES[k], NAMES[k + 1], draw_from(st.sampled_from(["a", "b", "tie"])), 90 + k) for k in range(3)
    ]
    return (*chain, *draw_from(few_votes()))


def as_tally(rows: Iterable[tuple[str, str, int, int, int]]) -> Tally:
    """`table`, counted."""
    return tally(table(rows))
