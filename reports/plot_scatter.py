"""Figure: alignment against FID, one mark a run, labels in a margin where they cannot overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.cells import Estimate, Report, Slice
from reports.labels import plain_label
from reports.layout import steps_text
from reports.numbers import fixed, style_of
from reports.plot_labels import PointLabel, label_points
from reports.plot_style import BLUE, FAINT, INK, VERMILLION, log_if_wide, new_figure, whiskers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        _panel(axes, report, where, metric)
    return figure


@dataclass(frozen=True)
class _Mark:
    run: str
    fid: Estimate
    other: Estimate


def _panel(axes: Axes, report: Report, where: Slice, metric: str) -> None:
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
