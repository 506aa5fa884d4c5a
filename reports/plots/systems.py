"""The figure of the comparison of systems: FID against network calls and against time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.layout import plain_label
from reports.plots import style
from reports.systems import SystemRow

_AXES = {"calls": "network calls for one image", "seconds": "seconds for one image, in batches"}


def plot_systems(systems: Sequence[SystemRow], prompts: str) -> Figure:
    """Two panels; a system without the figure of a panel is not in it."""
    figure, panels = style.stacked(len(_AXES), 3.4, 0.09, 0.62)
    for axes, (key, title) in zip(panels, _AXES.items(), strict=True):
        _panel(axes, systems, prompts, key, title)
    return figure


def _panel(axes: Axes, systems: Sequence[SystemRow], prompts: str, key: str, title: str) -> None:
    lines: dict[str, list[SystemRow]] = {}
    for row in systems:
        if row.of(prompts, "fid") is not None and getattr(row, key) is not None:
            lines.setdefault(row.system.name, []).append(row)
    labels = []
    for rows in lines.values():
        found = [(getattr(row, key), fid) for row in rows if (fid := row.of(prompts, "fid")) is not None]
        x, y = [float(at) for at, _ in found], [fid.value for _, fid in found]
        axes.errorbar(
            x,
            y,
            yerr=np.transpose([style.whiskers(fid) for _, fid in found]),
            fmt="o-",
            color=style.INK,
            markersize=3.5,
            elinewidth=0.5,
            linewidth=0.7,
        )
        labels += [
            style.PointLabel(plain_label(row.system.label), at, fid.value, marked=False)
            for row, (at, fid) in zip(rows, found, strict=True)
        ]
    style.logarithmic(axes, "x")
    style.logarithmic(axes, "y")
    axes.set_xlabel(f"{title} (logarithmic)")
    axes.set_ylabel("FID (logarithmic), lower is better")
    style.add_grid(axes)
    axes.margins(0.06)
    style.label_points(axes, labels)
