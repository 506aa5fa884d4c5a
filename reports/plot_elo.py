"""Figure: rating against the time that an image takes, as in the paper's Figure 7, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.plot_labels import PointLabel, label_points
from reports.plot_style import BLUE, FAINT, GREY, INK, log_if_wide, new_figure
from reports.ratings_data import KINDS, QUESTIONS, Preferences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 3.1  # inches


def plot_elo(preferences: Preferences) -> Figure:
    """One panel a kind of rater; both questions together where both were asked."""
    kinds = preferences.kinds
    height = _PANEL * len(kinds)
    figure = new_figure(height)
    for i, kind in enumerate(kinds):
        bottom = (height - _PANEL * (i + 1) + 0.45) / height
        axes = figure.add_axes((0.08, bottom, 0.66, (_PANEL - 0.75) / height))
        _panel(axes, preferences, kind)
    return figure


def question_shown(preferences: Preferences, kind: str) -> str:
    """The question that the figure shows for a kind of rater: both, or the only one that was asked."""
    return next(q for q in reversed(QUESTIONS) if (kind, q) in preferences.ratings)


def _panel(axes: Axes, preferences: Preferences, kind: str) -> None:
    question = question_shown(preferences, kind)
    points: list[tuple[str, float, float]] = []
    for name in preferences.systems:
        rated = preferences.system(kind, question, name)
        if rated is None:
            continue
        x = preferences.seconds[name]
        colour = BLUE if name in preferences.focus else INK
        ends = [[max(0.0, rated.rating - rated.low)], [max(0.0, rated.high - rated.rating)]]
        first = not points
        axes.errorbar(
            [x], [rated.rating], yerr=ends, fmt="o", color=colour, markersize=4.5, elinewidth=1.0, capsize=1.8,
            zorder=3, label="Bradley-Terry, 95% interval" if first else None,
        )  # fmt: skip
        axes.plot(
            [x], [rated.elo], marker="D", markersize=4, markerfacecolor="white", markeredgecolor=colour,
            linestyle="none", zorder=4, label="ELO as in the paper" if first else None,
        )  # fmt: skip
        points.append((name, x, rated.rating))
    addition = log_if_wide(axes, "x", [x for _, x, _ in points])
    axes.axhline(1000, color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    axes.grid(True, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.margins(x=0.08, y=0.08)
    asked = "both questions" if question == "both" else question
    axes.set_title(f"{KINDS[kind]}, {asked}", loc="left", weight="bold")
    axes.set_xlabel(f"Seconds an image{addition}")
    axes.set_ylabel("Rating (ELO's scale)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0)
    label_points(axes, [PointLabel(name, x, y, name in preferences.focus) for name, x, y in points])
