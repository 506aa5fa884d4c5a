"""The comparison of systems: figures with the intervals that belong to them, others' figures, the explorer."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from add.errors import InputError
from eval.result import read_result
from reports.cells import collect
from reports.explorer.listed import listed
from reports.findings import records, system_lines
from reports.study import ReportStudy, ReportSystem
from reports.systems import collect_systems, render_systems_csv
from reports.table import make_systems_report
from tests.reports.test_findings import finding
from tests.support.report_fixture import paper_study, write_results

PAPER = {"steps": 1, "source": "the paper's Table 2", "fid": 19.7, "clip_score": 0.326, "seconds": 0.09}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("systems") / "results"
    write_results(paper_study(), folder, images=6, ratings=False)
    return folder


def compared(results: Path) -> ReportStudy:
    """The paper's study with a student, the same student as another system's result, and published figures."""
    study = replace(paper_study(), focus=())
    run = study.runs[0]
    seeds = [results / run / f"seed{seed}" for seed in study.seeds]
    own = read_result(seeds[0] / "result.json").values()
    other = {k: v for k, v in own.items() if k not in ("run", "spec_hash")} | {
        "system": "copy",
        "label": "Copy",
    }
    file = results / "copy.json"
    file.write_text(json.dumps(other))
    samples = {"coco": (seeds[0] / "samples" / "coco-1step").as_posix()}
    return replace(
        study,
        systems=(
            ReportSystem("ADD", "ADD, 1 step", 1, run, tuple(str(s / "result.json") for s in seeds), samples),
            ReportSystem("Copy", "Copy, 1 step", 1, None, (str(file),), samples, elsewhere=PAPER),
            ReportSystem("ADD-M", "ADD-M, 1 step", 1, published=PAPER),
        ),
    )


def test_a_students_figures_are_the_tables_and_anothers_have_intervals_of_images_alone(results: Path):
    study = compared(results)
    report = collect(study, results)
    student, copy, published = collect_systems(report)
    table = report.estimates(report.first, "fid")[study.runs[0]]
    assert student.of("coco", "fid") == table
    measured = copy.of("coco", "fid")
    assert measured is not None
    assert measured.covers.startswith("images")
    assert published.of("coco", "fid") is None


def test_every_figure_is_in_the_csv_with_what_it_is_measured_by_or_who_published_it(results: Path):
    report = collect(compared(results), results)
    rows = list(csv.DictReader(io.StringIO(render_systems_csv(collect_systems(report)))))
    fids = {(row["system"], row["source"]): row["value"] for row in rows if row["metric"] == "fid"}
    protocols = {source for system, source in fids if system == "ADD"}
    assert fids["Copy", PAPER["source"]] == fids["ADD-M", PAPER["source"]] == "19.7"
    assert ("Copy", protocols.pop()) in fids, "one protocol, one column"
    assert {row["metric"] for row in rows if row["system"] == "ADD-M"} == {"fid", "clip_score", "seconds"}


def test_the_pages_are_made_of_the_runs_that_they_need_alone(results: Path, tmp_path: Path):
    study = compared(results)
    make_systems_report(study, results, tmp_path)
    assert (tmp_path / "systems.pdf").read_bytes().startswith(b"%PDF")
    first = (tmp_path / "systems.pdf").read_bytes()
    make_systems_report(study, results, tmp_path)
    assert (tmp_path / "systems.pdf").read_bytes() == first
    with pytest.raises(InputError, match="names no systems"):
        make_systems_report(replace(study, systems=()), results, tmp_path)


def test_a_result_of_other_steps_is_refused(results: Path):
    study = compared(results)
    wrong = replace(study.systems[1], steps=3)
    report = collect(replace(study, systems=(wrong,)), results)
    with pytest.raises(InputError, match=r"holds no figures by 3 step\(s\)"):
        collect_systems(report)


def test_the_explorer_lists_every_row_and_every_system(results: Path):
    study = compared(results)
    report = collect(study, results)
    entries = listed(report, collect_systems(report), results)
    assert len(entries) == len(study.rows) * len(report.slices) + 2
    (row,) = [e for e in entries if (e.system, e.group) == ("Copy", "systems")]
    value = report.estimates(report.first, "fid")[study.runs[0]].value
    assert row.cells[0].metric == "fid"
    assert row.cells[0].text.split()[0] != ""
    name = study.name_of(study.runs[0], full=True)
    first = next(e for e in entries if (e.system, e.steps, e.prompts) == (name, 1, "coco"))
    assert first.cells[0].text.split()[0] == f"{value:.1f}"


def test_claims_about_systems_stand_on_the_page_of_claims_and_beside_the_systems(
    results: Path, tmp_path: Path
):
    study = compared(results)
    samples = study.systems[1].samples
    untrained = []
    for name in ("Teacher", "Other"):
        values = json.loads((results / "copy.json").read_text()) | {"seed": None}
        file = results / f"{name}.json"
        file.write_text(json.dumps(values))
        untrained.append(ReportSystem(name, f"{name}, 1 step", 1, None, (str(file),), samples))
    told = replace(finding("fid", "equivalent"), steps=None, part="systems", published={})
    claims = (
        replace(told, rows=("Teacher, 1 step",), others=("Other, 1 step",)),
        replace(told, rows=("ADD, 1 step",), others=("Teacher, 1 step",)),
    )
    study = replace(study, systems=(*study.systems, *untrained), findings=claims)
    report = collect(study, results)
    assert [answer.verdict for answer in report.answers] == ["reproduced", "not tested"]
    first, second = records(report)
    assert (first["part"], first["steps"], first["rows"]) == ("systems", None, ["Teacher, 1 step"])
    assert "images of what has no training seed" in first["covers"]
    assert "No study says how far runs by 1 step(s) spread" in second["reason"]
    assert [line["number"] for line in system_lines(report)] == ["1", "2"]
    make_systems_report(study, results, tmp_path)
    assert (tmp_path / "systems.pdf").read_bytes().startswith(b"%PDF")
    entries = listed(report, collect_systems(report), results)
    (other,) = [e for e in entries if (e.system, e.group) == ("Other", "systems")]
    assert other.finding is not None
    assert other.finding.verdict == "reproduced"
