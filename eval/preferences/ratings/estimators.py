"""Two estimates of how good systems are: Bradley-Terry strengths, and the paper's ELO.

**Bradley-Terry** by maximum likelihood: P(i beats j) = 1 / (1 + exp(s_j - s_i)).

Bradley and Terry, Biometrika 39 (1952). A tie counts as half a win for each side: the strengths then give
every system exactly the score that it got, which needs no model of when a rater calls a tie; intervals come
from resampling and do not use the likelihood's curvature. This is what evalica's `bradley_terry` estimates.

Many data sets are solved at once by Newton's method with the step ln(1 + d) / d, d the largest change of a
difference of strengths, which converges from any start (Sun and Tran-Dinh, Mathematical Programming 178,
2019, for functions whose third derivative is bounded by the second, such as the logistic one).

Where some systems beat all others in every vote the likelihood has no maximum (Ford, Amer. Math. Monthly 64,
1957). Then, and only then, each compared pair gets half a win on either side, as Haldane and Anscombe add
to a table with an empty cell; the result says so.

**ELO** as the paper computes it: K = 1, start 1000, S in {0, 1}, the mean over 1000 random orders of the votes.
E1 = 1 / (1 + 10^((R2 - R1) / 400)) and R1 <- R1 + K (S1 - E1), likewise R2 (paper, section on user studies).
Each question has its own games; the reported rating is the mean over the two questions, which the caller takes.
The paper describes no ties: by default they are left out, since S is 0 or 1; the option "half" counts each as
S = 1/2. After 400 games K = 1 is far from converged, so ELO is reported as a reproduction, and Bradley-Terry is the
estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from add.errors import InputError
from eval.preferences.ratings.tally import Array, Index, Tally

ELO_UNIT = 400 / np.log(10)
"""Points of ELO's scale per unit of strength: 400 points are odds of ten to one."""

_TOLERANCE = 1e-10
_ITERATIONS = 200

Ties = Literal["left out", "half"]

START = 1000.0
K = 1.0

_BLOCK = 256  # votes whose systems are looked up at once
_TOGETHER = 40_000_000  # places in orders that are in memory at once


@dataclass(frozen=True)
class Strengths:
    """values: (b, n) strengths with mean 0. regularised: (b,) where half wins were added, see the module."""

    values: Array
    regularised: np.ndarray


def strengths(votes: Tally) -> Strengths:
    """The n systems' strengths, values (1, n). Raises InputError where votes do not link them."""
    require_connected(votes)
    return solve(votes.won[None], votes.total[None], votes.ends, len(votes.systems))


def to_elo_scale(values: Array) -> Array:
    """Strengths with mean 0 as ratings with mean 1000, on ELO's scale."""
    return np.asarray(1000 + ELO_UNIT * values)


def islands(votes: Tally) -> tuple[tuple[str, ...], ...]:
    """The systems in groups that votes link, the largest group first."""
    label = _components(*votes.ends, len(votes.systems), directed=False)
    groups = [tuple(s for s, at in zip(votes.systems, label, strict=True) if at == k) for k in set(label)]
    return tuple(sorted(groups, key=lambda names: (-len(names), names)))


def require_connected(votes: Tally) -> None:
    """Raises InputError, which names the islands, unless votes link every system with every other."""
    found = islands(votes)
    if len(found) > 1:
        named = "; ".join(f"island {k}: {', '.join(names)}" for k, names in enumerate(found, start=1))
        raise InputError(
            f"the systems cannot be put on one scale, since no vote links these {len(found)} islands: {named}."
            " Add votes between the islands, or rate each one by itself"
        )


def solve(
    won: Array,
    total: Array,
    ends: tuple[Index, Index],
    n: int,
    *,
    start: Array | None = None,
    half_wins: bool = False,
) -> Strengths:
    """The strengths of b data sets over the same K pairs of n systems, all at once.

    won, total: (b, K) the first system's wins (ties half) and the votes. ends: (K,) first, (K,) second, which
    together link all systems. start: (n,), where to begin. half_wins: add half wins to all data sets; otherwise
    only to those that have no estimate without. Raises ArithmeticError if Newton's method does not converge.
    """
    add = np.ones(len(won), bool) if half_wins else separated(won, total, ends, n)
    extra = 0.5 * add[:, None]
    won, total = won + extra, total + 2 * extra
    values = np.tile(np.zeros(n) if start is None else start, (len(won), 1))
    left = np.arange(len(won))
    for _ in range(_ITERATIONS):
        step = _step(won[left], total[left], ends, values[left])
        change = np.abs(step[:, ends[0]] - step[:, ends[1]]).max(axis=1)
        values[left] += step * (np.log1p(change) / np.maximum(change, 1e-300))[:, None]
        left = left[change > _TOLERANCE]
        if not len(left):
            return Strengths(values - values.mean(axis=1, keepdims=True), add)
    raise ArithmeticError(
        f"Bradley-Terry did not converge in {_ITERATIONS} iterations on {len(left)} data sets"
    )


def separated(won: Array, total: Array, ends: tuple[Index, Index], n: int) -> np.ndarray:
    """(b,) where the likelihood has no maximum: the graph 'scored against' is not strongly connected."""
    sure = ((won > 0) & (won < total)).all(axis=1)
    doubtful = np.flatnonzero(~sure)
    found = np.zeros(len(won), bool)
    if not len(doubtful):
        return found
    row, column = np.nonzero(won[doubtful] > 0)
    back_row, back_column = np.nonzero(won[doubtful] < total[doubtful])
    tail = np.concatenate([row * n + ends[0][column], back_row * n + ends[1][back_column]])
    head = np.concatenate([row * n + ends[1][column], back_row * n + ends[0][back_column]])
    label = _components(tail, head, len(doubtful) * n, directed=True).reshape(-1, n)
    found[doubtful] = (label != label[:, :1]).any(axis=1)
    return found


def _components(tail: Index, head: Index, n: int, *, directed: bool) -> Index:
    """(n,) the connected component of each node of a graph, the strongly connected one if it is directed."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(tail)), (tail, head)), (n, n))
    return np.asarray(connected_components(graph, directed=directed, connection="strong")[1])


def _step(won: Array, total: Array, ends: tuple[Index, Index], values: Array) -> Array:
    """Newton's step (b, n), with mean 0."""
    n = values.shape[1]
    first, second = ends
    incidence = np.zeros((len(first), n))
    incidence[np.arange(len(first)), first] = 1
    incidence[np.arange(len(first)), second] = -1
    chance = 1 / (1 + np.exp(values[:, second] - values[:, first]))
    gradient = (won - total * chance) @ incidence
    weight = total * chance * (1 - chance)
    hessian = np.full((len(won), n, n), 1 / n)  # 1/n fixes the mean, which the likelihood leaves free
    hessian[:, first, second] -= weight
    hessian[:, second, first] -= weight
    hessian[:, np.arange(n), np.arange(n)] += weight @ np.abs(incidence)
    return np.asarray(np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0])


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
