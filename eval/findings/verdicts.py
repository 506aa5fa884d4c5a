"""Does a claim hold? Claims as tests on contrasts; one page of claims; what more runs would decide.

A claim compares rows in one metric. It is read as pairs, each row against each other one, and holds if it holds for all
of them (an intersection-union test, so no correction is needed within a claim). A claim's verdicts are

  reproduced    the claimed relation is there
  contradicted  its opposite is there
  equivalent    of a claimed difference: there is none beyond the margin (two one-sided tests)
  undecided     none of these

Each verdict has a p-value; at any true difference the chance of a false one is below the level, and Holm's rule over
the claims of a page makes it so for the page. A study that grows is looked at only when the number of runs a row has
doubled, and each look has its share of the level (`look`), so that adding runs until something is decided decides
nothing falsely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy.optimize import brentq

from add.config.load import BASELINE
from eval.findings.contrasts import Contrast, Fit, Observation, quantile, tail

LEVEL = 0.05
FIRST_LOOK = 8
"""Runs a row at the first look of a growing study; each further look is at twice as many."""
FIRST_SHARE = 0.8
"""The first look's share of the level; each further look has this share of what the earlier ones left."""
POWER = 0.8
MOST = 100.0
"""No plan asks for more than so many times the runs."""

Relation = Literal["better", "worse", "equivalent", "not_better"]
Name = Literal["reproduced", "contradicted", "equivalent", "undecided"]


@dataclass(frozen=True)
class Claim:
    """`rows` are `relation` than each of `others`. All are names of runs.

    margin: the difference, on the scale of contrasts, that does not count. larger_is_better: of the metric.
    """

    text: str
    rows: tuple[str, ...]
    relation: Relation
    others: tuple[str, ...]
    margin: float
    larger_is_better: bool

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each row with each other one."""
        return tuple((row, other) for row in self.rows for other in self.others if row != other)

    @property
    def runs(self) -> tuple[str, ...]:
        """All that it is about, each once."""
        return tuple(dict.fromkeys((*self.rows, *self.others)))


@dataclass(frozen=True)
class Judged:
    """A claim before and after Holm: p is of the verdict that the data favour.

    pair, contrast: the pair that decides, and row - other of it; low, high: its 95% interval, corrected for nothing.
    detectable: the smallest difference of that pair that this study would have shown with a probability of 80%. more:
    of an undecided claim, how many more runs of each of its rows decide it with at least that probability if the
    estimates are the truth: of all its pairs, at the level that Holm's rule leaves it at worst, and in a growing study
    at the look that has them. None where a hundred times the runs would not.
    """

    claim: Claim
    pair: tuple[str, str]
    contrast: Contrast
    runs: int
    level: float
    favoured: Name
    p: float
    detectable: float = math.nan
    holm_p: float = math.nan
    verdict: Name = "undecided"
    more: int | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95%, of the deciding pair."""
        return self.contrast.interval()


def judge(
    claims: Sequence[Claim], fits: Sequence[Fit], level: float | Sequence[float] = LEVEL
) -> tuple[Judged, ...]:
    """Verdicts of one page. fits: of each claim's metric. level: LEVEL, or that of each claim's look (`look`)."""
    levels = [level] * len(claims) if isinstance(level, float) else list(level)
    asked = list(zip(claims, fits, levels, strict=True))
    raw = [_test(claim, fit, alpha) for claim, fit, alpha in asked]
    # Holm on p / alpha: claims may be at different looks.
    adjusted = holm([each.p / each.level if each.level > 0 else math.inf for each in raw])
    return tuple(
        _settled(each, fit, ratio, len(raw))
        for each, (_, fit, _), ratio in zip(raw, asked, adjusted, strict=True)
    )


def _settled(raw: Judged, fit: Fit, ratio: float, claims: int) -> Judged:
    """A claim with its verdict. ratio: its adjusted p by its level. claims: how many there are on the page."""
    decided = ratio <= 1
    # What is planned before the first look is planned for it.
    level = raw.level or LEVEL * FIRST_SHARE
    return replace(
        raw,
        detectable=_detectable(raw.contrast, level / claims),
        holm_p=min(1.0, ratio * LEVEL),
        verdict=raw.favoured if decided else "undecided",
        more=None if decided else _more(raw.claim, fit, raw.level, claims),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the order given, not capped: a claim is decided where it is at most the level.

    Raises ValueError for a p that is no number, which would count as decided.
    """
    if any(math.isnan(each) for each in p):
        raise ValueError("a p-value is no number")
    order = sorted(range(len(p)), key=lambda k: p[k])
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, (len(p) - rank) * p[k])
        adjusted[k] = largest
    return adjusted


def look(observations: Sequence[Observation], claim: Claim) -> tuple[tuple[Observation, ...], float]:
    """The observations that a growing study may judge a claim by now, and the level of this look; level 0: none yet.

    A look is at FIRST_LOOK runs of each of the claim's rows, at twice as many, and so on; of the baseline, with which
    most claims compare, always at twice as many as of the others. A row gives just so many, the first by seed and
    processor: a look on every run in between would be another test at the same level. Rows without a training seed
    wait for the others.
    """
    fixed = {o.row for o in observations if o.error is not None}
    runs = {row: [o for o in observations if o.row == row] for row in claim.runs if row not in fixed}
    if not runs:
        return tuple(observations), LEVEL
    fewest = min(len(found) // _times(row) for row, found in runs.items())
    if fewest < FIRST_LOOK:
        return tuple(observations), 0.0
    number = int(math.log2(fewest / FIRST_LOOK))
    asked = FIRST_LOOK * 2**number
    by_row: dict[str, list[Observation]] = {}
    for o in sorted(observations, key=lambda o: (o.seed or 0, o.processor)):
        by_row.setdefault(o.row, []).append(o)
    seen = tuple(o for row, found in by_row.items() for o in found[: asked * _times(row)])
    return seen, LEVEL * FIRST_SHARE * (1 - FIRST_SHARE) ** number


def _times(row: str) -> int:
    return 2 if row == BASELINE else 1


@dataclass(frozen=True)
class _Rule:
    """A verdict's test of one pair: each of `gaps`, distances in favour of the verdict, is above zero.

    gaps: of the row's gain on the other one. sides: 2 where a level is shared with the opposite verdict's test. every:
    it takes all pairs; otherwise one of them, at the price of Bonferroni's rule over the pairs.
    """

    gaps: Callable[[float], tuple[float, ...]]
    sides: int
    every: bool = True

    def p(self, gain: Contrast) -> float:
        """The p-value of one pair."""
        return self.sides * max(replace(gain, estimate=gap).above(0) for gap in self.gaps(gain.estimate))

    def missed(self, gain: Contrast, level: float) -> float:
        """The chance at most that one pair's p is above `level`, if its estimate is the truth."""
        bar = quantile(1 - level / self.sides, gain.freedom)
        return sum(tail(gap / gain.error - bar, gain.freedom) for gap in self.gaps(gain.estimate))


def _rules(claim: Claim) -> dict[Name, _Rule]:
    m = claim.margin
    if claim.relation in ("better", "worse"):
        sign = 1 if claim.relation == "better" else -1
        return {
            "reproduced": _Rule(lambda gain: (sign * gain,), sides=2),
            "contradicted": _Rule(lambda gain: (-sign * gain,), sides=2, every=False),
            "equivalent": _Rule(lambda gain: (m + gain, m - gain), sides=1),
        }
    if claim.relation == "equivalent":
        return {
            "reproduced": _Rule(lambda gain: (m + gain, m - gain), sides=1),
            "contradicted": _Rule(lambda gain: (abs(gain) - m,), sides=2, every=False),
        }
    return {
        "reproduced": _Rule(lambda gain: (m - gain,), sides=2),
        "contradicted": _Rule(lambda gain: (gain - m,), sides=2, every=False),
    }


def _gains(claim: Claim, fit: Fit) -> dict[tuple[str, str], Contrast]:
    """By pair, how much better the row is than the other."""
    sign = 1 if claim.larger_is_better else -1
    contrasts = {pair: fit.difference(*pair) for pair in claim.pairs}
    return {pair: replace(c, estimate=sign * c.estimate) for pair, c in contrasts.items()}


def _test(claim: Claim, fit: Fit, level: float) -> Judged:
    """The p-values of all verdicts of a claim; the smallest is the favoured verdict's."""
    gains, rules = _gains(claim, fit), _rules(claim)
    each = {name: {pair: rule.p(gain) for pair, gain in gains.items()} for name, rule in rules.items()}
    p = {
        name: max(each[name].values()) if rule.every else len(gains) * min(each[name].values())
        for name, rule in rules.items()
    }
    favoured = min(p, key=lambda name: p[name])
    by_pair = each[favoured]
    pair = (max if rules[favoured].every else min)(by_pair, key=lambda pair: by_pair[pair])
    runs = fit.runs_of(*pair)
    return Judged(claim, pair, fit.difference(*pair), runs, level, favoured, min(1.0, p[favoured]))


def _detectable(contrast: Contrast, level: float) -> float:
    """The difference that a two-sided test at `level` shows with a probability of POWER."""
    return (quantile(1 - level / 2, contrast.freedom) + quantile(POWER, contrast.freedom)) * contrast.error


def _more(claim: Claim, fit: Fit, level: float, claims: int) -> int | None:
    """How many more runs of each row decide the claim (`Judged.more`). level: as `judge`'s, 0 before the first look."""
    rules = _rules(claim).values()
    runs = fit.runs_of(*claim.runs)

    def power(factor: float, level: float) -> float:
        grown = _gains(claim, fit.with_runs(factor)).values()
        return max(
            1 - sum(rule.missed(gain, level) for gain in grown)
            if rule.every
            else 1 - min(rule.missed(gain, level / len(grown)) for gain in grown)
            for rule in rules
        )

    if level == LEVEL:  # looked at once
        enough = _least(lambda factor: power(factor, level / claims))
    else:
        enough = None
        factor = 2.0 if level else FIRST_LOOK / runs
        level = level * (1 - FIRST_SHARE) or LEVEL * FIRST_SHARE
        while factor <= MOST and enough is None:
            if power(factor, level / claims) >= POWER:
                enough = factor
            factor, level = 2 * factor, level * (1 - FIRST_SHARE)
    return None if enough is None else max(1, math.ceil(runs * (enough - 1) - 1e-9))


def _least(power: Callable[[float], float]) -> float | None:
    """The smallest factor from 1 to MOST with the asked power; None where there is none."""
    if power(1.0) >= POWER:
        return 1.0
    if power(MOST) < POWER:
        return None
    return float(brentq(lambda factor: power(factor) - POWER, 1.0, MOST))


def transformed(metric: str, value: float) -> float:
    """A metric's value on the scale of contrasts: FID by its logarithm. Raises ValueError where it has none."""
    if metric not in LOGARITHMIC:
        return value
    if value <= 0:
        raise ValueError(f"{metric} is {value:g}, which has no logarithm")
    return math.log(value)


LOGARITHMIC = ("fid",)
MARGINS: Mapping[str, float] = {"fid": math.log(1.05), "kid": 1e-3, "clip_score": 0.005}
"""Differences that do not count, on the scale of contrasts: 5% of FID; of a metric that is not here DEFAULT_MARGIN."""
DEFAULT_MARGIN = 0.02
