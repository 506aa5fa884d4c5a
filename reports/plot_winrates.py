"""Figure: how often chosen systems are preferred to each other one, as in the paper's Figures 5 and 6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.plot_style import BLUE, FAINT, GREEN, GREY, INK, WIDTH, new_figure
from reports.ratings_data import KINDS, Preferences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = (("quality", BLUE, 1.0), ("alignment", GREEN, 0.55))
_LINE = 0.25  # inches for one system
_NAMES = 1.75  # inches for the systems' names
_ABOVE, _BELOW = 0.42, 0.34  # inches around each panel
_LEGEND = 0.2


def plot_winrates(preferences: Preferences) -> Figure:
    """One line of panels a focus system, one column a kind of rater; a pair of bars a rival, ties half."""
    kinds, focus = preferences.kinds, preferences.focus
    lines = len(preferences.systems) - 1
    panel = lines * _LINE + _ABOVE + _BELOW
    height = panel * len(focus) + _LEGEND
    figure = new_figure(height)
    gap = 0.4  # inches right of each panel, for the values
    width = (WIDTH - _NAMES - gap * len(kinds)) / len(kinds)
    for i, name in enumerate(focus):
        for k, kind in enumerate(kinds):
            left = (_NAMES + k * (width + gap)) / WIDTH
            bottom = (height - _LEGEND - panel * (i + 1) + _BELOW) / height
            axes = figure.add_axes((left, bottom, width / WIDTH, lines * _LINE / height))
            _panel(axes, preferences, kind, name, names=k == 0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0)
    return figure


def _panel(axes: Axes, preferences: Preferences, kind: str, focus: str, *, names: bool) -> None:
    rivals = [name for name in preferences.systems if name != focus]
    for b, (question, colour, alpha) in enumerate(_BARS):
        drawn = False
        for y, rival in enumerate(rivals):
            rate = preferences.rate(kind, question, focus, rival)
            at = y + (b - 0.5) * 0.38
            if rate is None:
                axes.text(2, at, f"{question}: no votes", va="center", size=6.5, color=GREY)
                continue
            axes.barh(
                at,
                100 * rate.value,
                height=0.34,
                color=colour,
                alpha=alpha,
                label=None if drawn else question,
                zorder=2,
            )
            drawn = True
            ends = [[100 * (rate.value - rate.low)], [100 * (rate.high - rate.value)]]
            axes.errorbar(
                [100 * rate.value], [at], xerr=ends, fmt="none", ecolor=INK, elinewidth=0.8, zorder=3
            )
            axes.text(
                101.5, at, f"{100 * rate.value:.0f}", va="center", ha="left", size=7, color=INK, clip_on=False
            )
    axes.axvline(50, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=4)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(rivals) - 0.5, -0.5)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50%", "75", "100"])
    axes.set_yticks(range(len(rivals)), [f"over {rival}" for rival in rivals] if names else [])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.grid(True, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(f"{KINDS[kind]}: {focus} preferred", loc="left", weight="bold", x=0)
