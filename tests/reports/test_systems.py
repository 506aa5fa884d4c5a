"""The comparison of systems: figures with the intervals that belong to them, others' figures, the explorer."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import typst

from add.errors import InputError
from eval.findings.contrasts import RunSpread, Variance
from eval.result import read_result
from reports.cells import collect
from reports.document import prepare
from reports.explorer.listed import listed
from reports.findings import records, system_lines
from reports.layout import plain_label
from reports.plots.systems import plot_plane, plot_systems
from reports.study import ReportStudy, ReportSystem
from reports.systems import collect_systems, read_times, render_systems_csv, systems_data
from reports.table import draw_systems, make_systems_report
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


def test_a_students_figures_are_the_tables_and_a_single_seed_needs_another_study_for_its_total(results: Path):
    study = compared(results)
    report = collect(study, results)
    student, copy, published = collect_systems(report)
    table = report.estimates(report.first, "fid")[study.runs[0]]
    assert student.of("coco", "fid") == table
    measured = copy.of("coco", "fid")
    assert measured is not None
    assert measured.covers.startswith("images")
    spreads = {("fid", 1, "coco"): RunSpread(Variance(0.1**2, 1e9), {})}
    total = collect_systems(replace(report, comparable_spreads=spreads))[1].of("coco", "fid")
    assert total is not None
    assert total.covers.startswith("total: images")
    assert total.high == pytest.approx(total.value * math.exp(1.96 * 0.1), rel=0.05)
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
    assert first.cells[0].text.endswith(", 6 images"), "rows and systems may be measured on unequal numbers"


def test_the_plane_has_a_mark_for_each_system_whose_two_figures_were_measured(results: Path):
    report = collect(compared(results), results)
    rows = collect_systems(report)
    assert plot_plane(rows, "coco") is None, "no diversity was measured"
    fid, aligned = rows[0].of("coco", "fid"), rows[0].of("coco", "alignment")
    assert fid is not None
    assert aligned is not None
    whole = {"fid": fid, "alignment": aligned, "coverage": replace(fid, value=0.5, low=0.4, high=0.7)}
    other = {"fid": fid, "coverage": replace(fid, value=0.25, low=None, high=None)}
    shown = [
        replace(row, estimates={"coco": found}) for row, found in zip(rows, (whole, other), strict=False)
    ]
    figure = plot_plane([*shown, rows[2]], "coco")
    assert figure is not None
    above, below = figure.axes
    names = [[text.get_text() for text in axes.texts] for axes in (above, below)]
    assert names == [["ADD, 1 step", "Copy, 1 step"], ["ADD, 1 step"]]
    marks = [np.asarray(line.get_xydata()).tolist() for line in above.lines if line.get_marker() == "o"]
    assert marks == [[[0.5, fid.value]], [[0.25, fid.value]]]
    (mark,) = [np.asarray(line.get_xydata()).tolist() for line in below.lines if line.get_marker() == "o"]
    assert mark == [[0.5, aligned.value]]


def times_of(label: str, file: Path) -> None:
    """A timing.json in which one system was timed."""

    def spread(median: float) -> dict[str, float]:
        return {"median": median, "lower": median * 0.9, "upper": median * 1.2}

    best = {"batch": 4, "seconds": spread(0.8), "images_per_second": 5.0}
    timed = {
        "asked": {"label": label, "steps": 1, "path": "anywhere"},
        "timesteps": [999.0],
        "network_calls": 1,
        "image": spread(0.5),
        "denoiser": spread(0.25),
        "batches": [best],
        "best": best,
        "out_of_memory": None,
        "too_long": None,
        "peak_bytes": 3 * 2**20,
    }
    how = {"batches": [1, 4], "warm_up": 1, "repeats": 3, "longest": 2.0}
    whole = {"schema": 1, "prompt": "a", "timing": how, "peak_memory": "resident", "systems": [timed]}
    whole |= {"hardware": {"processor": "a CPU", "threads": 2}, "versions": {}, "commit": None}
    file.write_text(json.dumps(whole))


def test_times_are_of_the_one_run_that_timed_all_and_say_on_what(results: Path, tmp_path: Path):
    times_of("Copy, 1 step", tmp_path / "timing.json")
    study = replace(compared(results), timing=str(tmp_path / "timing.json"))
    report = collect(study, results)
    student, copy, _ = rows = collect_systems(report)
    assert student.seconds is None, "what was sampled in batches stands beside no time of one call"
    assert copy.seconds is not None
    assert copy.seconds.median == 0.5
    assert copy.seconds.upper == pytest.approx(0.6)
    data = systems_data(report, rows, tmp_path)
    assert data is not None
    (line,) = data["times"]["rows"]
    assert (line["label"], line["throughput"], line["batch"], line["memory"]) == (
        "Copy, 1 step",
        "5",
        "4",
        "3",
    )
    assert line["denoiser"]["spread"] == "[0.225, 0.3]"
    assert "a CPU, 2 threads" in data["times"]["notes"][0]
    written = list(csv.DictReader(io.StringIO(render_systems_csv(rows, read_times(study)))))
    found = {row["metric"]: row for row in written if row["source"] == "measured on a CPU, 2 threads"}
    assert {name: float(row["value"]) for name, row in found.items()} == {
        "seconds_at_batch_1": 0.5,
        "denoiser_seconds_at_batch_1": 0.25,
        "images_per_second": 5,
        "best_batch": 4,
        "peak_bytes": 3 * 2**20,
    }
    assert not any(row["metric"] == "seconds_per_image" for row in written)
    figure = plot_systems(rows, "coco")
    assert [text.get_text() for text in figure.axes[1].texts] == ["Copy, 1 step"]
    assert figure.axes[1].get_xlabel().startswith("seconds for one image, at batch 1")


def test_the_diversity_within_one_prompt_comes_from_its_own_prompt_set(results: Path, tmp_path: Path):
    report = collect(compared(results), results)
    rows = collect_systems(report)
    fid = rows[0].of("coco", "fid")
    assert fid is not None
    within = {"diversity": {"vendi_score": replace(fid, value=1.5, low=1.25, high=1.75)}}
    shown = [replace(rows[0], estimates={**rows[0].estimates, **within}), *rows[1:]]
    data = systems_data(report, shown, tmp_path)
    assert data is not None
    assert data["heads"][-1].startswith("Vendi score")
    assert [row["cells"][-1]["value"] for row in data["rows"]] == ["1.50", "\N{EN DASH}", "\N{EN DASH}"]
    figure = plot_plane(shown, "coco")
    assert figure is not None
    (axes,) = figure.axes
    (mark,) = [np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_marker() == "o"]
    assert mark[0][0] == 1.5
    assert "Vendi" in axes.get_xlabel()


def test_many_systems_and_their_figures_stay_on_their_pages(results: Path, tmp_path: Path):
    """Breaks when a figure with a line for each system leaves its caption below the page, or one is left out."""
    study = compared(results)
    copies = [replace(study.systems[1], name=f"Copy {k}", label=f"Copy {k}, 1 step") for k in range(45)]
    report = collect(replace(study, systems=tuple(copies)), results)
    rows = collect_systems(report)
    drawn = draw_systems(rows, "coco", tmp_path / "figures")
    prepare(report, results, drawn, tmp_path, systems=rows, only_systems=True)
    found = json.loads(typst.query(tmp_path / "document.typ", "<caption>", root=tmp_path))
    captions = [each["value"] for each in found]
    assert len(captions) == len(drawn) > 0
    assert all(each["under"] < each["most"] for each in captions)
    assert len(json.loads((tmp_path / "data.json").read_text())["systems"]["grid"]["rows"]) == 45


def test_cells_and_systems_link_to_their_images_in_the_explorer(results: Path, tmp_path: Path):
    """Breaks when the explorer does not know a name that the document links to, or a PDF has links to no file."""
    study = compared(results)
    report = collect(study, results)
    rows = collect_systems(report)
    prepare(report, results, (), tmp_path, systems=rows, explorer=True)
    query = typst.query(tmp_path / "document.typ", "link", root=tmp_path, ignore_system_fonts=True)
    targets = {found["dest"] for found in json.loads(query)}
    known = {(entry.prompts, f"{entry.system}@{entry.steps}") for entry in listed(report, rows, results)}
    shown = set()
    for target in targets:
        page, fragment = target.split("#")
        assert page == "./explorer.html"
        parts = dict(part.split("=") for part in fragment.split("&"))
        assert set(parts) == {"prompts", "systems"}
        names = [(parts["prompts"], unquote(name)) for name in parts["systems"].split(",")]
        assert set(names) <= known
        shown.add(names[-1])
    assert {("coco", "ADD@1"), ("coco", "Copy@1"), ("coco", "default@1")} <= shown
    table = {("coco", f"{study.name_of(run, full=True)}@{k}") for run in study.runs for k in (1, 4)}
    assert {(prompts, plain_label(name)) for prompts, name in table} <= shown
    prepare(report, results, (), tmp_path, systems=rows)
    assert json.loads(typst.query(tmp_path / "document.typ", "link", root=tmp_path)) == []


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
