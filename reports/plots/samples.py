"""Figure: a montage of samples, rows are runs, columns are prompts with their captions on top."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reports.cells import Report
from reports.plots.style import PNG_DPI, WIDTH, new_figure
from reports.render.layout import plain_label
from reports.samples import ShownSamples, tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = 1.55  # inches for the runs' names
_CAPTIONS = 0.8  # inches for the prompts
# One tile and its gap in pixels of the PNG, so that no pixel of a small sample is resampled.
_TILE, _PITCH = 192, 204
_CELL = _PITCH / PNG_DPI


def plot_samples(report: Report, samples: ShownSamples) -> Figure:
    """One montage: same prompts and image seeds in every row."""
    runs, prompts = report.study.runs, samples.prompts
    height = _CAPTIONS + _CELL * len(runs)
    figure = new_figure(height)
    for column, prompt in enumerate(prompts):
        lines = textwrap.wrap(prompt, int(_CELL / 0.049))
        figure.text(
            (_LABELS + _CELL * column + 0.5 * _TILE / PNG_DPI) / WIDTH,
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
            1 - (_CAPTIONS + _CELL * line + 0.5 * _TILE / PNG_DPI) / height,
            "\n".join(textwrap.wrap(plain_label(report.study.name_of(run)), 27)),
            va="center",
            size=7.5,
            weight="bold" if report.study.is_default(run) else "normal",
        )
    across, down = _CELL * len(prompts), _CELL * len(runs)
    axes = figure.add_axes((_LABELS / WIDTH, 0, across / WIDTH, down / height))
    axes.imshow(montage(report, samples), aspect="auto")
    axes.set_axis_off()
    return figure


def montage(report: Report, samples: ShownSamples) -> NDArray[np.uint8]:
    """All tiles on white, (runs x 204, prompts x 204, 3) uint8; a tile lies top left in its square."""
    runs = report.study.runs
    canvas = np.full((_PITCH * len(runs), _PITCH * len(samples.prompts), 3), 255, dtype=np.uint8)
    for line, run in enumerate(runs):
        for column, path in enumerate(samples.tiles[run]):
            pixels = np.asarray(tile(path, _TILE))
            top, left = _PITCH * line, _PITCH * column
            canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas
