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
from reports.cells import collect
from reports.plots.figures import draw_figures, draw_ratings
from reports.ratings import read_preferences
from reports.render.document import write_document
from reports.render.text import render_csv, render_latex, render_markdown
from reports.study import ReportStudy, study_from_spec


def make_report(study: ReportStudy, results: Path, out: Path) -> None:
    """Writes every output of the report for one scale's results (results/<scale>) below `out`.

    Raises:
        InputError: results are missing, stale or malformed, or cannot stand in one table. Nothing is written
            before all results are read and compared.
    """
    report = collect(study, results)
    preferences = read_preferences(study, results)
    figures = draw_figures(report, results, out / "figures")
    if preferences is not None:
        figures += draw_ratings(preferences, out / "figures")
    write_document(report, results, figures, out / "table.pdf", preferences)
    for name, text in (
        ("table.csv", render_csv(report)),
        ("table.md", render_markdown(report)),
        ("table.tex", render_latex(report)),
    ):
        write_whole(out / name, text)


@refuses
def main(arguments: Sequence[str] | None = None) -> int:
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
    options = parser.parse_args(arguments)
    if options.study is not None:
        study = TypeAdapter(ReportStudy).validate_json(options.study)
    else:
        scale = load_scale(options.scale)
        baseline = load_baseline(options.ablations / f"{BASELINE}.yaml")
        table = resolve(scale, baseline, load_ablations(options.ablations))
        study = study_from_spec(scale, baseline, table)
    with only_writer(options.out):
        make_report(study, options.results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
