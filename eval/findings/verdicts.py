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

from eval.findings.contrasts import Contrast, Fit, Observation, quantile

LEVEL = 0.05
FIRST_LOOK = 8
"""Runs a row at the first look of a growing study; each further look is at twice as many."""
FIRST_SHARE = 0.8
"""The first look's share of the level; each further look has this share of what the earlier ones left."""
POWER = 0.8

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
    for an undecided claim, how many times its runs would decide it with that probability if the estimate is the
    truth, by the deciding pair alone and at this look's level: a lower bound. None where a hundred times would not.
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
    more: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95%, of the deciding pair."""
        return self.contrast.interval()


def judge(
    claims: Sequence[Claim], fits: Sequence[Fit], level: float | Sequence[float] = LEVEL
) -> tuple[Judged, ...]:
    """Verdicts of one page. fits: of each claim's metric. level: of the page, or of each claim's look (`look`)."""
    levels = [level] * len(claims) if isinstance(level, float) else list(level)
    raw = [_test(claim, fit, alpha) for claim, fit, alpha in zip(claims, fits, levels, strict=True)]
    # Holm on p / alpha: claims may be at different looks.
    adjusted = holm([each.p / each.level if each.level > 0 else math.inf for each in raw])
    return tuple(_settled(each, ratio, len(claims)) for each, ratio in zip(raw, adjusted, strict=True))


def _settled(raw: Judged, ratio: float, claims: int) -> Judged:
    """A claim with its verdict. ratio: its adjusted p by its level. claims: how many there are on the page."""
    decided = ratio <= 1
    # What is planned before the first look is planned for it.
    share = (raw.level or LEVEL * FIRST_SHARE) / claims
    return replace(
        raw,
        detectable=_detectable(raw.contrast, share),
        holm_p=min(1.0, ratio * LEVEL),
        verdict=raw.favoured if decided else "undecided",
        more=None if decided else _more(raw.claim, raw.contrast, share),
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

    A look is at FIRST_LOOK runs of each of the claim's rows, at twice as many, and so on. A row gives just as many, the
    first by seed and processor, or twice as many where it has them: a look on every run in between would be another
    test at the same level.
    Rows without a training seed wait for the others.
    """
    fixed = {o.row for o in observations if o.error is not None}
    runs = {row: [o for o in observations if o.row == row] for row in claim.runs if row not in fixed}
    if not runs:
        return tuple(observations), LEVEL
    fewest = min(len(found) for found in runs.values())
    if fewest < FIRST_LOOK:
        return tuple(observations), 0.0
    number = int(math.log2(fewest / FIRST_LOOK))
    asked = FIRST_LOOK * 2**number
    by_row: dict[str, list[Observation]] = {}
    for o in sorted(observations, key=lambda o: (o.seed or 0, o.processor)):
        by_row.setdefault(o.row, []).append(o)
    seen = tuple(
        o for found in by_row.values() for o in found[: 2 * asked if len(found) >= 2 * asked else asked]
    )
    return seen, LEVEL * FIRST_SHARE * (1 - FIRST_SHARE) ** number


def _test(claim: Claim, fit: Fit, level: float) -> Judged:
    """The p-values of all verdicts of a claim; the smallest is the favoured verdict's."""
    sign = 1 if claim.larger_is_better else -1
    contrasts = {pair: fit.difference(*pair) for pair in claim.pairs}
    gains = {pair: Contrast(sign * c.estimate, c.error, c.freedom) for pair, c in contrasts.items()}
    m, n = claim.margin, len(gains)
    tests: dict[Name, Callable[[Contrast], float]]
    if claim.relation in ("better", "worse"):
        up = claim.relation == "better"
        tests = {
            "reproduced": (lambda g: 2 * g.above(0)) if up else (lambda g: 2 * g.below(0)),
            "contradicted": (lambda g: 2 * g.below(0)) if up else (lambda g: 2 * g.above(0)),
            "equivalent": lambda g: max(g.above(-m), g.below(m)),
        }
    elif claim.relation == "equivalent":
        tests = {
            "reproduced": lambda g: max(g.above(-m), g.below(m)),
            "contradicted": lambda g: 2 * min(g.above(m), g.below(-m)),
        }
    else:
        tests = {"reproduced": lambda g: 2 * g.below(m), "contradicted": lambda g: 2 * g.above(m)}
    each = {name: {pair: test(gain) for pair, gain in gains.items()} for name, test in tests.items()}
    # A claim about all pairs is contradicted by one of them: Bonferroni over the pairs.
    p = {name: n * min(v.values()) if name == "contradicted" else max(v.values()) for name, v in each.items()}
    favoured = min(p, key=lambda name: p[name])
    by_pair = each[favoured]
    pair = (min if favoured == "contradicted" else max)(by_pair, key=lambda pair: by_pair[pair])
    return Judged(claim, pair, contrasts[pair], fit.runs_of(*pair), level, favoured, min(1.0, p[favoured]))


def _detectable(contrast: Contrast, level: float) -> float:
    """The difference that a two-sided test at `level` shows with a probability of POWER."""
    return (quantile(1 - level / 2, contrast.freedom) + quantile(POWER, contrast.freedom)) * contrast.error


def _more(claim: Claim, contrast: Contrast, level: float) -> float | None:
    """How many times the runs would decide the claim, if the estimate is the truth."""
    between = contrast.error**2 - contrast.lasting**2
    if between <= 0:  # no run would lessen the error
        return None
    gain = contrast.estimate if claim.larger_is_better else -contrast.estimate
    m = claim.margin
    power = quantile(POWER, contrast.freedom)
    shown = quantile(1 - level / 2, contrast.freedom) + power
    # Bonferroni over its pairs, as in the test.
    opposed = quantile(1 - level / (2 * len(claim.pairs)), contrast.freedom) + power
    # An equivalence near the middle can fail on either side: power is then split between them.
    inside = quantile(1 - level, contrast.freedom) + quantile((1 + POWER) / 2, contrast.freedom)
    if claim.relation in ("better", "worse"):
        as_claimed = (gain > 0) == (claim.relation == "better")
        needs = [(abs(gain), shown if as_claimed else opposed), (m - abs(gain), inside)]
    elif claim.relation == "equivalent":
        needs = [(m - abs(gain), inside), (abs(gain) - m, opposed)]
    else:
        needs = [(m - gain, shown), (gain - m, opposed)]
    # What runs may leave of the error, after the part that they do not lessen.
    rooms = [(gap / z) ** 2 - contrast.lasting**2 for gap, z in needs if gap > 0]
    factors = [between / room for room in rooms if room > 0]
    least = min(factors, default=math.inf)
    return max(least, 1.0) if least <= 100 else None


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
