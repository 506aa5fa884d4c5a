"""What all figures share: size, type, a colour-blind-safe palette, files without dates, labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.optimize import isotonic_regression

from add.errors import InputError
from reports.cells import Estimate

Page = Literal["figures", "ratings", "findings", "systems"]

# The report's text width (inches), so that type is set at its nominal size.
WIDTH = 7.0
PNG_DPI = 300

# Okabe and Ito's palette, distinguishable under the common forms of colour blindness and in grey.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
INK = "#222222"
GREY = "#8A8A8A"
FAINT = "#DDDDDD"

_SETTINGS: Any = {
    "font.family": "STIXGeneral",
    "font.size": 8.5,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.5,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8.0),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.minor.width", "ytick.minor.width"), 0.4),
    **dict.fromkeys(("legend.frameon", "text.parse_math", "axes.spines.top", "axes.spines.right"), False),
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,  # TrueType, not outlines: text stays text
    "image.interpolation": "none",
    "image.composite_image": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib with the report's style; the user's own matplotlibrc has no say."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float) -> Figure:
    """An empty figure of the text's width, drawn by Agg; the figure belongs to the caller alone."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in the figure, all in inches."""
    across, up = figure.get_figwidth(), figure.get_figheight()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def stacked(count: int, height: float, left: float, width: float) -> tuple[Figure, list[Axes]]:
    """A figure and the axes of its `count` panels, top first; each panel is `height` inches high.

    left, width: of the axes, as fractions of the figure's width; the right margin is for `label_points`.
    """
    total = height * count
    figure = new_figure(total)
    bottoms = [(total - height * (i + 1) + 0.45) / total for i in range(count)]
    return figure, [figure.add_axes((left, bottom, width, (height - 0.75) / total)) for bottom in bottoms]


def add_grid(axes: Axes, which: Literal["x", "both"] = "both") -> None:
    """Faint grid lines behind the data."""
    axes.grid(True, axis=which, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


@dataclass(frozen=True)
class Drawn:
    """A figure on disk, the document's page that shows it (None: none does), and its caption as plain text."""

    caption: str
    pdf: Path
    png: Path
    page: Page | None


def save(figure: Figure, folder: Path, name: str, page: Page | None, caption: str = "") -> Drawn:
    """Writes NAME.pdf and NAME.png (300 dpi) without dates: the same data give the same bytes.

    caption: the name of its file below reports/captions, if not NAME; Snakemake's own report takes it from there too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pdf, png = folder / f"{name}.pdf", folder / f"{name}.png"
    figure.savefig(pdf, metadata={"CreationDate": None})
    figure.savefig(png, dpi=PNG_DPI, metadata={"Software": None})
    text = files("reports").joinpath("captions", f"{caption or name}.rst").read_text(encoding="utf-8")
    return Drawn(text.strip(), pdf, png, page)


def whiskers(estimate: Estimate) -> tuple[float, float]:
    """Lengths below and above the value, to the ends of its interval."""
    if estimate.low is None or estimate.high is None:
        return 0.0, 0.0
    return max(0.0, estimate.value - estimate.low), max(0.0, estimate.high - estimate.value)


def log_if_wide(axes: Axes, values: Sequence[float]) -> str:
    """Makes the x axis logarithmic, with plain labels, if its values are positive and span a factor of 8.

    Returns what to add to the axis title.
    """
    if min(values) <= 0 or max(values) / min(values) < 8:
        return ""
    logarithmic(axes, "x")
    return " (logarithmic)"


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with plain labels."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


_APART = 0.15  # inches between two labels' centres


@dataclass(frozen=True)
class PointLabel:
    """The name of the point (x, y), in data units; `marked` ones are blue."""

    text: str
    x: float
    y: float
    marked: bool


def label_points(
    axes: Axes, labels: Sequence[PointLabel], *, lowest: float = -0.02, lines_below: int = 0
) -> None:
    """Writes `labels` beside the axes in the order of their points' heights.

    lowest: where the margin ends, as a fraction of the axes' height. The last label stays above `lines_below` lines
    of other text that end there. Raises InputError where a point is not finite.
    """
    if wrong := [label.text for label in labels if not math.isfinite(label.x + label.y)]:
        raise InputError(wrong[0], "its value is not finite")
    figure = axes.get_figure(root=True)
    assert figure is not None  # for mypy: these axes were made in a figure
    axes.autoscale_view()  # matplotlib scales when it draws, too late for positions taken here
    box = axes.get_window_extent()
    heights = [float((axes.transData.transform((at.x, at.y))[1] - box.y0) / box.height) for at in labels]
    gap = _APART * figure.dpi / box.height
    low = min(0.5, lowest + gap * (lines_below + 1)) if lines_below else lowest
    line: Any = {"arrowstyle": "-", "linewidth": 0.35, "shrinkA": 0, "shrinkB": 3, "relpos": (0.0, 0.5)}
    for label, height in zip(labels, spread_out(heights, gap, low, 1.02), strict=True):
        axes.annotate(
            label.text,
            xy=(label.x, label.y),
            xytext=(1.05, height),
            textcoords="axes fraction",
            ha="left",
            va="center",
            size=7.5,
            color=BLUE if label.marked else INK,
            annotation_clip=False,
            arrowprops=line | {"color": BLUE if label.marked else GREY},
        )


def spread_out(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions moved as little as needed (least squares) to lie `gap` apart within [low, high], order kept.

    If they cannot all fit, they are spread evenly over the range.
    """
    if not positions:
        return []
    order = np.argsort(positions, kind="stable")
    gap = min(gap, (high - low) / max(1, len(order) - 1))
    # Less the distance that each must keep to the first, the positions only need to be in order.
    steps = gap * np.arange(len(order))
    moved = isotonic_regression(np.asarray(positions)[order] - steps).x
    placed = np.empty(len(order))
    placed[order] = np.clip(moved, low, high - steps[-1]) + steps
    return list(placed.tolist())
