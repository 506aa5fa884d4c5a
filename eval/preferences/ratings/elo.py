"""The paper's ELO: K = 1, start 1000, S in {0, 1}, the mean over 1000 random orders of the votes.

E1 = 1 / (1 + 10^((R2 - R1) / 400)) and R1 <- R1 + K (S1 - E1), likewise R2 (paper, section on user studies).
Each question has its own games; the reported rating is the mean over the two questions, which the caller takes.
The paper describes no ties: by default they are left out, since S is 0 or 1; the option "half" counts each as
S = 1/2. After 400 games K = 1 is far from converged, so ELO is reported as a reproduction, and Bradley-Terry is the
estimate.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from add.errors import InputError
from eval.preferences.ratings.tally import Array, Index, Tally

Ties = Literal["left out", "half"]

START = 1000.0
K = 1.0

_BLOCK = 256  # votes whose systems are looked up at once
_TOGETHER = 40_000_000  # places in orders that are in memory at once


def elo(votes: Tally, shuffles: int = 1000, *, seed: int = 0, ties: Ties = "left out") -> Array:
    """ELO (n,) of the n systems, the mean over `shuffles` >= 1 random orders. A system without a counted vote
    stays at 1000.

    All orders are played at once, one vote of each at a time. The result depends on the seed and on the order
    of the votes, by a standard error of a few hundredths of a point at 1000 shuffles.
    """
    if shuffles < 1:
        raise InputError(f"shuffles is {shuffles}, and must be at least 1")
    first, second, score = games(votes, ties)
    n, total = len(votes.systems), np.zeros(len(votes.systems))
    generator = np.random.default_rng(seed)
    chunk = max(1, _TOGETHER // max(1, len(score)))
    for done in range(0, shuffles, chunk):
        orders = _orders(len(score), min(chunk, shuffles - done), generator)
        total += _play(first, second, score, orders, n).sum(axis=0)
    return np.asarray(total / shuffles)


def slow_elo(votes: Tally, shuffles: int = 1000, *, seed: int = 0, ties: Ties = "left out") -> list[float]:
    """The slow reference of `elo`, as the paper writes it: for each order, one game after the other."""
    first, second, score = (column.tolist() for column in games(votes, ties))
    orders = _orders(len(score), shuffles, np.random.default_rng(seed)).tolist()
    total = [0.0] * len(votes.systems)
    for order in orders:
        rating = [1000.0] * len(total)
        for game in order:
            one, two, s1 = first[game], second[game], score[game]
            expected1 = 1 / (1 + 10 ** ((rating[two] - rating[one]) / 400))
            expected2 = 1 / (1 + 10 ** ((rating[one] - rating[two]) / 400))
            rating[one] += 1 * (s1 - expected1)
            rating[two] += 1 * ((1 - s1) - expected2)
        total = [before + now for before, now in zip(total, rating, strict=True)]
    return [value / shuffles for value in total]


def games(votes: Tally, ties: Ties = "left out") -> tuple[Index, Index, Array]:
    """The votes that count: first and second system and the first one's S."""
    if ties not in ("left out", "half"):
        raise InputError(f"ties is {ties!r}; it is 'left out' or 'half'")
    counted = np.ones(votes.votes, bool) if ties == "half" else votes.score != 0.5
    return votes.first[counted], votes.second[counted], votes.score[counted]


def _orders(games: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random orders (count, games); the next ones of the generator, whatever was drawn in one call."""
    return generator.permuted(np.tile(np.arange(games, dtype=np.int32), (count, 1)), axis=1)


def _play(first: Index, second: Index, score: Array, orders: np.ndarray, n: int) -> Array:
    """Ratings (count, n) after all games of each order."""
    count, length = orders.shape
    ratings = np.full(count * n, START)
    home = np.arange(count) * n
    for begin in range(0, length, _BLOCK):
        block = np.ascontiguousarray(orders[:, begin : begin + _BLOCK].T)
        for one, two, result in zip(home + first[block], home + second[block], score[block], strict=True):
            rating_one, rating_two = ratings[one], ratings[two]
            gain = rating_two - rating_one
            gain *= np.log(10) / 400
            np.exp(gain, out=gain)
            gain += 1
            np.divide(K, gain, out=gain)
            np.subtract(K * result, gain, out=gain)
            ratings[one] = rating_one + gain
            ratings[two] = rating_two - gain
    return ratings.reshape(count, n)
