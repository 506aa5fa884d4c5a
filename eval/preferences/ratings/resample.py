"""95% intervals for ratings, by resampling raters and prompts rather than single votes.

Votes of one rater share that rater's taste, and votes on one prompt share its difficulty, so whole raters and
whole prompts are drawn with replacement. Votes are counted per cluster and pair once; a resample is then a
row of multiplicities times that table, and all resamples are solved in one batch.

Two ways of clustering are put together as Cameron, Gelbach and Miller do (J. Business & Econ. Statistics 29,
2011): the covariance over raters, plus that over prompts, minus that over (rater, prompt) cells, which both
of the others hold. The sum may come out too small, even negative, by chance; it is never taken to be less than the
least of its three terms, none of which exceeds the truth on average. Drawing raters and prompts at once and
multiplying their multiplicities (the "pigeonhole" bootstrap) counts a single vote's own noise three times
(Owen, Annals of Applied Statistics 1, 2007): its 95% intervals cover 98 to 100% where that noise dominates, as
it does in votes. benchmarks/ratings_coverage.py shows both.

G clusters drawn from themselves vary by (G - 1)/G too little, which is corrected; quantiles are Student's t
with Satterthwaite's degrees of freedom, but no fewer than the smaller G - 1, since 20 raters are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from add.errors import InputError
from eval.preferences.ratings.estimators import Strengths, solve
from eval.preferences.ratings.tally import Array, Cluster, Index, Tally

LEVEL = 0.95
_ROUNDING = 1e-12
"""A variance of strengths, in natural logarithms, that is none."""


@dataclass(frozen=True)
class VarianceWay:
    """One term of a covariance (m, m): added or taken away (`sign`), estimated from `clusters` clusters."""

    covariance: Array
    clusters: int
    sign: int = 1


@dataclass(frozen=True)
class Spread:
    """How uncertain m estimates are together: one part, or those of raters, prompts and (taken away) cells.

    floor (m, m): a covariance below which no variance is taken, for contrasts that are alike in every resample, or for
    all of them (`always`).
    """

    parts: tuple[VarianceWay, ...]
    floor: Array | None = None
    always: bool = False

    def half_width(self, contrasts: Array) -> Array:
        """Half the width of the 95% intervals of `contrasts` (c, m) of the estimates: (c,)."""
        from scipy.stats import t

        error, freedom = self.error(contrasts)
        return np.asarray(t.ppf((1 + LEVEL) / 2, freedom) * error)

    def error(self, contrasts: Array) -> tuple[Array, Array]:
        """Standard errors (c,) of contrasts (c, m), and their degrees of freedom (c,)."""
        terms = np.array([((contrasts @ p.covariance) * contrasts).sum(axis=1) for p in self.parts])
        signs = np.array([p.sign for p in self.parts])
        freedoms = np.array([max(1, p.clusters - 1) for p in self.parts], np.float64)
        # Of two systems that are alike in every resample the difference varies by rounding alone, to either side of 0.
        variance = np.maximum(np.maximum(signs @ terms, terms.min(axis=0)), 0.0)
        if self.floor is not None:
            least = ((contrasts @ self.floor) * contrasts).sum(axis=1)
            variance = np.where((variance <= _ROUNDING) | self.always, np.maximum(variance, least), variance)
        shares = ((terms / np.maximum(variance, _ROUNDING)) ** 2 / freedoms[:, None]).sum(axis=0)
        freedom = np.maximum(freedoms.min(), 1 / np.maximum(shares, 1e-9))
        return np.sqrt(variance), freedom


def ways(votes: Tally, raters_vary: bool = True) -> tuple[Cluster, ...]:
    """What to resample: raters and prompts, where there are two or more of each; `raters_vary` is False where
    the raters are no sample from a population, as programs are not. Raises InputError with neither."""
    chosen: tuple[Cluster, ...] = ("rater",) if raters_vary and len(votes.raters) > 1 else ()
    chosen += ("prompt",) if len(votes.prompts) > 1 else ()
    if not chosen:
        raise InputError("all votes are on one prompt by raters that are not resampled: there is no interval")
    return chosen


def resampled(
    votes: Tally,
    by: Cluster,
    resamples: int,
    generator: np.random.Generator,
    *,
    start: Array | None = None,
    half_wins: bool = False,
) -> Strengths:
    """Bradley-Terry strengths (resamples, n) of votes whose raters, or prompts, are drawn with replacement.

    `start` (n,) is where Newton's method begins, for speed. With `half_wins` every resample gets half wins as
    `solve` does, as when the votes themselves needed them; otherwise only those resamples that need them do.
    """
    cluster, count = votes.clusters(by)
    multiplicity = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    won, total = _sums(votes, cluster, count, multiplicity)
    return solve(won, total, votes.ends, len(votes.systems), start=start, half_wins=half_wins)


def spread(votes: Tally, values: Array, draws: dict[Cluster, Strengths], half_wins: bool = False) -> Spread:
    """The uncertainty of strengths `values` (n,), from draws for each way of clustering.

    half_wins: whether the votes have no estimate without. Then resamples say too little: a system that won every vote
    wins them in each of them, too. The variance is then at least that of independent votes at these strengths, and so
    it is of systems that every resample finds alike, as where all votes are ties.
    """
    parts = []
    for by, drawn in draws.items():
        count = votes.clusters(by)[1]
        covariance = np.cov(drawn.values, rowvar=False) * (count / (count - 1))
        parts.append(VarianceWay(np.atleast_2d(covariance), count))
    if len(parts) == 2:
        parts.append(cells(votes, values))
    return Spread(tuple(parts), _independent(votes, values), half_wins)


def _independent(votes: Tally, values: Array) -> Array:
    """The covariance (n, n) of strengths if every vote were independent, with a half win either way in every pair.

    A pair's votes vary as they did, so that ties, which vary less than wins and losses, count for less.
    """
    count, total = len(votes.ends[0]), votes.total + 1
    wins, ties = (np.bincount(votes.pair, votes.score == score, count) for score in (1, 0.5))
    mean, square = (votes.won + 0.5) / total, (wins + 0.5 + ties / 4) / total
    inverse = np.linalg.pinv(_information(votes, values, half_wins=True), hermitian=True)
    found = inverse @ _laplacian(votes, total * (square - mean**2)) @ inverse
    return np.asarray(found, np.float64)


def _information(votes: Tally, values: Array, half_wins: bool = False) -> Array:
    """Fisher's information (n, n) of votes at strengths `values`, with those that half wins add."""
    first, second = votes.ends
    chance = 1 / (1 + np.exp(values[second] - values[first]))
    return _laplacian(votes, (votes.total + half_wins) * chance * (1 - chance))


def _laplacian(votes: Tally, weight: Array) -> Array:
    """(n, n): the weights (K,) of the pairs, negative, and what makes each row's sum 0."""
    n = len(votes.systems)
    found = np.zeros((n, n))
    for one, other in (votes.ends, votes.ends[::-1]):
        np.add.at(found, (one, other), -weight)
    return found - np.diag(found.sum(axis=1))


def cells(votes: Tally, values: Array) -> VarianceWay:
    """What a resampling of (rater, prompt) cells would give, to first order: the sandwich estimate, to be taken
    away once where raters and prompts were both resampled."""
    n = len(votes.systems)
    chance = 1 / (1 + np.exp(values[votes.second] - values[votes.first]))
    surprise = votes.score - chance
    cell, where = np.unique(votes.rater * len(votes.prompts) + votes.prompt, return_inverse=True)
    count = len(cell)
    gradient = np.bincount(where * n + votes.first, surprise, count * n)
    gradient -= np.bincount(where * n + votes.second, surprise, count * n)
    gradient = gradient.reshape(count, n)
    inverse = np.linalg.pinv(_information(votes, values), hermitian=True)
    # Not gradient.T @ gradient: on so tall a matrix two BLAS threads wait for each other for seconds.
    squares = np.einsum("ci,cj->ij", gradient, gradient)
    return VarianceWay(inverse @ squares @ inverse, count, -1)


def _sums(votes: Tally, cluster: Index, count: int, multiplicity: Index) -> tuple[Array, Array]:
    """First wins and votes (b, K) of each resample with multiplicities (b, count)."""
    pairs = len(votes.ends[0])
    slot = cluster * pairs + votes.pair
    # Half wins are counted twice, as whole numbers, which single precision adds exactly up to 2^24.
    kind = np.float32 if 2 * votes.votes * int(multiplicity.max()) < 2**24 else np.float64
    table = np.empty((count, 2 * pairs), kind)
    table[:, :pairs] = np.bincount(slot, 2 * votes.score, count * pairs).reshape(count, pairs)
    table[:, pairs:] = np.bincount(slot, None, count * pairs).reshape(count, pairs)
    sums = (multiplicity.astype(kind) @ table).astype(np.float64)
    return sums[:, :pairs] / 2, sums[:, pairs:]
