"""Figures of the ratings: against time (Figure 7), pair by pair, and win rates (Figures 5 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    VERMILLION,
    WIDTH,
    PointLabel,
    label_points,
    log_if_wide,
    new_figure,
)
from reports.ratings import KINDS, QUESTIONS, Preferences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_ELO_PANEL = 3.1  # inches


def plot_elo(preferences: Preferences) -> Figure:
    """One panel a kind of rater; both questions together where both were asked."""
    kinds = preferences.kinds
    height = _ELO_PANEL * len(kinds)
    figure = new_figure(height)
    for i, kind in enumerate(kinds):
        bottom = (height - _ELO_PANEL * (i + 1) + 0.45) / height
        axes = figure.add_axes((0.08, bottom, 0.66, (_ELO_PANEL - 0.75) / height))
        _elo_panel(axes, preferences, kind)
    return figure


def question_shown(preferences: Preferences, kind: str) -> str:
    """The question that the figure shows for a kind of rater: both, or the only one that was asked."""
    return next(q for q in reversed(QUESTIONS) if (kind, q) in preferences.ratings)


def _elo_panel(axes: Axes, preferences: Preferences, kind: str) -> None:
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


_PAIR_PANELS = ("quality", "alignment")
_PAIR_NAMES = 1.75  # inches for the systems' names
_PAIRS_ABOVE = 0.55  # inches for title and column numbers


def plot_pairs(preferences: Preferences) -> Figure:
    """One line of matrices a kind of rater, systems by rating; a column for each question."""
    count = len(preferences.systems)
    gap = 0.3
    side = min(2.45, 0.5 * count, (WIDTH - _PAIR_NAMES - gap) / 2)
    height = (side + _PAIRS_ABOVE) * len(preferences.kinds) + 0.05
    figure = new_figure(height)
    for i, kind in enumerate(preferences.kinds):
        order = preferences.in_order(kind)
        for k, question in enumerate(_PAIR_PANELS):
            left = (_PAIR_NAMES + k * (side + gap)) / WIDTH
            bottom = (height - (side + _PAIRS_ABOVE) * (i + 1)) / height
            axes = figure.add_axes((left, bottom, side / WIDTH, side / height))
            _matrix(axes, preferences, kind, question, order, names=k == 0)
    return figure


def _matrix(
    axes: Axes, preferences: Preferences, kind: str, question: str, order: tuple[str, ...], *, names: bool
) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    count = len(order)
    colours = LinearSegmentedColormap.from_list("rates", [VERMILLION, "white", BLUE])
    size = 7.0 if count <= 12 else 5.0
    for y, name in enumerate(order):
        for x, other in enumerate(order):
            rate = None if x == y else preferences.rate(kind, question, name, other)
            # Half the strength of the palette, so that dark text stays legible on every cell.
            face = "white" if rate is None else colours(0.5 + 0.6 * (rate.value - 0.5))
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=0.8)
            )
            if rate is None:
                text, weight, colour = ("" if x == y else "\N{EN DASH}"), "normal", GREY
            else:
                clear = rate.low > 0.5 or rate.high < 0.5
                text, weight, colour = f"{100 * rate.value:.0f}", "bold" if clear else "normal", INK
            axes.text(x, y, text, ha="center", va="center", size=size, weight=weight, color=colour)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(count), [str(i + 1) for i in range(count)])
    labels = (
        [f"{name}  {i + 1}" for i, name in enumerate(order)] if names else [str(i + 1) for i in range(count)]
    )
    axes.set_yticks(range(count), labels)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"{KINDS[kind]}: {question}", loc="left", weight="bold", pad=4)


_BARS = (("quality", BLUE, 1.0), ("alignment", GREEN, 0.55))
_BAR_LINE = 0.25  # inches for one system
_BAR_NAMES = 1.75  # inches for the systems' names
_BARS_ABOVE, _BELOW = 0.42, 0.34  # inches around each panel
_LEGEND = 0.2


def plot_winrates(preferences: Preferences) -> Figure:
    """One line of panels a focus system, one column a kind of rater; a pair of bars a rival, ties half."""
    kinds, focus = preferences.kinds, preferences.focus
    lines = len(preferences.systems) - 1
    panel = lines * _BAR_LINE + _BARS_ABOVE + _BELOW
    height = panel * len(focus) + _LEGEND
    figure = new_figure(height)
    gap = 0.4  # inches right of each panel, for the values
    width = (WIDTH - _BAR_NAMES - gap * len(kinds)) / len(kinds)
    for i, name in enumerate(focus):
        for k, kind in enumerate(kinds):
            left = (_BAR_NAMES + k * (width + gap)) / WIDTH
            bottom = (height - _LEGEND - panel * (i + 1) + _BELOW) / height
            axes = figure.add_axes((left, bottom, width / WIDTH, lines * _BAR_LINE / height))
            _winrate_panel(axes, preferences, kind, name, names=k == 0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0)
    return figure


def _winrate_panel(axes: Axes, preferences: Preferences, kind: str, focus: str, *, names: bool) -> None:
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
