"""Every figure of the report: its name, its caption, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reports.cells import Report
from reports.plots.results import plot_ranks, plot_scatter, plot_steps
from reports.plots.samples import plot_samples
from reports.plots.style import save, styled
from reports.plots.training import plot_gap, plot_losses, read_curves
from reports.render.layout import steps_text
from reports.samples import read_samples

MONTAGE_PROMPTS = 8


@dataclass(frozen=True)
class Drawn:
    """A figure on disk. `caption` is plain text. The document has its own sample page and no montage."""

    name: str
    caption: str
    pdf: Path
    png: Path
    montage: bool = False


def draw_figures(report: Report, results: Path, folder: Path) -> tuple[Drawn, ...]:
    """Draws all figures into `folder` as PDF and PNG. Raises InputError where something is missing."""
    logs = read_curves(report, results)
    montages = {
        where: read_samples(report, results, where, _prompts_shown(report, where.prompts, where.steps))
        for where in (report.first, report.last)
    }
    other = "alignment" if "alignment" in report.metrics(report.first) else "clip_score"
    with styled():
        drawn = [
            Drawn("ranks", RANKS, *save(plot_ranks(report), folder, "ranks")),
            Drawn("steps", STEPS, *save(plot_steps(report), folder, "steps")),
        ]
        if other in report.metrics(report.first):
            drawn.append(Drawn("scatter", SCATTER, *save(plot_scatter(report, other), folder, "scatter")))
        drawn += [
            Drawn("gap", GAP, *save(plot_gap(report, logs), folder, "gap")),
            Drawn("losses", LOSSES, *save(plot_losses(report, logs), folder, "losses")),
        ]
        for where, samples in montages.items():
            name = f"samples-{where.steps}step"
            text = f"Samples at {steps_text(where.steps)}: {SAMPLES}"
            drawn.append(Drawn(name, text, *save(plot_samples(report, samples), folder, name), montage=True))
    return tuple(drawn)


def _prompts_shown(report: Report, prompts: str, steps: int) -> int:
    images = [
        report.measurements[run, where].images
        for run in report.study.runs
        for where in report.slices
        if (where.prompts, where.steps) == (prompts, steps)
    ]
    return min(MONTAGE_PROMPTS, *images)


RANKS = (
    "The order of rows by one-step FID, published (left) and measured (right), best on top. Only ranks "
    "share an axis: the two FIDs stand under different protocols. Solid: same rank. Dashed: another rank. "
    "Blue: the shared default. Where intervals overlap, a change of rank is no finding."
)
STEPS = (
    "FID of every run by the number of student steps; lower is better. Whiskers show what Table 1 prints "
    "beside a value."
)
SCATTER = (
    "Alignment against FID, one mark a run; best is top left. Blue diamond: the shared default. Whiskers "
    "show what Table 1 prints beside a value."
)
GAP = (
    "What the discriminator tells apart: mean logit of real minus generated images during training, "
    "smoothed by a running mean over a tenth of the log. Above zero the heads separate the two."
)
LOSSES = (
    "Losses during training as logged, smoothed alike. Symmetric logarithmic axis, linear between -1 "
    "and 1. Heights of runs with different loss terms cannot be compared."
)
SAMPLES = "the same prompts and image seeds for every run, the first of the prompt set; nothing is picked."
