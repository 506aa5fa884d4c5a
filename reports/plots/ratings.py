"""Figures of the ratings: rating against time, pair by pair, and win rates."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reports.plots import style
from reports.ratings import KINDS, Preferences

_KINDS_APART = 3.1  # inches from one panel to the next


def plot_elo(preferences: Preferences) -> Figure:
    """Rating against time (Figure 7): one panel for each kind of rater, over both questions if both were asked."""
    figure, panels = style.stacked(len(preferences.kinds), _KINDS_APART, 0.08, 0.66)
    for axes, kind in zip(panels, preferences.kinds, strict=True):
        _elo_panel(axes, preferences, kind)
    return figure


def _elo_panel(axes: Axes, preferences: Preferences, kind: str) -> None:
    question = preferences.questions(kind)[-1]
    labels: list[style.PointLabel] = []
    for name in preferences.systems:
        rated = preferences.system(kind, question, name)
        if rated is None:
            continue
        x, focus = preferences.seconds[name], name in preferences.focus
        colour = style.BLUE if focus else style.INK
        ends = [[max(0.0, rated.rating - rated.low)], [max(0.0, rated.high - rated.rating)]]
        axes.errorbar(
            [x], [rated.rating], yerr=ends, fmt="o", color=colour, markersize=4.5, elinewidth=1.0, capsize=1.8,
            zorder=3, label=None if labels else "Bradley-Terry, 95% interval",
        )  # fmt: skip
        axes.plot(
            [x], [rated.elo], marker="D", markersize=4, markerfacecolor="white", markeredgecolor=colour,
            linestyle="none", zorder=4, label=None if labels else "ELO as in the paper",
        )  # fmt: skip
        labels.append(style.PointLabel(name, x, rated.rating, focus))
    addition = style.log_if_wide(axes, [label.x for label in labels])
    axes.axhline(1000, color=style.GREY, linewidth=0.7, linestyle=":", zorder=1)
    style.add_grid(axes)
    axes.margins(x=0.08, y=0.08)
    asked = "both questions" if question == "both" else question
    axes.set_title(f"{KINDS[kind]}, {asked}", loc="left", weight="bold")
    axes.set_xlabel(f"Seconds per image{addition}")
    axes.set_ylabel("Rating (ELO's scale)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0)
    style.label_points(axes, labels)


_NAMES = 1.75  # inches for the systems' names
_MATRICES = ("quality", "alignment")
_MATRIX_GAP, _MATRIX_HEAD = 0.3, 0.55  # inches between two matrices, and for title and column numbers


def plot_pairs(preferences: Preferences) -> Figure:
    """A line of matrices for each kind of rater, a matrix for each question; systems by rating."""
    kinds = preferences.kinds
    side = min(2.45, 0.5 * len(preferences.systems), (style.WIDTH - _NAMES - _MATRIX_GAP) / 2)
    height = (side + _MATRIX_HEAD) * len(kinds) + 0.05
    figure = style.new_figure(height)
    for i, kind in enumerate(kinds):
        bottom = height - (side + _MATRIX_HEAD) * (i + 1)
        for k, question in enumerate(_MATRICES):
            axes = style.add_axes(figure, _NAMES + k * (side + _MATRIX_GAP), bottom, side, side)
            _matrix(axes, preferences, kind, question, names=k == 0)
    return figure


def _matrix(axes: Axes, preferences: Preferences, kind: str, question: str, *, names: bool) -> None:
    order = preferences.in_order(kind)
    count = len(order)
    colours = LinearSegmentedColormap.from_list("rates", [style.VERMILLION, "white", style.BLUE])
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
                text, weight, colour = ("" if x == y else "\N{EN DASH}"), "normal", style.GREY
            else:
                clear = preferences.apart(kind, question, name, other)
                text, weight, colour = f"{100 * rate.value:.0f}", "bold" if clear else "normal", style.INK
            axes.text(x, y, text, ha="center", va="center", size=size, weight=weight, color=colour)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.xaxis.tick_top()
    places = [str(i + 1) for i in range(count)]
    axes.set_xticks(range(count), places)
    labels = [f"{name}  {place}" for name, place in zip(order, places, strict=True)]
    axes.set_yticks(range(count), labels if names else places)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{KINDS[kind]}: {question}", loc="left", weight="bold", pad=4)


_BARS = (("quality", style.BLUE, 1.0), ("alignment", style.GREEN, 0.55))
_BAR_LINE = 0.25  # inches for one system
_ABOVE, _BELOW, _RIGHT = 0.42, 0.34, 0.4  # inches around each panel; the values stand to its right
_LEGEND = 0.2


def plot_winrates(preferences: Preferences) -> Figure:
    """Win rates (Figures 5 and 6): a line of panels for each focus system, a column for each kind of rater."""
    kinds, focus = preferences.kinds, preferences.focus
    bars = (len(preferences.systems) - 1) * _BAR_LINE
    panel = bars + _ABOVE + _BELOW
    height = panel * len(focus) + _LEGEND
    figure = style.new_figure(height)
    width = (style.WIDTH - _NAMES - _RIGHT * len(kinds)) / len(kinds)
    for i, name in enumerate(focus):
        bottom = height - _LEGEND - panel * (i + 1) + _BELOW
        for k, kind in enumerate(kinds):
            axes = style.add_axes(figure, _NAMES + k * (width + _RIGHT), bottom, width, bars)
            _winrate_panel(axes, preferences, kind, name, names=k == 0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0)
    return figure


def _winrate_panel(axes: Axes, preferences: Preferences, kind: str, focus: str, *, names: bool) -> None:
    """Two bars for each rival, one for each question; a tie counts as half a win."""
    rivals = [name for name in preferences.systems if name != focus]
    for b, (question, colour, alpha) in enumerate(_BARS):
        label: str | None = question
        for y, rival in enumerate(rivals):
            at = y + (b - 0.5) * 0.38
            rate = preferences.rate(kind, question, focus, rival)
            if rate is None:
                axes.text(2, at, f"{question}: no votes", va="center", size=6.5, color=style.GREY)
                continue
            value = 100 * rate.value
            axes.barh(at, value, height=0.34, color=colour, alpha=alpha, label=label, zorder=2)
            label = None
            ends = [[100 * (rate.value - rate.low)], [100 * (rate.high - rate.value)]]
            axes.errorbar([value], [at], xerr=ends, fmt="none", ecolor=style.INK, elinewidth=0.8, zorder=3)
            axes.text(
                101.5, at, f"{value:.0f}", va="center", ha="left", size=7, color=style.INK, clip_on=False
            )
    axes.axvline(50, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=4)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(rivals) - 0.5, -0.5)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50%", "75", "100"])
    axes.set_yticks(range(len(rivals)), [f"over {rival}" for rival in rivals] if names else [])
    axes.tick_params(axis="y", length=0)
    style.add_grid(axes, "x")
    axes.set_title(f"{KINDS[kind]}: {focus} preferred", loc="left", weight="bold", x=0)
