"""Figure: every pair of systems, how often the one of the line is preferred to the one of the column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.plot_style import BLUE, GREY, INK, VERMILLION, WIDTH, new_figure
from reports.ratings_data import KINDS, Preferences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = ("quality", "alignment")
_NAMES = 1.75  # inches for the systems' names
_ABOVE = 0.55  # inches for title and column numbers


def plot_pairs(preferences: Preferences) -> Figure:
    """One line of matrices a kind of rater, systems by rating; a column for each question."""
    count = len(preferences.systems)
    gap = 0.3
    side = min(2.45, 0.5 * count, (WIDTH - _NAMES - gap) / 2)
    height = (side + _ABOVE) * len(preferences.kinds) + 0.05
    figure = new_figure(height)
    for i, kind in enumerate(preferences.kinds):
        order = preferences.in_order(kind)
        for k, question in enumerate(_PANELS):
            left = (_NAMES + k * (side + gap)) / WIDTH
            bottom = (height - (side + _ABOVE) * (i + 1)) / height
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
