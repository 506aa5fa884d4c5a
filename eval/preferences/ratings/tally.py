"""Votes as arrays: who was compared with whom, on which prompt, by which rater, with which outcome.

Every other module of this folder works on a `Tally`, so that none depends on how a vote is written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError
from eval.preferences.record import Vote

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Cluster = Literal["rater", "prompt"]


@dataclass(frozen=True)
class Tally:
    """n systems in the order of their names, and v votes on pairs (first, second) of them, first < second.

    prompts: `Vote.whole_prompt` of each. first, second: (v,) indices of systems. score: (v,) 1 where first won, 0 where
    second won, 1/2 for a tie. rater, prompt: (v,) indices into raters and prompts. left: (v,) 1 where the winner stood
    on the left, 0 where it stood on the right, nan for ties and where the side is not known.
    """

    systems: tuple[str, ...]
    raters: tuple[str, ...]
    prompts: tuple[str, ...]
    first: Index
    second: Index
    score: Array
    rater: Index
    prompt: Index
    left: Array

    @property
    def votes(self) -> int:
        """v."""
        return len(self.score)

    def clusters(self, by: Cluster) -> tuple[Index, int]:
        """(v,) each vote's rater, or its prompt, and how many of these there are."""
        return (self.rater, len(self.raters)) if by == "rater" else (self.prompt, len(self.prompts))

    @cached_property
    def ends(self) -> tuple[Index, Index]:
        """The K pairs with votes: (K,) first and (K,) second system of each, in order."""
        return np.divmod(np.unique(self._code), len(self.systems))

    @cached_property
    def pair(self) -> Index:
        """(v,) which of the K pairs each vote is on."""
        return np.unique(self._code, return_inverse=True)[1]

    def only(self, chosen: NDArray[np.bool_]) -> Tally:
        """The votes where `chosen` (v,) is true; systems, raters and prompts keep their numbers."""
        names = ("first", "second", "score", "rater", "prompt", "left")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    @property
    def _code(self) -> Index:
        return self.first * len(self.systems) + self.second

    @cached_property
    def won(self) -> Array:
        """(K,) the first system's wins, ties half."""
        return self.per_pair(self.score)

    @cached_property
    def total(self) -> Array:
        """(K,) votes."""
        return self.per_pair(np.ones(self.votes))

    def per_pair(self, values: Array) -> Array:
        """Values (v,) summed over the votes of each pair: (K,)."""
        return np.bincount(self.pair, values, len(self.ends[0])).astype(np.float64)


def tally(votes: Sequence[Vote]) -> Tally:
    """Votes in arrays, in the order in which they come. Raises InputError where there are none."""
    if not votes:
        raise InputError("there are no votes to rate")
    systems, both = _numbered([v.system_a for v in votes] + [v.system_b for v in votes])
    a, b = np.split(both, 2)
    if (a == b).any():
        k = int((a == b).argmax())
        raise InputError(f"vote {k} compares {systems[a[k]]!r} with itself")
    raters, rater = _numbered([v.rater for v in votes])
    prompts, prompt = _numbered([v.whole_prompt for v in votes])
    of_a = np.array([{"a": 1.0, "b": 0.0, "tie": 0.5}[v.winner] for v in votes])
    score = np.where(a < b, of_a, 1 - of_a)
    left = np.array([float(v.winner == v.shown_left) for v in votes])
    left[[v.winner == "tie" or v.shown_left == "none" for v in votes]] = np.nan
    return Tally(systems, raters, prompts, np.minimum(a, b), np.maximum(a, b), score, rater, prompt, left)


def _numbered(names: list[str]) -> tuple[tuple[str, ...], Index]:
    known = tuple(sorted(set(names)))
    place = {name: k for k, name in enumerate(known)}
    return known, np.array([place[name] for name in names], np.int64)
