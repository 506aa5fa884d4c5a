"""How far apart are two rows, and how sure is that? Runs with different seeds -> means, intervals, contrasts.

One observation is one trained run's value of one metric: FID as its logarithm, so that a difference is a ratio, and
shares and means as they are. The model is y = row + processor + error. Errors are independent: the same seed on
another processor, or in another row, is taken as another draw (docs/results.md: common seeds correlate rows that differ
little, over all pairs of rows by .18 in one-step FID, and with few runs pairs cost more than they bring). A row with
about 8 runs has its own variance (Welch's test). One with fewer, or that was never run, is taken to spread as the rows
do on average. Pooling the rows that look alike instead would narrow intervals of 8 runs a row by a sixth, and choosing
them by a test after looking breaks the level: of pages where nothing differs 7% had a verdict at 5%.

A row without a training seed (a teacher that is sampled) has one value and no variance between runs: its error over
images counts in its place, in full, though the part that comes of the prompts is common to both rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, stdtr, stdtrit

Array = NDArray[np.float64]
OWN_FREEDOM = 6.0
"""Degrees of freedom from which a row has a variance of its own: 7 runs, or 8 where they share several processors."""

WILD = 10.0
"""A row whose variance is more than so many times the median one is no typical row."""


@dataclass(frozen=True)
class Observation:
    """One run's value of one metric, transformed (`transformed`).

    error: the standard error over images, of what has no training seed.
    """

    row: str
    seed: int | None
    processor: str
    value: float
    error: float | None = None


@dataclass(frozen=True)
class Variance:
    """A variance between runs and the degrees of freedom that it was estimated with."""

    value: float
    freedom: float


@dataclass(frozen=True)
class RunSpread:
    """How far runs of one variant spread: `own` of the rows that have enough runs, `typical` of any other one."""

    typical: Variance
    own: Mapping[str, Variance]

    def of(self, row: str) -> Variance:
        """Of one run of a row."""
        return self.own.get(row, self.typical)


@dataclass(frozen=True)
class Contrast:
    """A difference of two rows, or one row's mean: estimate, standard error, degrees of freedom.

    lasting: the part of the standard error that more runs would not lessen.
    """

    estimate: float
    error: float
    freedom: float
    lasting: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval."""
        half = quantile(0.5 + level / 2, self.freedom) * self.error
        return self.estimate - half, self.estimate + half

    def above(self, bound: float) -> float:
        """One-sided p of `the difference is at most bound`: small where it is above. Raises ValueError at error 0."""
        return tail(self._errors(self.estimate - bound), self.freedom)

    def below(self, bound: float) -> float:
        """One-sided p of `the difference is at least bound`: small where it is below. Raises ValueError at error 0."""
        return tail(self._errors(bound - self.estimate), self.freedom)

    def _errors(self, distance: float) -> float:
        if self.error == 0:
            raise ValueError("neither runs nor images vary, so that nothing can be tested")
        return distance / self.error


@dataclass(frozen=True)
class Fit:
    """All rows' means with what is needed for contrasts between them.

    weights: by row, the weight of each observation in the row's mean, (observations,). of: each observation's row.
    processors: what each adds to every row, 0 for the first. fixed: the variances of rows without a training seed.
    """

    rows: tuple[str, ...]
    means: Mapping[str, float]
    weights: Mapping[str, Array]
    of: tuple[str, ...]
    runs: Mapping[str, int]
    spread: RunSpread
    processors: Mapping[str, float]
    fixed: Mapping[str, float]

    def runs_of(self, *rows: str) -> int:
        """The fewest runs that one of these rows has, without those that have no training seed."""
        return min((self.runs[row] for row in rows if row not in self.fixed), default=1)

    def mean(self, row: str) -> Contrast:
        """One row's mean, over the processors where there are several."""
        return self._linear(self.means[row], self.weights[row])

    def difference(self, row: str, other: str) -> Contrast:
        """row - other."""
        return self._linear(self.means[row] - self.means[other], self.weights[row] - self.weights[other])

    def with_runs(self, factor: float) -> Fit:
        """What `factor` times each row's runs would give if means and variances are the truth."""
        freedom = {row: factor * self.runs[row] - 1 for row in self.rows if row not in self.fixed}
        enough = {
            row: Variance(self.spread.of(row).value, own)
            for row, own in freedom.items()
            if own >= OWN_FREEDOM
        }
        less = np.array([1.0 if row in self.fixed else factor**-0.5 for row in self.of])
        return replace(
            self,
            weights={row: weight * less for row, weight in self.weights.items()},
            spread=RunSpread(self.spread.typical, {**self.spread.own, **enough}),
        )

    def _linear(self, estimate: float, weights: Array) -> Contrast:
        """A sum of parts, one of each variance that is estimated; Satterthwaite's degrees of freedom."""
        parts: dict[str, float] = {}  # by row, "" for all of the typical variance
        lasting = 0.0
        for row, weight in zip(self.of, weights, strict=True):
            if row in self.fixed:
                lasting += weight * weight * self.fixed[row]
            else:
                whose = row if row in self.spread.own else ""
                parts[whose] = parts.get(whose, 0.0) + weight * weight * self.spread.of(row).value
        total = sum(parts.values()) + lasting
        if total == 0:
            return Contrast(estimate, 0.0, math.inf)
        inverse = sum((part / total) ** 2 / self.spread.of(row).freedom for row, part in parts.items())
        freedom = 1 / inverse if inverse else math.inf
        return Contrast(estimate, math.sqrt(total), freedom, math.sqrt(lasting))


def fit(observations: Sequence[Observation], spread: RunSpread | None = None) -> Fit:
    """Fit rows and processors to the observations of one metric.

    spread: of a larger study, by which few runs are judged; otherwise it is estimated here. Raises ValueError where no
    row has two runs and no spread is given, though some row has a training seed, or rows and processors cannot be told
    apart.
    """
    if not observations:
        raise ValueError("there are no observations")
    rows = tuple(dict.fromkeys(o.row for o in observations))
    processors = tuple(dict.fromkeys(o.processor for o in observations))
    y = np.array([o.value for o in observations])
    design = np.zeros((len(y), len(rows) + len(processors) - 1))
    for k, o in enumerate(observations):
        design[k, rows.index(o.row)] = 1
        if place := processors.index(o.processor):
            design[k, len(rows) + place - 1] = 1
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(
            "rows were run on different processors only: rows and processors cannot be told apart"
        )
    weights = np.linalg.pinv(design)
    # A row's mean is over the processors, so that it does not depend on which of them comes first.
    over = weights[len(rows) :].sum(axis=0) / len(processors)
    fixed = {o.row: o.error**2 for o in observations if o.error is not None}
    if spread is None and len(fixed) == len(rows):
        spread = RunSpread(Variance(0.0, math.inf), {})
    if spread is None:
        residuals = y - design @ (weights @ y)
        leverage = np.einsum("np,pn->n", design, weights)
        index = np.array([rows.index(o.row) for o in observations])
        # A row's share of the residual degrees of freedom: with one processor, its runs less one.
        own = {
            row: Variance(
                float(np.square(residuals[index == k]).sum()), float((1 - leverage[index == k]).sum())
            )
            for k, row in enumerate(rows)
        }
        spread = _spread(
            {
                row: Variance(v.value / v.freedom, v.freedom)
                for row, v in own.items()
                if v.freedom > 1e-9 and row not in fixed
            }
        )
    return Fit(
        rows=rows,
        means={row: float((weights[k] + over) @ y) for k, row in enumerate(rows)},
        weights={row: weights[k] + over for k, row in enumerate(rows)},
        of=tuple(o.row for o in observations),
        runs={row: sum(o.row == row for o in observations) for row in rows},
        spread=spread,
        processors=dict(zip(processors, [0.0, *(weights @ y)[len(rows) :].tolist()], strict=True)),
        fixed=fixed,
    )


def _spread(variances: Mapping[str, Variance]) -> RunSpread:
    """Each row's own variance where it has enough runs, and the mean over rows, weighed by their freedom.

    Rows that spread wildly are left out of it: the students from random weights have 150 times the others' spread in
    CMMD, and say nothing of a row that works. The mean's degrees of freedom are Satterthwaite's: rows that spread
    differently say less of another one.
    """
    found = list(variances.values())
    if not any(v.value > 0 for v in found):
        raise ValueError(
            "No row has two different runs, so nothing says how far runs spread: give more seeds, or grow the "
            "replication"
        )
    # Of few runs, the median variance is far below the true one: 45% of it with two.
    middle = median(v.value * v.freedom / (2 * gammaincinv(v.freedom / 2, 0.5)) for v in found)
    alike = [v for v in found if v.value <= WILD * middle] or found
    total = sum(v.freedom * v.value for v in alike)
    freedom = total**2 / sum(v.freedom * v.value**2 for v in alike)
    typical = Variance(total / sum(v.freedom for v in alike), freedom)
    return RunSpread(typical, {row: v for row, v in variances.items() if v.freedom >= OWN_FREEDOM})


def quantile(p: float, freedom: float) -> float:
    """Student's quantile; the normal one at infinite degrees of freedom."""
    return float(stdtrit(min(freedom, 1e9), p))


def tail(t: float, freedom: float) -> float:
    """P(T > t)."""
    return float(stdtr(min(freedom, 1e9), -t))
