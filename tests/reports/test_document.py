"""The typeset report: same bytes twice, its scale on every page, strings that are never markup."""

import csv
import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import Finding, resolve
from add.config.run import MetricName
from add.errors import REFUSED, InputError
from add.identity import METHOD
from eval.findings.store import PROTOCOLS, Key, record
from eval.metrics.catalogue import METRICS
from eval.result import Result
from reports.cells import collect
from reports.document import document_data, prepare
from reports.layout import STYLES, style_of
from reports.plots.results import plot_ranks, plot_scatter, plot_steps
from reports.plots.style import styled
from reports.study import ReportRow, ReportStudy, study_from_spec
from reports.table import main, make_replication_report, make_report
from reports.text import render_csv, render_latex, render_markdown
from tests.support.report_fixture import paper_study, result_of, study_of, write_results
from tests.support.specs import changed_scale

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "reports" / "document.typ"
NOTICE = "smoke scale: untrained networks, the numbers mean nothing"
MARKUP = '#panic("run") *b* $x$ `r` <l> @ref \\u{41} "q" // c #sys.inputs _i_ [x] = h'


def query(root: Path, selector: str) -> list:
    import typst

    return json.loads(typst.query(root / "document.typ", selector, root=root, ignore_system_fonts=True))


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The paper's table laid out for typst, without figures (their drawing is most of a report's time)."""
    folder = tmp_path_factory.mktemp("paper")
    study = paper_study(notice=NOTICE)
    write_results(study, folder / "results", images=2)
    root = folder / "root"
    root.mkdir()
    prepare(collect(study, folder / "results"), folder / "results", (), root)
    return root


def test_as_many_metrics_stand_beside_each_other_as_fit(tmp_path):
    """Ten metrics with intervals are wider than a page: a slice then has two tables, and no metric is lost."""
    study = study_of(
        (ReportRow("a", "Q", "one", "baseline", True), ReportRow("a", "Q", "two", "other", False))
    )
    write_results(study, tmp_path / "results", images=2)
    report = collect(study, tmp_path / "results")
    found = report.measurements["baseline", report.first].metrics["kid"]
    every = {name: replace(found) for name in METRICS}
    wide = {key: replace(each, metrics=every) for key, each in report.measurements.items()}
    tables = document_data(replace(report, measurements=wide))["measurements"]
    assert max(len(table["heads"]) for table in tables) <= 5
    first = [table for table in tables if table["title"] == tables[0]["title"]]
    assert [head for table in first for head in table["heads"]] == [title for title, _ in STYLES.values()]


def test_every_metric_is_known_under_one_name_everywhere() -> None:
    assert list(STYLES) == list(METRICS) == list(get_args(MetricName))
    assert [name for name in STYLES if style_of(name).lower] == ["fid", "kid", "cmmd"]


def test_the_whole_report_has_the_same_bytes_when_made_again_later(tmp_path):
    study = study_of(
        (ReportRow("a", "Q", "one", "baseline", True), ReportRow("a", "Q", "two", "other", False))
    )
    write_results(study, tmp_path / "results", images=2)
    make_report(study, tmp_path / "results", tmp_path / "one")
    made = time.time()
    while int(time.time()) == int(made):  # a second is the finest that a PDF's dates tell
        time.sleep(0.05)
    make_report(study, tmp_path / "results", tmp_path / "two")
    first, second = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*.*")}
        for out in ("one", "two")
    )
    assert first == second
    figures = (
        "findings",
        "ranks",
        "steps",
        "scatter",
        "gap",
        "losses",
        "ratio",
        "samples-1step",
        "samples-4step",
    )
    assert sorted(map(str, first)) == sorted(
        [f"table.{kind}" for kind in ("csv", "md", "pdf", "tex")]
        + [f"findings.{kind}" for kind in ("csv", "json")]
        + [f"figures/{name}.{kind}" for name in figures for kind in ("pdf", "png")]
    ), "and nothing partial is left"


def test_every_page_names_the_scale_and_its_notice(paper):
    heads = [found["value"] for found in query(paper, "<page-header>")]
    assert [head["page"] for head in heads] == list(range(1, len(heads) + 1))
    assert len(heads) >= 6
    assert {(head["scale"], head["notice"]) for head in heads} == {("fixture", NOTICE)}


def test_table_one_is_on_the_first_page_and_the_samples_on_one(paper):
    places = {found["value"]["what"]: found["value"]["page"] for found in query(paper, "<place>")}
    assert places["table"] == 1
    assert places["teaser"] == 1
    assert places["samples start"] == places["samples end"] == 2


def test_a_long_prompt_does_not_push_the_pages_over(tmp_path):
    study = paper_study(seeds=(0,))
    write_results(study, tmp_path / "results", images=6)
    for index in (tmp_path / "results").glob("*/seed0/samples/*/index.csv"):
        index.write_text(index.read_text().replace("a ", "a very very very " * 12))
    root = tmp_path / "root"
    root.mkdir()
    prepare(collect(study, tmp_path / "results"), tmp_path / "results", (), root)
    places = {found["value"]["what"]: found["value"]["page"] for found in query(root, "<place>")}
    assert places == {"table": 1, "teaser": 1, "samples start": 2, "samples end": 2}


def test_the_document_holds_every_cell_and_every_run(paper):
    data = json.loads((paper / "data.json").read_text())
    rows = [row for part in data["table"]["parts"] for row in part["rows"]]
    assert len(rows) == 22
    assert sum(row["default"] for row in rows) == 6
    assert all(len(row["cells"]) == len(data["table"]["columns"]) for row in rows)
    assert len(data["samples"]["rows"]) == 17
    assert [table["title"].split(",")[0] for table in data["measurements"]] == [
        "Prompt set “coco”",
        "Prompt set “coco”",
        "Prompt set “parti”",
        "Prompt set “parti”",
    ]
    for line in data["table"]["heads"]:
        assert sum(head["span"] for head in line) == len(data["table"]["columns"])


def test_what_users_write_is_text_and_never_markup(tmp_path):
    rows = (
        ReportRow("a", MARKUP, MARKUP, "baseline", True, 20.6, 0.3),
        ReportRow("a", MARKUP, "two", "other", False),
    )
    study = study_of(rows, notice=MARKUP, description=MARKUP, scale="scale_#x")
    write_results(study, tmp_path / "results", images=2)
    for index in (tmp_path / "results").glob("*/seed0/samples/*/index.csv"):
        lines = index.read_text().splitlines()
        lines[1] = '000000.png,0,"#panic(""prompt"") $y$ *z*",0,1000'
        index.write_text("\n".join(lines) + "\n")
    report = collect(study, tmp_path / "results")
    root = tmp_path / "root"
    root.mkdir()
    prepare(report, tmp_path / "results", (), root)
    # Typst stops at the first #panic, unknown variable or unclosed delimiter that it reads as markup.
    assert {found["value"]["notice"] for found in query(root, "<page-header>")} == {MARKUP}
    assert (root / "document.typ").read_text() == TEMPLATE.read_text(), "no string is written into the markup"
    with styled():
        for figure in (plot_ranks(report), plot_steps(report), plot_scatter(report, "alignment")):
            figure.draw_without_rendering()


def test_nothing_is_written_where_results_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"17 file\(s\)"):
        make_report(paper_study(), tmp_path / "results", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_repositorys_own_ablations_are_the_papers_table():
    study = resolved(ROOT / "ablations")
    paper = [row for row in study.rows if row.published_fid is not None]
    assert (len(paper), len({row.run for row in paper})) == (22, 17)
    assert [row.published_fid for row in paper] == [row.published_fid for row in paper_study().rows]
    assert [row.published_clip_score for row in paper] == [
        row.published_clip_score for row in paper_study().rows
    ]


def test_the_command_line_makes_the_report_of_a_real_scale(tmp_path, capsys):
    ablations = tmp_path / "ablations"
    ablations.mkdir()
    for name in ("baseline.yaml", "student_pretraining.yaml"):
        shutil.copy(ROOT / "ablations" / name, ablations / name)
    arguments = ["--scale", str(ROOT / "config" / "smoke.yaml"), "--ablations", str(ablations)]
    arguments += ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    assert main(arguments) == REFUSED
    assert "baseline/seed0/result.json" in capsys.readouterr().err
    write_results(resolved(ablations), tmp_path / "results", images=1)
    assert main(arguments) == 0
    assert (tmp_path / "out" / "table.pdf").read_bytes().startswith(b"%PDF")
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 1 + 4 * 2


def resolved(ablations: Path) -> ReportStudy:
    scale = load_scale(ROOT / "config" / "smoke.yaml")
    baseline = load_baseline(ablations / "baseline.yaml")
    return study_from_spec(scale, baseline, resolve(scale, baseline, load_ablations(ablations)))


def test_a_dead_discriminator_is_marked_in_every_form_of_the_table(paper: Path):
    data = json.loads((paper / "data.json").read_text())
    rows = {
        "".join(p["text"] for p in row["label"]): row["marks"] for row in data["table"]["parts"][0]["rows"]
    }
    assert rows == {"ViT-S DINOv1": "", "ViT-S DINOv2": "†", "ViT-L DINOv2": "", "ViT-L CLIP": "‡"}
    assert any("Double dagger" in note and "ViT-L CLIP" in note for note in data["notes"])
    assert data["diagnoses"]["heads"] == [
        *("ranked right", "logit gap", "heads above zero", "gradient ratio", "no gradient")
    ]
    line = next(row for row in data["diagnoses"]["rows"] if "CLIP" in str(row["label"]))
    assert line["cells"] == ["0.500", "0.200", "1.000", "3.000", "0%"]
    report = collect(paper_study(), paper.parent / "results")
    assert "| ViT-L CLIP ‡ |" in render_markdown(report)
    assert r"ViT-L CLIP$^\ddagger$" in render_latex(report)
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert {line["run"] for line in lines if line["heads_separate"] == "false"} == {"features-clip"}


def test_how_images_were_sampled_stands_in_the_report(paper: Path):
    data = json.loads((paper / "data.json").read_text())
    assert dict(data["sampling"])["4-step.timesteps"] == "999, 749, 499, 249"
    assert {"1-step.network_calls", "prompts cut off.coco-1step"} <= dict(data["sampling"]).keys()
    assert "Sampling" in [
        heading["body"]["text"] for heading in query(paper, "heading") if "text" in heading["body"]
    ]


def test_what_the_paper_does_not_state_is_never_called_published():
    scale, baseline = load_scale(ROOT / "config/mini.yaml"), load_baseline(ROOT / "ablations/baseline.yaml")
    study = study_from_spec(scale, baseline, resolve(scale, baseline, ()))
    assert dict(study.chosen)["loss.reduction"] == "positions"
    assert "loss.reduction" not in dict(study.published)
    assert dict(study.published)["loss.distillation_weight"] == "2.5"


def test_a_study_that_grows_is_typeset_from_its_store_alone(tmp_path):
    """Rows have different numbers of runs, one has none; there are no images and no logs."""
    rows = tuple(ReportRow("a", "Q", run, run, run == "one") for run in ("one", "two", "three", "four"))
    claim = Finding("a", "one is better", None, "fid", 1, ("one",), "better", ("two",), None, {}, "x.yaml:1")
    study = replace(study_of(rows, scale="mini"), findings=(claim,))
    protocols = {}
    for run, seeds in (("one", 16), ("two", 8), ("three", 2)):
        for seed in range(seeds):
            values = result_of(study, run, seed)
            values["provenance"]["train"]["method"] = METHOD
            result = Result.model_validate(values)
            protocols |= result.protocols
            file = Key.of(result).file(tmp_path / "store")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(record(result)))
    (tmp_path / "store" / PROTOCOLS).write_text(json.dumps(protocols))
    make_replication_report(study, tmp_path / "store", tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out/table.csv").open()))
    assert {row["row"]: row["runs"] for row in table} == {"one": "16", "two": "8", "three": "2"}
    assert all("total" in row["fid_covers"] for row in table if row["fid"])
    (finding,) = csv.DictReader((tmp_path / "out/findings.csv").open())
    assert finding["runs"] == "8"
    assert finding["verdict"] in ("undecided", "equivalent")
    text = (tmp_path / "out/table.md").read_text()
    assert "A study of 26 runs on 1 processor(s): an invented CPU. No run yet of (a) four." in text
    assert (tmp_path / "out/table.pdf").stat().st_size > 10_000
    with pytest.raises(InputError, match="holds no run of the present table"):
        make_replication_report(study, tmp_path / "none", tmp_path / "out")


def test_a_report_of_other_questions_does_not_call_itself_the_papers_table(tmp_path):
    titles = []
    ours = study_of(
        (ReportRow("a", "Q", "one", "baseline", True), ReportRow("a", "Q", "two", "other", False))
    )
    for name, study in (("paper", paper_study()), ("ours", ours)):
        write_results(study, tmp_path / name, images=2)
        titles.append(document_data(collect(study, tmp_path / name))["title"])
    assert "Table 1" in titles[0]
    assert "Table 1" not in titles[1]


def test_a_sub_tables_note_stands_once_below_the_table(tmp_path):
    rows = [ReportRow("a", "Q", name, name, name == "one", note="Heads differ.") for name in ("one", "two")]
    study = study_of((*rows, ReportRow("b", "P", "three", "three", False)))
    write_results(study, tmp_path / "results", images=2)
    notes = document_data(collect(study, tmp_path / "results"))["notes"]
    assert [note for note in notes if note.startswith(("(a)", "(b)"))] == ["(a) Heads differ."]


def test_a_note_of_an_ablations_file_reaches_the_report():
    scale, table = changed_scale("mini")
    baseline = load_baseline(ROOT / "ablations/baseline.yaml")
    rows = study_from_spec(scale, baseline, table).rows
    assert {row.part for row in rows if row.note is not None} == {"b"}
