"""Figures of the results: the order of rows, alignment against FID, FID by number of steps, samples."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reports.cells import Report, Slice
from reports.layout import fixed, in_full, plain_label, spread, steps_text, style_of
from reports.plots import style
from reports.samples import ShownSamples, tile
from reports.study import ReportRow

_LEFT, _RIGHT = 0.0, 1.0


def ranks(values: list[float | None], ties: list[float | None]) -> list[float | None]:
    """The place of each value in ascending order, 0 the lowest; None stays None.

    Equal values take the order of `ties`, then of the rows: values published as equal were not published in
    any order, so none that is measured contradicts them.
    """
    keys = enumerate(zip(values, ties, strict=True))
    order = sorted((v, math.inf if t is None else t, i) for i, (v, t) in keys if v is not None)
    place = {i: float(rank) for rank, (_, _, i) in enumerate(order)}
    return [place.get(i) for i in range(len(values))]


def plot_ranks(report: Report) -> Figure:
    """Published order on the left, measured on the right, best on top; a crossing is a changed order."""
    parts = report.study.parts
    lines = [len(rows) for rows in parts.values()]
    bands = [max(lines[i : i + 2]) + 1.9 for i in range(0, len(parts), 2)]
    figure = style.new_figure(0.19 * sum(bands) + 0.1)
    grid = figure.add_gridspec(len(bands), 2, height_ratios=bands, left=0, right=1, top=1, bottom=0, hspace=0)
    for i, (part, rows) in enumerate(parts.items()):
        _rank_panel(figure.add_subplot(grid[i // 2, i % 2]), report, part, rows, bands[i // 2])
    return figure


def _rank_panel(axes: Axes, report: Report, part: str, rows: tuple[ReportRow, ...], height: float) -> None:
    axes.set_axis_off()
    axes.set_xlim(-2.0, 2.3)
    axes.set_ylim(height - 1.5, -1.9)
    axes.text(-2.0, -1.4, f"({part}) {rows[0].question}", weight="bold", va="center")
    for x, text, side in ((_LEFT - 0.06, "paper", "right"), (_RIGHT + 0.06, "measured", "left")):
        axes.text(x, -0.7, text, ha=side, va="center", color=style.GREY, size=7.5)
    by_run = report.estimates(report.first, "fid")
    estimates = [by_run[row.run] for row in rows]
    measured: list[float | None] = [estimate.value for estimate in estimates]
    published = [row.published_fid for row in rows]
    before, after = ranks(published, measured), ranks(measured, published)
    decimals = style_of("fid").decimals
    for row, estimate, left, right in zip(rows, estimates, before, after, strict=True):
        assert right is not None  # for mypy: every row was measured
        colour = style.BLUE if row.default else style.INK
        aside = spread(estimate, decimals)
        if left is None or row.published_fid is None:
            aside += f"   {plain_label(row.label)} (ours)"
        else:
            moved = left != right
            line = style.BLUE if row.default else style.GREY
            width, dash = 1.6 if row.default else 1.0, "--" if moved else "-"
            axes.plot([_LEFT, _RIGHT], [left, right], color=line, linewidth=width, linestyle=dash)
            text = f"{plain_label(row.label)}   {in_full(row.published_fid, decimals)}"
            axes.text(_LEFT - 0.06, left, text, ha="right", va="center", color=colour)
            axes.plot([_LEFT], [left], marker="o", markersize=3.5, color=colour)
        axes.plot([_RIGHT], [right], marker="o", markersize=3.5, color=colour)
        value = fixed(estimate.value, decimals)
        axes.text(_RIGHT + 0.5, right, value, ha="right", va="center", color=colour)
        axes.text(_RIGHT + 0.54, right, aside, ha="left", va="center", color=style.GREY, size=7)


_PANEL = 4.2  # inches from one panel to the next
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
    """`metric` (alignment or CLIP score) against FID, one panel for each number of steps."""
    slices = [where for where in report.headline if metric in report.metrics(where)]
    figure, panels = style.stacked(len(slices), _PANEL, 0.09, 0.58)
    for axes, where in zip(panels, slices, strict=True):
        _scatter_panel(axes, report, where, metric)
    return figure


def _scatter_panel(axes: Axes, report: Report, where: Slice, metric: str) -> None:
    titles = {"alignment": "All attributes right (share)", "clip_score": "CLIP score"}
    fids, others = report.estimates(where, "fid"), report.estimates(where, metric)
    study, points = report.study, {}
    for run in fids:
        name = plain_label(study.name_of(run, full=True))
        points[run] = style.PointLabel(name, fids[run].value, others[run].value, study.is_default(run))
    marks = list(points.values())
    outside = outliers([math.log(max(mark.x, 1e-9)) for mark in marks]) | outliers([mark.y for mark in marks])
    beyond = [mark for i, mark in enumerate(marks) if i in outside]
    shown = {run: mark for i, (run, mark) in enumerate(points.items()) if i not in outside}
    for run, mark in shown.items():
        axes.errorbar(
            [mark.x],
            [mark.y],
            xerr=np.transpose([style.whiskers(fids[run])]),
            yerr=np.transpose([style.whiskers(others[run])]),
            fmt="D" if mark.marked else "o",
            color=style.BLUE if mark.marked else style.INK,
            markersize=5 if mark.marked else 3.5,
            elinewidth=0.5,
            zorder=4 if mark.marked else 3,
        )
    addition = style.log_if_wide(axes, [mark.x for mark in shown.values()])
    axes.set_title(steps_text(where.steps).capitalize(), loc="left", weight="bold")
    axes.set_xlabel(f"FID{addition}, lower is better")
    axes.set_ylabel(titles.get(metric, metric))
    style.add_grid(axes)
    axes.margins(0.06)
    # Below the labels stand the names and values of the points beyond the axes: off the scale, not left out.
    printed = style_of(metric)
    title = printed.title.lower() if metric == "alignment" else printed.title
    lines = ["Beyond the axes:"] if beyond else []
    for mark in beyond:
        fid, other = fixed(mark.x, style_of("fid").decimals), fixed(mark.y, printed.decimals)
        lines += [mark.text, f"    FID {fid}, {title} {other}"]
    text = "\n".join(lines)
    axes.text(1.06, _FLOOR, text, transform=axes.transAxes, va="bottom", size=7.5, color=style.VERMILLION)
    style.label_points(axes, list(shown.values()), lowest=_FLOOR, lines_below=len(lines))


# Shape and fill tell the marks apart without colour.
_MARKS = (("o", style.VERMILLION, "white"), ("s", style.BLUE, style.BLUE), ("^", style.GREEN, style.GREEN))


def plot_steps(report: Report) -> Figure:
    """One line for each run in the table's order, with a mark for each number of steps."""
    runs = report.study.runs
    figure = style.new_figure(height := 0.19 * len(runs) + 0.85)
    axes = figure.add_axes((0.3, 0.5 / height, 0.68, 1 - 0.75 / height))
    by_steps = [list(report.comparable(where, "fid").values()) for where in report.headline]
    for y, one_run in enumerate(zip(*by_steps, strict=True)):
        values = [estimate.value for estimate in one_run]
        axes.plot([min(values), max(values)], [y, y], color=style.FAINT, linewidth=2.5, zorder=1)
    for i, (where, estimates) in enumerate(zip(report.headline, by_steps, strict=True)):
        shape, edge, fill = _MARKS[i % len(_MARKS)]
        axes.errorbar(
            [estimate.value for estimate in estimates],
            range(len(runs)),
            xerr=list(zip(*map(style.whiskers, estimates), strict=True)),
            fmt=shape,
            color=edge,
            markerfacecolor=fill,
            markersize=4.5,
            elinewidth=0.9,
            capsize=1.8,
            label=steps_text(where.steps),
            zorder=3 + i,
        )
    everything = [estimate.value for estimates in by_steps for estimate in estimates]
    if (floor := report.floors(report.first).get("fid")) is not None:
        everything.append(floor)
        axes.axvline(floor, color=style.GREY, linewidth=0.8, linestyle=":", label="real images")
    title = style.log_if_wide(axes, everything)
    axes.set_xlabel(f"FID, prompt set “{report.first.prompts}”{title}")
    axes.set_yticks(range(len(runs)), [plain_label(report.study.name_of(run, full=True)) for run in runs])
    for tick, run in zip(axes.get_yticklabels(), runs, strict=True):
        tick.set_fontweight("bold" if report.study.is_default(run) else "normal")
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.add_grid(axes, "x")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderpad=0, labelcolor=style.INK)
    return figure


_LABELS = 1.55  # inches for the runs' names
_CAPTIONS = 0.8  # inches for the prompts
# One tile and its gap in pixels of the PNG, so that no pixel of a small sample is resampled.
_TILE, _PITCH = 192, 204
_CELL = _PITCH / style.PNG_DPI


def plot_samples(report: Report, samples: ShownSamples) -> Figure:
    """One montage: same prompts and image seeds in every row."""
    study, runs, prompts = report.study, report.study.runs, samples.prompts
    across, down = _CELL * len(prompts), _CELL * len(runs)
    height = _CAPTIONS + down
    figure = style.new_figure(height)
    for column, prompt in enumerate(prompts):
        lines = textwrap.wrap(prompt, int(_CELL / 0.049))
        figure.text(
            (_LABELS + _CELL * column + 0.5 * _TILE / style.PNG_DPI) / style.WIDTH,
            1 - (_CAPTIONS - 0.05) / height,
            "\n".join(lines if len(lines) <= 6 else [*lines[:5], "\N{HORIZONTAL ELLIPSIS}"]),
            ha="center",
            va="bottom",
            size=6.5,
            linespacing=1.0,
        )
    for line, run in enumerate(runs):
        figure.text(
            0,
            1 - (_CAPTIONS + _CELL * line + 0.5 * _TILE / style.PNG_DPI) / height,
            "\n".join(textwrap.wrap(plain_label(study.name_of(run)), 27)),
            va="center",
            size=7.5,
            weight="bold" if study.is_default(run) else "normal",
        )
    axes = style.add_axes(figure, _LABELS, 0, across, down)
    axes.imshow(montage(report, samples), aspect="auto")
    axes.set_axis_off()
    return figure


def montage(report: Report, samples: ShownSamples) -> NDArray[np.uint8]:
    """All tiles on white, (runs x 204, prompts x 204, 3) uint8; a tile lies top left in its square."""
    canvas = np.full((_PITCH * len(report.study.runs), _PITCH * len(samples.prompts), 3), 255, dtype=np.uint8)
    for line, run in enumerate(report.study.runs):
        for column, path in enumerate(samples.tiles[run]):
            pixels = np.asarray(tile(path, _TILE))
            top, left = _PITCH * line, _PITCH * column
            canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas
