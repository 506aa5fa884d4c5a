"""Figures of the training logs, one panel for each run: the logit gap of the discriminator heads, and the losses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator
from numpy.typing import NDArray

from add.errors import InputError
from reports.cells import Report
from reports.layout import plain_label
from reports.plots.style import BLUE, FAINT, GREEN, GREY, INK, VERMILLION, new_figure

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """One training log: step (n,), and each logged quantity (n,), NaN where a line lacks it."""

    step: Series
    values: dict[str, Series]


def read_curves(report: Report, results: Path) -> dict[tuple[str, int], Curves]:
    """The training log of every run and seed. Raises InputError naming what is missing or malformed."""
    return {key: read_log(path) for key, path in report.study.files(results, "train/log.jsonl").items()}


def read_log(path: Path) -> Curves:
    """One log.jsonl. Raises InputError with file and line where a line is not an object with a numeric step."""
    lines: list[dict[str, float]] = []
    try:
        whole = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from error
    for number, text in enumerate(whole.splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON: {error.msg}") from error
        if not isinstance(line, dict) or not isinstance(line.get("step"), int | float):
            raise InputError(f"{path}:{number}: not an object with a numeric 'step'")
        lines.append({key: value for key, value in line.items() if isinstance(value, int | float)})
    if not lines:
        raise InputError(path, "the training log is empty")
    names = dict.fromkeys(key for line in lines for key in line)
    values = {name: np.array([line.get(name, np.nan) for line in lines], dtype=np.float64) for name in names}
    return Curves(step=values.pop("step"), values=values)


def smooth(values: Series) -> Series:
    """A centred running mean over a tenth of the log, shorter at its ends; NaN is left out of each mean."""
    half = max(1, len(values) // 20)
    padded = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in padded])


Logs = Mapping[tuple[str, int], Curves]
_COLUMNS = 5
Dash = Literal["-", "--", ":"]
_LOSSES: tuple[tuple[str, str, str, Dash], ...] = (
    ("loss_g_adv", "generator, adversarial", BLUE, "-"),
    ("loss_d", "discriminator", VERMILLION, "--"),
    ("loss_distill", "distillation", GREEN, ":"),
)


def plot_gap(report: Report, logs: Logs) -> Figure:
    """Mean logit of real minus generated images, smoothed: the mean over heads, and single heads thin."""
    figure, panels = _grid(report, "logit gap, real minus generated")
    extremes = [0.0]
    for run, axes in panels.items():
        for seed in report.study.seeds:
            log = logs[run, seed]
            heads = [smooth(log.values[name]) for name in sorted(log.values) if name.startswith("gap_")]
            for head in heads:
                axes.plot(log.step, head, color=GREY, linewidth=0.4)
            if "gap" in log.values:
                mean = smooth(log.values["gap"])
                axes.plot(log.step, mean, color=BLUE, linewidth=1.3)
                extremes += [float(np.nanmin(heads or mean)), float(np.nanmax(heads or mean))]
            else:
                middle: Any = {"transform": axes.transAxes, "ha": "center", "va": "center"}
                axes.text(0.5, 0.7, "no discriminator", **middle, size=7, color=GREY)
    lowest, highest = min(extremes), max(extremes)
    if highest > lowest:
        margin = 0.05 * (highest - lowest)
        panels[report.study.runs[0]].set_ylim(lowest - margin, highest + margin)  # the others share it
    _legend(figure, ((BLUE, "-", 1.3, "mean over heads"), (GREY, "-", 0.5, "single heads")))
    return figure


def plot_losses(report: Report, logs: Logs) -> Figure:
    """The three losses as logged, smoothed; one symmetric logarithmic axis, linear within [-1, 1]."""
    figure, panels = _grid(report, "loss")
    for run, axes in panels.items():
        for seed in report.study.seeds:
            log = logs[run, seed]
            for name, _, colour, dash in _LOSSES:
                if name in log.values:
                    axes.plot(log.step, smooth(log.values[name]), color=colour, linestyle=dash)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1.0))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=1.0, subs=[2, 5]))
    _legend(figure, tuple((colour, dash, 1.1, title) for _, title, colour, dash in _LOSSES))
    return figure


def plot_ratio(report: Report, logs: Logs) -> Figure:
    """Gradient of the distillation loss in the student's output over that of the adversarial loss, smoothed."""
    figure, panels = _grid(report, "gradient of distillation over adversarial", line=1.0)
    for run, axes in panels.items():
        for seed in report.study.seeds:
            log = logs[run, seed]
            both = [log.values.get(name) for name in ("gradient_distill", "gradient_adversarial")]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = None if both[0] is None or both[1] is None else np.log10(both[0] / both[1])
            if ratio is None or not np.isfinite(ratio).any():
                middle: Any = {"transform": axes.transAxes, "ha": "center", "va": "center"}
                axes.text(0.5, 0.7, "one loss alone", **middle, size=7, color=GREY)
            else:
                axes.plot(log.step, 10 ** smooth(np.where(np.isfinite(ratio), ratio, np.nan)), color=BLUE)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    return figure


def _grid(report: Report, quantity: str, line: float = 0.0) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one titled panel for each run, with a line at `line`; all panels share their axes."""
    runs = report.study.runs
    lines = -(-len(runs) // _COLUMNS)
    figure = new_figure(height := 0.92 * lines + 0.6)
    edges = {"left": 0.065, "right": 0.995, "top": 1 - 0.42 / height, "bottom": 0.4 / height}
    grid = figure.add_gridspec(lines, _COLUMNS, **edges, wspace=0.12, hspace=0.45)
    panels: dict[str, Axes] = {}
    for i, run in enumerate(runs):
        first = panels.get(runs[0])
        axes = figure.add_subplot(grid[i // _COLUMNS, i % _COLUMNS], sharex=first, sharey=first)
        name = plain_label(report.study.name_of(run))
        axes.set_title(
            name if len(name) <= 30 else name[:29] + "\N{HORIZONTAL ELLIPSIS}",
            loc="left",
            size=7.0,
            weight="bold" if report.study.is_default(run) else "normal",
            pad=3,
        )
        axes.grid(True, color=FAINT, linewidth=0.4)
        axes.tick_params(labelsize=7, labelleft=i % _COLUMNS == 0, labelbottom=i + _COLUMNS >= len(runs))
        axes.axhline(line, color=GREY, linewidth=0.6)
        panels[run] = axes
    figure.supxlabel("training step", size=8.5, y=0.01)
    figure.supylabel(quantity, size=8.5, x=0.004)
    return figure, panels


def _legend(figure: Figure, entries: tuple[tuple[str, Dash, float, str], ...]) -> None:
    handles = [
        Line2D([], [], color=colour, linestyle=dash, linewidth=width, label=title)
        for colour, dash, width, title in entries
    ]
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), borderpad=0.1, labelcolor=INK)
