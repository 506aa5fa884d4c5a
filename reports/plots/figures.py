"""Every figure of the report: its name, its page, how it is drawn, and its caption from reports/captions."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from reports.cells import Report
from reports.plots.ratings import plot_elo, plot_pairs, plot_winrates
from reports.plots.results import plot_ranks, plot_samples, plot_scatter, plot_steps
from reports.plots.style import save, styled
from reports.plots.training import plot_gap, plot_losses, read_curves
from reports.ratings import Preferences
from reports.samples import first_and_last

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
        drawn = [_draw(name, figure, folder, page="figures") for name, figure in figures.items()]
        for samples in montages:
            # The document has a sample page of its own.
            name = f"samples-{samples.where.steps}step"
            drawn.append(_draw(name, plot_samples(report, samples), folder, page=None, caption="samples"))
    return tuple(drawn)


def draw_ratings(preferences: Preferences, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the ratings into `folder` as PDF and PNG."""
    figures = {"winrates": plot_winrates, "elo": plot_elo, "pairs": plot_pairs}
    with styled():
        return tuple(_draw(name, plot(preferences), folder, page="ratings") for name, plot in figures.items())


def _draw(name: str, figure: Figure, folder: Path, page: Page | None, caption: str | None = None) -> Drawn:
    """Saves one figure. Snakemake's own report takes its caption from the same file."""
    text = files("reports").joinpath("captions", f"{caption or name}.rst").read_text(encoding="utf-8")
    return Drawn(text.strip(), *save(figure, folder, name), page=page)
