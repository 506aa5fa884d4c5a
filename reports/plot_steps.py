"""Figure: FID of every run by the number of student steps, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.cells import Report
from reports.labels import plain_label
from reports.layout import steps_text
from reports.plot_style import BLUE, FAINT, GREEN, GREY, INK, VERMILLION, log_if_wide, new_figure, whiskers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
