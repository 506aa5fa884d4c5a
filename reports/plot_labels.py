"""Names of points in a figure's right margin, spread so that none overlaps, each joined to its point by a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.plot_style import BLUE, GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 0.15  # inches between two labels' centres


@dataclass(frozen=True)
class PointLabel:
    """The name of the point (x, y), in data units; `marked` ones are blue."""

    text: str
    x: float
    y: float
    marked: bool


def label_points(
    axes: Axes, labels: Sequence[PointLabel], *, lowest: float = -0.02, lines_below: int = 0
) -> None:
    """Write `labels` beside the axes in the order of their points' heights.

    lowest: where the margin ends, as a share of the axes' height; the last label stays above `lines_below` lines
    of other text that end there. Raises ValueError where a point is not finite.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None  # for mypy: these axes were made in a figure
    axes.autoscale_view()  # matplotlib scales when it draws, too late for positions taken here
    box = axes.get_window_extent()
    heights = [float((axes.transData.transform((at.x, at.y))[1] - box.y0) / box.height) for at in labels]
    gap = _APART * figure.dpi / box.height
    low = min(0.5, lowest + gap * (lines_below + 1)) if lines_below else lowest
    for label, height in zip(labels, spread_out(heights, gap, low, 1.02), strict=True):
        if not math.isfinite(height):
            raise ValueError(f"{label.text}: its value is not finite")
        axes.annotate(
            label.text,
            xy=(label.x, label.y),
            xytext=(1.05, height),
            textcoords="axes fraction",
            ha="left",
            va="center",
            size=7.5,
            color=BLUE if label.marked else INK,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": BLUE if label.marked else GREY,
                "linewidth": 0.35,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0.0, 0.5),
            },
        )


def spread_out(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions moved as little as needed to lie at least `gap` apart within [low, high], order kept.

    Where they cannot all fit, they are spread evenly over the range.
    """
    order = sorted(range(len(positions)), key=lambda i: (positions[i], i))
    gap = min(gap, (high - low) / max(1, len(order) - 1))
    # Blocks of touching labels, each at its members' mean: the least-squares answer without bounds.
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and _start(blocks[-1], positions, gap, low, high) < (
            _start(blocks[-2], positions, gap, low, high) + gap * len(blocks[-2])
        ):
            last = blocks.pop()
            blocks[-1] += last
    placed = [0.0] * len(positions)
    for block in blocks:
        start = _start(block, positions, gap, low, high)
        for k, i in enumerate(block):
            placed[i] = start + gap * k
    return placed


def _start(block: list[int], positions: Sequence[float], gap: float, low: float, high: float) -> float:
    centre = sum(positions[i] - gap * k for k, i in enumerate(block)) / len(block)
    return min(max(centre, low), high - gap * (len(block) - 1))
