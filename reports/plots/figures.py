"""Every figure of the report: its name, its caption, its page, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reports.cells import Report
from reports.layout import steps_text
from reports.plots.ratings import plot_elo, plot_pairs, plot_winrates
from reports.plots.results import plot_ranks, plot_samples, plot_scatter, plot_steps
from reports.plots.style import save, styled
from reports.plots.training import plot_gap, plot_losses, read_curves
from reports.ratings import Preferences
from reports.samples import first_and_last

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MONTAGE_PROMPTS = 8

Page = Literal["figures", "ratings"]


@dataclass(frozen=True)
class Drawn:
    """A figure on disk, the document's page that shows it (None: none does), and its caption as plain text."""

    caption: str
    pdf: Path
    png: Path
    page: Page | None


def draw_figures(report: Report, results: Path, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the results into `folder` as PDF and PNG. Raises InputError where something is missing."""
    logs = read_curves(report, results)
    montages = first_and_last(report, results, MONTAGE_PROMPTS)
    metrics = report.metrics(report.first)
    other = "alignment" if "alignment" in metrics else "clip_score"
    with styled():
        figures = {"ranks": plot_ranks(report), "steps": plot_steps(report)}
        if other in metrics:
            figures["scatter"] = plot_scatter(report, other)
        figures |= {"gap": plot_gap(report, logs), "losses": plot_losses(report, logs)}
        drawn = _drawn(figures, folder, "figures")
        for samples in montages:
            # The document has a sample page of its own.
            name = f"samples-{samples.where.steps}step"
            caption = f"Samples at {steps_text(samples.where.steps)}: {SAMPLES}"
            drawn.append(Drawn(caption, *save(plot_samples(report, samples), folder, name), page=None))
    return tuple(drawn)


def draw_ratings(preferences: Preferences, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the ratings into `folder` as PDF and PNG."""
    with styled():
        figures = {
            "winrates": plot_winrates(preferences),
            "elo": plot_elo(preferences),
            "pairs": plot_pairs(preferences),
        }
        return tuple(_drawn(figures, folder, "ratings"))


def _drawn(figures: dict[str, Figure], folder: Path, page: Page) -> list[Drawn]:
    return [Drawn(CAPTIONS[name], *save(figure, folder, name), page=page) for name, figure in figures.items()]


CAPTIONS = {
    "ranks": (
        "The order of rows by one-step FID, published (left) and measured (right), best on top. Only ranks "
        "share an axis: the two FIDs stand under different protocols. Solid: same rank. Dashed: another rank. "
        "Blue: the shared default. Where intervals overlap, a change of rank is no finding."
    ),
    "steps": (
        "FID of every run by the number of student steps; lower is better. Whiskers show what Table 1 prints "
        "beside a value."
    ),
    "scatter": (
        "Alignment against FID, one mark a run; best is top left. Blue diamond: the shared default. Whiskers "
        "show what Table 1 prints beside a value."
    ),
    "gap": (
        "What the discriminator tells apart: mean logit of real minus generated images during training, "
        "smoothed by a running mean over a tenth of the log. Above zero the heads separate the two."
    ),
    "losses": (
        "Losses during training as logged, smoothed alike. Symmetric logarithmic axis, linear between -1 "
        "and 1. Heights of runs with different loss terms cannot be compared."
    ),
    "winrates": (
        "How often a system is preferred to each other one (the paper's Figures 5 and 6), with 95% intervals; ties "
        "count half. Right of the dashed line it is preferred more often than not."
    ),
    "elo": (
        "Rating against the time that an image takes (the paper's Figure 7). Discs: Bradley-Terry with 95% intervals. "
        "Diamonds: ELO as in the paper. Blue: the systems of the bars above. Dotted: the mean, 1000."
    ),
    "pairs": (
        "How often the system of a line is preferred to that of a column, in percent, ties half; best rated on top. "
        "Bold: the 95% interval leaves out 50. Blue: preferred; orange: not."
    ),
}
SAMPLES = "the same prompts and image seeds for every run, the first of the prompt set; nothing is picked."
