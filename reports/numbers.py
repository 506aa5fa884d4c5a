"""How a number is printed: decimals, spread, and which of a column is the best. Shared by all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.cells import Estimate


@dataclass(frozen=True)
class Style:
    """How a metric is titled and printed; `lower` is None where no direction is better."""

    title: str
    lower: bool | None
    decimals: int


STYLES = {
    "fid": Style("FID", True, 1),
    "kid": Style("KID", True, 4),
    "clip_score": Style("CLIP score", False, 3),
    "alignment": Style("All right", False, 3),
}


def style_of(metric: str) -> Style:
    """The style of a metric; one that this package has no style for is printed under its own name."""
    return STYLES.get(metric, Style(metric, None, 4))


@dataclass(frozen=True)
class Shown:
    """One cell as text: the value, its spread ("" where there is none), and whether it is a column's best."""

    value: str
    spread: str = ""
    best: bool = False


ABSENT = Shown("\N{EN DASH}")


def fixed(value: float, decimals: int) -> str:
    """Fixed decimals without a negative zero."""
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def spread(estimate: Estimate, decimals: int) -> str:
    """The sd over seeds where there are several, else the interval that scoring reported."""
    if estimate.seed_sd is not None:
        return f"\N{PLUS-MINUS SIGN} {fixed(estimate.seed_sd, decimals)}"
    if estimate.low is not None and estimate.high is not None:
        return f"[{fixed(estimate.low, decimals)}, {fixed(estimate.high, decimals)}]"
    return ""


def column(estimates: Sequence[Estimate | None], metric: str) -> tuple[Shown, ...]:
    """One column of a sub-table, its best marked.

    Values are compared as printed, so two equal figures are never told apart by digits a reader cannot see;
    all that tie for the best are marked. A column of one row has no best.
    """
    style = style_of(metric)
    best = best_of([None if e is None else e.value for e in estimates], style)
    return tuple(
        ABSENT
        if estimate is None
        else Shown(fixed(estimate.value, style.decimals), spread(estimate, style.decimals), marked)
        for estimate, marked in zip(estimates, best, strict=True)
    )


def published(values: Sequence[float | None], metric: str) -> tuple[Shown, ...]:
    """One column of published values, its best marked, with all decimals that the paper gives."""
    style = style_of(metric)
    best = best_of(values, style, as_printed=False)
    return tuple(
        ABSENT if value is None else Shown(in_full(value, style.decimals), best=marked)
        for value, marked in zip(values, best, strict=True)
    )


def in_full(value: float, decimals: int) -> str:
    """All decimals that a value was given with, but at least `decimals`."""
    return max(fixed(value, decimals), f"{value}", key=len)


def best_of(values: Sequence[float | None], style: Style, *, as_printed: bool = True) -> tuple[bool, ...]:
    """Which values are the best; none where fewer than two values can be compared."""
    rounded = [
        float(fixed(value, style.decimals)) if as_printed and value is not None else value for value in values
    ]
    present = [value for value in rounded if value is not None]
    if style.lower is None or len(present) < 2:
        return tuple(False for _ in rounded)
    target = min(present) if style.lower else max(present)
    return tuple(value == target for value in rounded)
