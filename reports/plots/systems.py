"""The figures of the comparison of systems: FID against network calls and time, and quality against diversity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.cells import Estimate
from reports.layout import plain_label, style_of
from reports.plots import style
from reports.systems import DIVERSITY, SystemRow

_HEIGHT = 3.4  # inches of a panel
_LINE = 0.155  # inches that a label beside a panel takes

Found = Callable[[SystemRow], Estimate | None]


def plot_systems(systems: Sequence[SystemRow], prompts: str) -> Figure:
    """Two panels; a system without the figure of a panel is not in it."""
    timed = any(row.timing is not None for row in systems)
    seconds = f"seconds for one image, {'at batch 1' if timed else 'in batches'}"
    costs: dict[str, Found] = {"network calls for one image": _calls, seconds: _seconds}
    figure, panels = style.stacked(len(costs), _height(systems), 0.09, 0.62)
    for axes, (title, cost) in zip(panels, costs.items(), strict=True):
        style.logarithmic(axes, "x")
        style.logarithmic(axes, "y")
        _panel(axes, systems, cost, _metric(prompts, "fid"))
        axes.set_xlabel(f"{title} (logarithmic)")
        axes.set_ylabel("FID (logarithmic), lower is better")
    return figure


def plot_plane(systems: Sequence[SystemRow], prompts: str) -> Figure | None:
    """Quality against diversity, a mark a system: FID, and what the prompt asked for, each against a diversity.

    None where no diversity was measured. A system without one of a panel's two figures is not in it.
    """
    there = {name for row in systems for name in row.estimates.get(prompts, {})}
    over_set = next((name for name in ("coverage", "recall") if name in there), None)
    within = any(row.within_prompt() is not None for row in systems)
    other = DIVERSITY if within else next((name for name in ("recall", "coverage") if name in there), None)
    asked = next((name for name in ("alignment", "clip_score") if name in there), None)
    planes = [(x, y) for x, y in ((over_set, "fid"), (other, asked)) if x and y]
    if not planes:
        return None
    figure, panels = style.stacked(len(planes), _height(systems), 0.09, 0.62)
    for axes, (x, y) in zip(panels, planes, strict=True):
        if y == "fid":
            style.logarithmic(axes, "y")
        across = SystemRow.within_prompt if x == DIVERSITY else _metric(prompts, x)
        _panel(axes, systems, across, _metric(prompts, y))
        axes.set_xlabel(f"{_TITLES.get(x, style_of(x).title)}, higher is more diverse")
        axes.set_ylabel(_TITLES.get(y, style_of(y).title))
    return figure


_TITLES = {
    "fid": "FID (logarithmic), lower is better",
    "alignment": "All attributes right (share)",
    DIVERSITY: "Vendi score of the images of one prompt",
    "coverage": "Coverage of the real images",
    "recall": "Recall of the real images",
}


def _height(systems: Sequence[SystemRow]) -> float:
    """Inches of a panel beside which every system has a line for its label."""
    return max(_HEIGHT, 0.75 + _LINE * sum(bool(row.estimates) for row in systems))


def _metric(prompts: str, name: str) -> Found:
    return lambda row: row.of(prompts, name)


def _calls(row: SystemRow) -> Estimate | None:
    return None if row.calls is None else _cost(float(row.calls))


def _seconds(row: SystemRow) -> Estimate | None:
    found = row.seconds
    return None if found is None else _cost(found.median, found.lower, found.upper)


def _cost(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value, low, high, "", 1, None, None, "", {})


def _panel(axes: Axes, systems: Sequence[SystemRow], across: Found, up: Found) -> None:
    """Marks with whiskers and labels; lines join the numbers of steps of one system."""
    lines: dict[str, list[tuple[SystemRow, Estimate, Estimate]]] = {}
    for row in systems:
        if (x := across(row)) is not None and (y := up(row)) is not None:
            lines.setdefault(row.system.name, []).append((row, x, y))
    labels = []
    for points in lines.values():
        axes.errorbar(
            [x.value for _, x, _ in points],
            [y.value for _, _, y in points],
            xerr=np.transpose([style.whiskers(x) for _, x, _ in points]),
            yerr=np.transpose([style.whiskers(y) for _, _, y in points]),
            fmt="o-",
            color=style.INK,
            markersize=3.5,
            elinewidth=0.5,
            linewidth=0.7,
        )
        labels += [
            style.PointLabel(plain_label(row.system.label), x.value, y.value, marked=False)
            for row, x, y in points
        ]
    style.add_grid(axes)
    axes.margins(0.06)
    style.label_points(axes, labels)
