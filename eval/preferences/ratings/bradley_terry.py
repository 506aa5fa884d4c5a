"""Bradley-Terry strengths by maximum likelihood: P(i beats j) = 1 / (1 + exp(s_j - s_i)).

Bradley and Terry, Biometrika 39 (1952). A tie counts as half a win for each side: the strengths then give
every system exactly the score that it got, which needs no model of when a rater calls a tie; intervals come
from resampling and do not use the likelihood's curvature. This is what evalica's `bradley_terry` estimates.

Many data sets are solved at once by Newton's method with the step ln(1 + d) / d, d the largest change of a
difference of strengths, which converges from any start (Sun and Tran-Dinh, Mathematical Programming 178,
2019, for functions whose third derivative is bounded by the second, such as the logistic one).

Where some systems beat all others in every vote the likelihood has no maximum (Ford, Amer. Math. Monthly 64,
1957). Then, and only then, each compared pair gets half a win on either side, as Haldane and Anscombe add
to a table with an empty cell; the result says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from add.errors import InputError
from eval.preferences.ratings.tally import Array, Index, Tally

ELO_UNIT = 400 / np.log(10)
"""Points of ELO's scale per unit of strength: 400 points are odds of ten to one."""

_TOLERANCE = 1e-10
_ITERATIONS = 200


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
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = votes.ends
    n = len(votes.systems)
    _, label = connected_components(
        coo_matrix((np.ones(len(first)), (first, second)), (n, n)), directed=False
    )
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
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    sure = ((won > 0) & (won < total)).all(axis=1)
    doubtful = np.flatnonzero(~sure)
    row, column = np.nonzero(won[doubtful] > 0)
    back_row, back_column = np.nonzero(won[doubtful] < total[doubtful])
    tail = np.concatenate([row * n + ends[0][column], back_row * n + ends[1][back_column]])
    head = np.concatenate([row * n + ends[1][column], back_row * n + ends[0][back_column]])
    size = len(doubtful) * n
    graph = coo_matrix((np.ones(len(tail)), (tail, head)), (size, size))
    label = connected_components(graph, connection="strong")[1].reshape(-1, n) if size else np.zeros((0, n))
    found = np.zeros(len(won), bool)
    found[doubtful] = (label != label[:, :1]).any(axis=1)
    return found


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
