"""Figure: the order of rows in each sub-table, as published and as measured. Ranks alone share an axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports.cells import Report
from reports.labels import plain_label
from reports.numbers import fixed, in_full, spread, style_of
from reports.plot_style import BLUE, GREY, INK, VERMILLION, new_figure
from reports.study import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT = 0.0, 1.0


def ranks(values: list[float | None], ties: list[float | None]) -> list[float | None]:
    """The place of each value in ascending order, 0 the lowest; None stays None.

    Equal values take the order of `ties`, then of the rows: values published as equal were not published in
    any order, so none that is measured contradicts them.
    """
    order = sorted(
        (v, math.inf if t is None else t, i)
        for i, (v, t) in enumerate(zip(values, ties, strict=True))
        if v is not None
    )
    place = {i: float(rank) for rank, (_, _, i) in enumerate(order)}
    return [place.get(i) for i in range(len(values))]


def plot_ranks(report: Report) -> Figure:
    """Published order on the left, measured on the right, best on top; a crossing is a changed order."""
    study = report.study
    parts = study.parts
    lines = [len(study.rows_of(part)) for part in parts]
    bands = [max(lines[i : i + 2]) + 1.9 for i in range(0, len(parts), 2)]
    figure = new_figure(0.19 * sum(bands) + 0.1)
    grid = figure.add_gridspec(len(bands), 2, height_ratios=bands, left=0, right=1, top=1, bottom=0, hspace=0)
    for i, part in enumerate(parts):
        axes = figure.add_subplot(grid[i // 2, i % 2])
        _panel(axes, report, part, study.rows_of(part), bands[i // 2])
    return figure


def _panel(axes: Axes, report: Report, part: str, rows: tuple[Row, ...], height: float) -> None:
    axes.set_axis_off()
    axes.set_xlim(-2.0, 2.3)
    axes.set_ylim(height - 1.5, -1.9)
    axes.text(-2.0, -1.4, f"({part}) {rows[0].question}", weight="bold", va="center")
    for x, text, side in ((_LEFT, "paper", "right"), (_RIGHT, "measured", "left")):
        shift = -0.06 if side == "right" else 0.06
        axes.text(x + shift, -0.7, text, ha=side, va="center", color=GREY, size=7.5)
    estimates = [report.estimate(row.run, report.first, "fid") for row in rows]
    published = [row.published_fid for row in rows]
    measured = [e.value if e else None for e in estimates]
    before, after = ranks(published, measured), ranks(measured, published)
    decimals = style_of("fid").decimals
    for row, estimate, left, right in zip(rows, estimates, before, after, strict=True):
        if estimate is None or right is None:
            continue
        colour = BLUE if row.default else INK
        value = fixed(estimate.value, decimals)
        aside = spread(estimate, decimals)
        if left is None:
            aside += f"   {plain_label(row.label)} (ours)"
        else:
            moved = left != right
            axes.plot(
                [_LEFT, _RIGHT],
                [left, right],
                color=colour if row.default else (VERMILLION if moved else GREY),
                linewidth=1.6 if row.default else 1.0,
                linestyle="--" if moved else "-",
            )
            text = f"{plain_label(row.label)}   {in_full(row.published_fid or 0.0, decimals)}"
            axes.text(_LEFT - 0.06, left, text, ha="right", va="center", color=colour)
            axes.plot([_LEFT], [left], marker="o", markersize=3.5, color=colour)
        axes.plot([_RIGHT], [right], marker="o", markersize=3.5, color=colour)
        axes.text(_RIGHT + 0.5, right, value, ha="right", va="center", color=colour)
        axes.text(_RIGHT + 0.54, right, aside, ha="left", va="center", color=GREY, size=7)
