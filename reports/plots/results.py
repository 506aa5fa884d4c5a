"""Figures of the results: the order of rows, alignment against FID, FID by number of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.cells import Estimate, Report, Slice
from reports.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    VERMILLION,
    PointLabel,
    label_points,
    log_if_wide,
    new_figure,
    whiskers,
)
from reports.render.layout import fixed, in_full, plain_label, spread, steps_text, style_of
from reports.study import ReportRow

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
        _rank_panel(axes, report, part, study.rows_of(part), bands[i // 2])
    return figure


def _rank_panel(axes: Axes, report: Report, part: str, rows: tuple[ReportRow, ...], height: float) -> None:
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


_PANEL = 4.2  # inches
_FLOOR = -0.11  # where the margin's text ends, as a share of the axes' height


def outliers(values: Sequence[float]) -> set[int]:
    """Which values squeeze the others into less than 40% of an axis: the furthest from the median, in turn.

    At most a quarter of the values; the longest such series, so that two far values do not shield each other.
    """
    if not values:
        return set()
    middle = sorted(values)[len(values) // 2]
    near_first = sorted(range(len(values)), key=lambda i: (abs(values[i] - middle), i))
    cut = len(values)
    for kept in range(len(values) - 1, len(values) - 1 - len(values) // 4, -1):
        inner = [values[i] for i in near_first[:kept]]
        outer = [values[i] for i in near_first[: kept + 1]]
        if max(inner) - min(inner) < 0.4 * (max(outer) - min(outer)):
            cut = kept
    return set(near_first[cut:])


def plot_scatter(report: Report, metric: str) -> Figure:
    """`metric` (alignment or CLIP score) against FID, one panel a number of steps."""
    panels = report.headline
    height = _PANEL * len(panels)
    figure = new_figure(height)
    for i, where in enumerate(panels):
        bottom = (height - _PANEL * (i + 1) + 0.45) / height
        axes = figure.add_axes((0.09, bottom, 0.58, (_PANEL - 0.75) / height))
        _scatter_panel(axes, report, where, metric)
    return figure


@dataclass(frozen=True)
class _Mark:
    run: str
    fid: Estimate
    other: Estimate


def _scatter_panel(axes: Axes, report: Report, where: Slice, metric: str) -> None:
    titles = {"alignment": "All attributes right (share)", "clip_score": "CLIP score"}
    marks = []
    for run in report.study.runs:
        fid, other = report.estimate(run, where, "fid"), report.estimate(run, where, metric)
        if fid is not None and other is not None:
            marks.append(_Mark(run, fid, other))
    logarithms = [math.log(max(mark.fid.value, 1e-9)) for mark in marks]
    outside = outliers(logarithms) | outliers([mark.other.value for mark in marks])
    shown = [mark for i, mark in enumerate(marks) if i not in outside]
    for mark in shown:
        default = report.study.is_default(mark.run)
        left, right = whiskers(mark.fid)
        down, up = whiskers(mark.other)
        axes.errorbar(
            [mark.fid.value],
            [mark.other.value],
            xerr=[[left], [right]],
            yerr=[[down], [up]],
            fmt="D" if default else "o",
            color=BLUE if default else INK,
            markersize=5 if default else 3.5,
            elinewidth=0.5,
            zorder=4 if default else 3,
        )
    addition = log_if_wide(axes, "x", [mark.fid.value for mark in shown])
    axes.set_title(steps_text(where.steps).capitalize(), loc="left", weight="bold")
    axes.set_xlabel(f"FID{addition}, lower is better")
    axes.set_ylabel(titles.get(metric, metric))
    axes.grid(True, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.margins(0.06)
    beyond = [mark for i, mark in enumerate(marks) if i in outside]
    _name_outside(axes, report, metric, beyond)
    # The lowest label stays above the lines of text that name what lies beyond the axes.
    lines_below = 2 * len(beyond) + 1 if beyond else 0
    labels = [
        PointLabel(
            plain_label(report.study.full_name_of(mark.run)),
            mark.fid.value,
            mark.other.value,
            report.study.is_default(mark.run),
        )
        for mark in shown
    ]
    label_points(axes, labels, lowest=_FLOOR, lines_below=lines_below)


def _name_outside(axes: Axes, report: Report, metric: str, marks: Sequence[_Mark]) -> None:
    """What lies beyond the axes is named below the labels with its values: left off the scale, not out."""
    lines = ["Beyond the axes:"] if marks else []
    for mark in marks:
        fid = fixed(mark.fid.value, style_of("fid").decimals)
        other = fixed(mark.other.value, style_of(metric).decimals)
        title = style_of(metric).title.lower() if metric == "alignment" else style_of(metric).title
        lines += [plain_label(report.study.full_name_of(mark.run)), f"    FID {fid}, {title} {other}"]
    axes.text(
        1.06, -0.11, "\n".join(lines), transform=axes.transAxes, va="bottom", size=7.5, color=VERMILLION
    )


# Shape and fill tell the marks apart without colour.
_MARKS = (("o", VERMILLION, "white"), ("s", BLUE, BLUE), ("^", GREEN, GREEN))


def plot_steps(report: Report) -> Figure:
    """One line a run, in the table's order; one mark a number of steps; whiskers as the table's spread."""
    runs = report.study.runs
    figure = new_figure(0.19 * len(runs) + 0.85)
    axes = figure.add_axes((0.3, 0.5 / figure.get_figheight(), 0.68, 1 - 0.75 / figure.get_figheight()))
    everything: list[float] = []
    found = [[report.estimate(run, where, "fid") for where in report.headline] for run in runs]
    for y, estimates in enumerate(found):
        values = [e.value for e in estimates if e is not None]
        everything += values
        axes.plot([min(values), max(values)], [y, y], color=FAINT, linewidth=2.5, zorder=1)
    for i, where in enumerate(report.headline):
        shape, edge, fill = _MARKS[i % len(_MARKS)]
        pairs = [(y, row[i]) for y, row in enumerate(found)]
        drawn = [(y, e) for y, e in pairs if e is not None]
        lengths = [whiskers(e) for _, e in drawn]
        axes.errorbar(
            [e.value for _, e in drawn],
            [y for y, _ in drawn],
            xerr=[[low for low, _ in lengths], [high for _, high in lengths]],
            fmt=shape,
            color=edge,
            markerfacecolor=fill,
            markersize=4.5,
            elinewidth=0.9,
            capsize=1.8,
            label=steps_text(where.steps),
            zorder=3 + i,
        )
    floor = next((f.value for f in report.floors(report.first) if f.metric == "fid"), None)
    if floor is not None:
        everything.append(floor)
        axes.axvline(floor, color=GREY, linewidth=0.8, linestyle=":", label="real images")
    title = log_if_wide(axes, "x", everything)
    axes.set_xlabel(f"FID, prompt set “{report.first.prompts}”{title}")
    axes.set_yticks(range(len(runs)), [plain_label(report.study.full_name_of(run)) for run in runs])
    for tick, run in zip(axes.get_yticklabels(), runs, strict=True):
        tick.set_fontweight("bold" if report.study.is_default(run) else "normal")
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderpad=0, labelcolor=INK)
    return figure
