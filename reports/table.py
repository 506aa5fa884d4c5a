"""Makes the report: `python -m reports.table --scale config/mini.yaml --results results/mini --out reports`.

Writes table.csv, table.md, table.tex, table.pdf and figures/ below --out; same results, same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from add.config.load import BASELINE, load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.errors import refuses
from add.files import write_whole
from add.lock import only_writer
from reports.cells import Report, collect
from reports.document import write_document
from reports.findings import render_findings_csv, render_findings_json
from reports.plots.findings import plot_findings
from reports.plots.ratings import plot_elo, plot_pairs, plot_winrates
from reports.plots.results import plot_ranks, plot_samples, plot_scatter, plot_steps
from reports.plots.style import Drawn, save, styled
from reports.plots.training import plot_gap, plot_losses, plot_ratio, read_curves
from reports.ratings import Preferences, read_preferences
from reports.samples import first_and_last
from reports.study import ReportStudy, study_from_spec
from reports.text import render_csv, render_latex, render_markdown

MONTAGE_PROMPTS = 8


def make_report(study: ReportStudy, results: Path, out: Path, replication: Path | None = None) -> None:
    """Writes every output of the report for one scale's results (results/<scale>) below `out`.

    replication: the store of a larger study, by whose variance between runs few runs are judged.

    Raises:
        InputError: results are missing, stale or malformed, or cannot stand in one table. Nothing is written
            before all results are read and compared.
    """
    report = collect(study, results, replication)
    preferences = read_preferences(study, results)
    figures = draw_figures(report, results, out / "figures")
    if preferences is not None:
        figures += draw_ratings(preferences, out / "figures")
    write_document(report, results, figures, out / "table.pdf", preferences)
    write_whole(out / "table.csv", render_csv(report))
    write_whole(out / "table.md", render_markdown(report))
    write_whole(out / "table.tex", render_latex(report))
    write_findings(report, out)


def write_findings(report: Report, out: Path) -> None:
    """Writes findings.csv and findings.json below `out`."""
    write_whole(out / "findings.csv", render_findings_csv(report))
    write_whole(out / "findings.json", render_findings_json(report))


def draw_figures(report: Report, results: Path, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the results into `folder` as PDF and PNG. Raises InputError where something is missing."""
    logs = read_curves(report, results)
    montages = first_and_last(report, results, MONTAGE_PROMPTS)
    metrics = report.metrics(report.first)
    other = "alignment" if "alignment" in metrics else "clip_score"
    with styled():
        figures = {"ranks": plot_ranks(report), "steps": plot_steps(report)}
        forest = save(plot_findings(report), folder, "findings", "findings")
        if other in metrics:
            figures["scatter"] = plot_scatter(report, other)
        figures |= {"gap": plot_gap(report, logs), "losses": plot_losses(report, logs)}
        figures["ratio"] = plot_ratio(report, logs)
        drawn = [forest, *(save(figure, folder, name, "figures") for name, figure in figures.items())]
        for samples in montages:
            # The document has a sample page of its own.
            name = f"samples-{samples.where.steps}step"
            drawn.append(save(plot_samples(report, samples), folder, name, None, "samples"))
    return tuple(drawn)


def draw_ratings(preferences: Preferences, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the ratings into `folder` as PDF and PNG."""
    figures = {"winrates": plot_winrates, "elo": plot_elo, "pairs": plot_pairs}
    with styled():
        return tuple(save(plot(preferences), folder, name, "ratings") for name, plot in figures.items())


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Returns the exit status: 1, with the reason on stderr, where it refuses."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.table", description="Makes the report of a scale."
    )
    about = parser.add_mutually_exclusive_group(required=True)
    about.add_argument("--scale", type=Path, help="the scale's YAML, e.g. config/mini.yaml")
    about.add_argument("--study", metavar="JSON", help="what the workflow resolved, in place of YAML files")
    parser.add_argument("--ablations", type=Path, default=Path("ablations"), help="folder of ablation YAMLs")
    parser.add_argument("--results", type=Path, required=True, help="e.g. results/mini")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="where the report is written")
    text = "the store of a larger study, which says how far runs spread, e.g. replication/mini"
    parser.add_argument("--replication", type=Path, help=text)
    options = parser.parse_args(arguments)
    if options.study is not None:
        study = TypeAdapter(ReportStudy).validate_json(options.study)
    else:
        scale = load_scale(options.scale)
        baseline = load_baseline(options.ablations / f"{BASELINE}.yaml")
        table = resolve(scale, baseline, load_ablations(options.ablations))
        study = study_from_spec(scale, baseline, table)
    with only_writer(options.out):
        make_report(study, options.results, options.out, options.replication)


if __name__ == "__main__":
    sys.exit(main())
