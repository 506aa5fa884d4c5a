"""Makes the report: `python -m reports.table --scale config/mini.yaml --results results/mini --out reports`.

Writes table.csv, table.md, table.tex, table.pdf, findings.csv, findings.json, systems.csv, systems_categories.csv and
figures/ below --out, and with --explorer explorer.html; same results, same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from add.config.load import ABLATIONS, baseline_file, load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.errors import InputError, refuses
from add.files import write_whole
from add.lock import only_writer
from eval.findings.measured import processor_of
from eval.findings.store import CountedRuns, read_store
from reports.categories import CategoryScore, collect_categories, render_categories_csv
from reports.cells import Report, collect, summarise
from reports.document import write_document
from reports.explorer.listed import listed
from reports.explorer.page import write_explorer
from reports.findings import render_findings_csv, render_findings_json
from reports.layout import plain_label
from reports.plots.findings import plot_findings
from reports.plots.ratings import plot_elo, plot_pairs, plot_winrates
from reports.plots.results import plot_ranks, plot_samples, plot_scatter, plot_steps
from reports.plots.style import Drawn, save, styled
from reports.plots.systems import plot_plane, plot_systems
from reports.plots.training import plot_gap, plot_losses, plot_ratio, read_curves
from reports.ratings import Preferences, read_preferences
from reports.samples import first_and_last
from reports.study import ReportStudy, study_from_spec, unpacked
from reports.systems import SystemRow, collect_systems, read_times, render_systems_csv
from reports.text import render_csv, render_latex, render_markdown

MONTAGE_PROMPTS = 8


def make_report(
    study: ReportStudy, results: Path, out: Path, replication: Path | None = None, explorer: bool = False
) -> None:
    """Writes every output of the report for one scale's results (results/<scale>) below `out`.

    replication: the store of a larger study, by whose variance between runs few runs are judged. explorer: the page of
    all images too, which reads them, and what their prompts ask for.

    Raises:
        InputError: results are missing, stale or malformed, or cannot stand in one table. Nothing is written
            before all results are read and compared.
    """
    report = collect(study, results, replication)
    systems = collect_systems(report)
    categories = collect_categories(report, systems)
    preferences = read_preferences(study, results)
    figures = draw_figures(report, results, out / "figures")
    figures += draw_systems(systems, report.first.prompts, out / "figures")
    if preferences is not None:
        figures += draw_ratings(preferences, out / "figures")
    pdf = out / "table.pdf"
    write_document(
        report, results, figures, pdf, preferences, systems, categories=categories, explorer=explorer
    )
    write_texts(report, out)
    write_systems(study, systems, categories, out)
    if explorer:
        write_explorer(
            listed(report, systems, results),
            out / "explorer.html",
            scenes=Path(study.scenes) if study.scenes is not None else None,
            parti={name: Path(file) for name, file in study.parti.items()},
            notice=study.notice,
        )


def make_systems_report(
    study: ReportStudy, results: Path, out: Path, replication: Path | None = None
) -> None:
    """Writes systems.pdf, the CSVs of systems and their figures: the comparison alone, from the runs that it needs.

    Its claims are judged as a page of their own: Holm's rule is over these alone.

    Raises InputError as `make_report` does, and where the scale has no systems.
    """
    if not study.systems:
        raise InputError(f"scale {study.scale} names no systems, so there is nothing to compare")
    runs = {system.run for system in study.systems if system.run is not None}
    rows = tuple(row for row in study.rows if row.run in runs)
    findings = tuple(finding for finding in study.findings if finding.steps is None)
    report = collect(replace(study, rows=rows, findings=findings), results, replication)
    systems = collect_systems(report)
    figures = draw_systems(systems, report.first.prompts, out / "figures")
    categories = collect_categories(report, systems)
    write_document(report, results, figures, out / "systems.pdf", None, systems, True, categories)
    write_systems(study, systems, categories, out)


def make_replication_report(study: ReportStudy, replication: Path, out: Path) -> None:
    """The same of a study that grows: of the runs that are in its store, whatever their number a row.

    A row without a run is left out, and what needs images, logs, votes or other systems is not there. Raises InputError
    where no row has a run.
    """
    counted = read_store(replication).counted(study.present)
    there = counted.there
    if not there:
        reason = "holds no run of the present table; `addbench replication run` makes some"
        raise InputError(replication, f"{reason}. {counted.left_out_text}".rstrip())
    rows = tuple(row for row in study.rows if row.run in there)
    findings = tuple(finding for finding in study.findings if finding.steps is not None)
    shown = replace(
        study,
        rows=rows,
        focus=(),
        findings=findings,
        description=f"{study.description} {_size(study, counted)}",
    )
    report = summarise(shown, there, None, growing=True)
    write_document(report, None, draw_results(report, out / "figures"), out / "table.pdf")
    write_texts(report, out)


def _size(study: ReportStudy, counted: CountedRuns) -> str:
    results = counted.there
    runs = sum(map(len, results.values()))
    processors = sorted({processor_of(result) for found in results.values() for result in found})
    lacking = [plain_label(study.name_of(run)) for run in study.runs if run not in results]
    without = f" No run yet of {', '.join(lacking)}." if lacking else ""
    size = f"A study of {runs} runs on {len(processors)} processor(s): {', '.join(processors)}.{without}"
    return f"{size} {counted.left_out_text}".rstrip()


def write_texts(report: Report, out: Path) -> None:
    """Writes the table as text, and findings.csv and findings.json, below `out`."""
    write_whole(out / "table.csv", render_csv(report))
    write_whole(out / "table.md", render_markdown(report))
    write_whole(out / "table.tex", render_latex(report))
    write_whole(out / "findings.csv", render_findings_csv(report))
    write_whole(out / "findings.json", render_findings_json(report))


def write_systems(
    study: ReportStudy, systems: Sequence[SystemRow], categories: Sequence[CategoryScore], out: Path
) -> None:
    """Writes systems.csv, and systems_categories.csv where a prompt set has categories; nothing without systems."""
    if systems:
        write_whole(out / "systems.csv", render_systems_csv(systems, read_times(study)))
        if study.parti:
            write_whole(out / "systems_categories.csv", render_categories_csv(categories))


def draw_figures(report: Report, results: Path, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the results into `folder` as PDF and PNG. Raises InputError where something is missing."""
    logs = read_curves(report, results)
    montages = first_and_last(report, results, MONTAGE_PROMPTS)
    drawn = list(draw_results(report, folder))
    with styled():
        figures = {"gap": plot_gap(report, logs), "losses": plot_losses(report, logs)}
        figures["ratio"] = plot_ratio(report, logs)
        drawn += [save(figure, folder, name, "figures") for name, figure in figures.items()]
        for samples in montages:
            # The document has a sample page of its own.
            name = f"samples-{samples.where.steps}step"
            drawn.append(save(plot_samples(report, samples), folder, name, None, "samples"))
    return tuple(drawn)


def draw_results(report: Report, folder: Path) -> tuple[Drawn, ...]:
    """Draws what the numbers alone give into `folder`, as PDF and PNG."""
    metrics = report.metrics(report.first)
    other = "alignment" if "alignment" in metrics else "clip_score"
    with styled():
        figures = {"ranks": plot_ranks(report), "steps": plot_steps(report)}
        if other in metrics:
            figures["scatter"] = plot_scatter(report, other)
        return (
            save(plot_findings(report), folder, "findings", "findings"),
            *(save(figure, folder, name, "figures") for name, figure in figures.items()),
        )


def draw_systems(systems: Sequence[SystemRow], prompts: str, folder: Path) -> tuple[Drawn, ...]:
    """Draws the figures of the comparison of systems into `folder` as PDF and PNG; nothing without systems."""
    if not systems:
        return ()
    with styled():
        figures = {"systems": plot_systems(systems, prompts), "plane": plot_plane(systems, prompts)}
        return tuple(
            save(figure, folder, name, "systems") for name, figure in figures.items() if figure is not None
        )


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
    about.add_argument("--study", metavar="PACKED", help="what the workflow resolved, in place of YAML files")
    parser.add_argument("--ablations", type=Path, default=ABLATIONS, help="folder of ablation YAMLs")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--results", type=Path, help="e.g. results/mini")
    source.add_argument("--store", type=Path, help="the store of a study that grows, e.g. replication/mini")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="where the report is written")
    text = "the store of a larger study, which says how far runs spread, e.g. replication/mini"
    parser.add_argument("--replication", type=Path, help=text)
    text = "the comparison of systems alone, from the runs that it needs"
    parser.add_argument("--systems", action="store_true", help=text)
    parser.add_argument("--explorer", action="store_true", help="explorer.html too: all images, to look at")
    options = parser.parse_args(arguments)
    if options.study is not None:
        study = unpacked(options.study)
    else:
        scale = load_scale(options.scale)
        baseline = load_baseline(baseline_file(options.ablations))
        table = resolve(scale, baseline, load_ablations(options.ablations))
        study = study_from_spec(scale, baseline, table)
    with only_writer(options.out):
        if options.store is not None:
            make_replication_report(study, options.store, options.out)
        elif options.systems:
            make_systems_report(study, options.results, options.out, options.replication)
        else:
            make_report(study, options.results, options.out, options.replication, options.explorer)


if __name__ == "__main__":
    sys.exit(main())
