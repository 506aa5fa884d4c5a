"""The page of claims: what is written of each, and that a YAML alone adds one."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from add.config.resolve import Finding
from add.identity import METHOD
from eval.findings.contrasts import RunSpread, Variance
from eval.findings.store import add_results, read_store
from eval.metrics.protocol import protocol_id
from eval.result import Result
from reports.cells import Report, collect, summarise
from reports.findings import (
    COLUMNS,
    LARGEST_SHOWN,
    findings_note,
    page_lines,
    reaches,
    records,
    render_findings_csv,
    render_findings_json,
    steps_table,
)
from reports.layout import interval_note
from reports.plots.findings import plot_findings
from reports.plots.style import styled
from reports.study import ReportRow
from tests.support.report_fixture import result_of, study_of, write_results

SPREAD = {
    (m, 1, "coco"): RunSpread(Variance(v, 100.0), {}) for m, v in (("fid", 0.01**2), ("clip_score", 0.001**2))
}


def finding(metric: str, relation: str = "better", **more: Any) -> Finding:
    values: dict[str, Any] = {
        "part": "a",
        "claim": f"one is {relation}",
        "section": "section 1",
        "metric": metric,
        "steps": 1,
        "rows": ("one",),
        "relation": relation,
        "others": ("two",),
        "margin": None,
        "published": {"one": 20.0, "two": 25.0} if metric == "fid" else {},
        "place": "ablations/x.yaml:3",
    }
    return Finding(**{**values, **more})


def report(*findings: Finding, fid: tuple[float, float] = (30.0, 40.0), spread: bool = True) -> Report:
    study = replace(
        study_of((ReportRow("a", "Q", "one", "one", True), ReportRow("a", "Q", "two", "two", False))),
        findings=findings,
    )
    results: dict[str, tuple[Result, ...]] = {}
    for run, value in zip(("one", "two"), fid, strict=True):
        values = result_of(study, run, 0)
        for system in values["systems"]:
            if "fid" in system["metrics"]:
                system["metrics"]["fid"] |= {"value": value, "interval": [value - 1, value + 1]}
        results[run] = (Result.model_validate(values),)
    return summarise(study, results, None, SPREAD if spread else None)


def rows(made: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_findings_csv(made))))


def test_a_claim_about_fid_is_written_in_relative_terms():
    (row,) = rows(report(finding("fid")))
    assert tuple(row) == COLUMNS
    assert row["verdict"] == "reproduced"
    assert float(row["measured"]) == pytest.approx(30 / 40 - 1)
    assert float(row["published"]) == pytest.approx(20 / 25 - 1)
    half = 1.984 * 0.01 * math.sqrt(2)
    assert float(row["low"]) == pytest.approx(0.75 * math.exp(-half) - 1, abs=1e-4)
    assert (row["deciding_pair"], row["runs"], row["unit"]) == ("one; two", "1", "relative")
    assert float(row["margin"]) == pytest.approx(0.05)


def test_the_same_difference_contradicts_the_opposite_claim():
    (row,) = rows(report(finding("fid", "worse")))
    assert row["verdict"] == "contradicted"


def test_without_a_spread_between_runs_no_claim_is_judged():
    (row,) = rows(report(finding("fid"), spread=False))
    assert (row["verdict"], row["measured"]) == ("not tested", "")
    assert "No row has two different runs" in row["reason"]
    made = report(finding("fid"), finding("clip_score"), spread=False)
    assert {line["after"] for line in page_lines(made)} == {"(1)"}, "what all lines say is said once"
    assert findings_note(made).startswith("No claim is judged. (1) No row has two different runs")


def test_what_was_not_measured_and_what_is_one_run_is_said():
    made = report(finding("coverage"), finding("fid", others=("one",)))
    assert [row["reason"] for row in rows(made)] == [
        "coverage was not measured",
        "its rows are one run: their values are equal",
    ]
    assert [(line["verdict"], line["after"]) for line in page_lines(made)] == [
        ("not tested", "(1)"),
        ("not tested", "(2)"),
    ]
    assert "(2) its rows are one run" in findings_note(made)


def test_a_claim_about_what_has_a_prompt_set_of_its_own_is_judged_on_that_set():
    """The diversity within one prompt: breaks when such a claim is said not to have been measured."""
    made = report()
    study = replace(made.study, findings=(finding("vendi_score", "worse"), finding("fid")))
    results = {}
    for (run, (result,)), value in zip(made.results.items(), (1.5, 2.5), strict=True):
        values = result.values()
        protocol = {"metric": "vendi_score", "prompts": "diversity"}
        metric = {"value": value, "stderr": 0.01, "protocol": protocol_id(protocol)}
        values["protocols"][protocol_id(protocol)] = protocol
        values["systems"].append(
            {"steps": 1, "prompts": "diversity", "images": 8, "metrics": {"vendi_score": metric}}
        )
        results[run] = (Result.model_validate(values),)
    spread = {**SPREAD, ("vendi_score", 1, "diversity"): RunSpread(Variance(0.1**2, 100.0), {})}
    diverse, fid = rows(summarise(study, results, None, spread))
    assert (diverse["verdict"], float(diverse["measured"])) == ("reproduced", pytest.approx(-1.0))
    assert fid["verdict"] == "reproduced", "on the first set, as before"


def test_an_undecided_claim_says_how_many_more_runs_would_decide_it():
    made = report(finding("fid"), fid=(39.0, 40.0))
    (row,) = rows(made)
    assert row["verdict"] == "undecided"
    assert int(row["more_runs"]) >= 1
    assert int(row["more_runs"]) > 1
    assert page_lines(made)[0]["after"] == f"{row['more_runs']} more runs"
    assert float(row["detectable"]) > 0.02


def test_the_note_names_the_metrics_whose_brackets_lack_the_seed():
    """Breaks where one metric's known spread lets the page call every column's interval total."""
    made = report(finding("fid"))
    some = summarise(made.study, made.results, None, {("fid", 1, "coco"): SPREAD["fid", 1, "coco"]})
    note = interval_note(some)
    assert "Brackets: 95%, total." in note
    said = note.partition("Where no spread between runs is known they hold less")[2]
    assert "CLIP score: " in said
    assert "FID, four steps: " in said
    assert "FID: " not in said
    every = {m: RunSpread(Variance(1e-4, 100.0), {}) for m in all_measures(made)}
    assert "hold less" not in interval_note(summarise(made.study, made.results, None, every))
    assert "total" not in interval_note(report(finding("fid"), spread=False))


def all_measures(made: Report) -> set[tuple[str, int, str]]:
    return {
        (metric, system.steps, system.prompts)
        for (result,) in made.results.values()
        for system in result.systems
        for metric in system.metrics
    }


def test_the_json_holds_the_same_values():
    made = report(finding("fid"), finding("clip_score"))
    content = json.loads(render_findings_json(made))
    for record, row in zip(content["findings"], rows(made), strict=True):
        assert record["verdict"] == row["verdict"]
        assert record["p"] == pytest.approx(float(row["p"]), rel=1e-4)
    assert set(content["verdicts"]) >= {record["verdict"] for record in content["findings"]}


def test_a_lines_bar_is_drawn_to_its_metrics_reach_and_an_arrow_says_that_it_goes_on():
    wide = {("fid", 1, "coco"): RunSpread(Variance(0.5**2, 100.0), {})}
    study = replace(report().study, findings=(finding("fid"), finding("clip_score", others=("one",))))
    made = summarise(study, report().results, None, {**SPREAD, **wide})
    (record, untested), (line, other) = records(made), page_lines(made)
    assert untested["measured"] is None
    assert other["bar"] is None
    assert reaches([record]) == {"fid": LARGEST_SHOWN}
    assert record["high"] > LARGEST_SHOWN > -record["low"] / 2
    bar = line["bar"]
    assert bar["measured"] == pytest.approx(record["measured"] / LARGEST_SHOWN)
    assert bar["published"] == pytest.approx(-0.2 / LARGEST_SHOWN)
    assert bar["high"] == 1.0
    assert bar["beyond"] == [record["low"] < -LARGEST_SHOWN, True]


def test_the_page_prints_signs_percent_and_margins():
    made = report(finding("fid"), finding("clip_score"))
    line = page_lines(made)[0]
    assert line["measured"].startswith("\N{MINUS SIGN}25.0% [")
    assert line["published"] == "\N{MINUS SIGN}20.0%"
    assert "FID 5.0%; CLIP score 0.005" in findings_note(made)


@pytest.mark.parametrize("findings", [(), (finding("fid"), finding("clip_score"), finding("coverage"))])
def test_the_forest_has_a_panel_for_each_metric_that_was_tested(
    tmp_path: Path, findings: tuple[Finding, ...]
):
    with styled():
        figure = plot_findings(report(*findings))
        assert len(figure.axes) == (2 if findings else 0)
        figure.savefig(tmp_path / "forest.png")


@pytest.mark.parametrize(
    "claim", ["w" * 30, "A student has a lower FID by one step than a GAN without a start" * 3]
)
def test_a_long_claim_stays_within_the_figure(claim: str):
    with styled():
        figure = plot_findings(report(finding("fid", claim=claim), finding("fid", claim="short")))
        figure.draw_without_rendering()
        texts = [text for axes in figure.axes for text in axes.texts]
        first, second = (text.get_window_extent() for text in texts)
        assert first.x0 >= 0
        assert first.y0 > second.y1, "no line runs into the next"


def test_differences_by_other_numbers_of_steps_are_shown_and_change_no_verdict():
    spreads = SPREAD | {(metric, 4, sets): spread for (metric, _, sets), spread in SPREAD.items()}
    made = report(finding("coverage"), finding("fid"), finding("clip_score"))
    assert steps_table(made) is None, "nothing says how far runs by four steps spread"
    results = dict(made.results)
    other = results["two"][0].values()
    for system in other["systems"]:
        if system["steps"] == 4 and "fid" in system["metrics"]:
            system["metrics"]["fid"] |= {"value": 10.0, "interval": [9.0, 11.0]}
    results["two"] = (Result.model_validate(other),)
    shown = summarise(made.study, results, None, spreads)
    table = steps_table(shown)
    assert table is not None
    assert table["heads"] == ["one step", "four steps"]
    first, second = table["lines"]
    assert (first["number"], second["number"]) == ("2", "3"), "coverage was not measured"
    assert (first["tested"], first["cells"][0]) == ([True, False], page_lines(shown)[1]["measured"])
    (four,) = (s for s in results["one"][0].systems if s.steps == 4 and "fid" in s.metrics)
    assert first["cells"][1].startswith(f"{100 * (four.metrics['fid'].value / 10 - 1):+.1f}%")
    assert [a.verdict for a in shown.answers] == [a.verdict for a in made.answers]
    by_steps = json.loads(render_findings_json(shown))["by_steps"]
    assert set(by_steps) == {"1", "4"}
    assert by_steps["4"][1]["measured"] == pytest.approx(four.metrics["fid"].value / 10 - 1)
    assert "verdict" not in by_steps["4"][0]


def test_the_larger_studys_verdict_stands_beside_the_reports_own():
    made = report(finding("fid"), finding("clip_score"))
    assert {line["study"] for line in page_lines(made)} == {""}
    assert "Study:" not in findings_note(made)
    larger = report(finding("fid", "worse"), finding("clip_score"))
    shown = replace(made, replicated=larger.answers)
    assert [line["study"] for line in page_lines(shown)] == [answer.verdict for answer in larger.answers]
    first, second = rows(shown)
    assert (first["verdict"], first["study_verdict"], first["study_runs"]) == (
        "reproduced",
        "contradicted",
        "1",
    )
    assert second["study_verdict"] == larger.answers[1].verdict
    assert "Study: the verdict of the shipped study of 1 runs a row" in findings_note(shown)


def test_a_store_gives_the_larger_studys_answers(tmp_path: Path):
    study = replace(
        study_of((ReportRow("a", "Q", "one", "one", True), ReportRow("a", "Q", "two", "two", False))),
        findings=(finding("fid", rows=("one",), others=("two",)),),
    )
    write_results(study, tmp_path / "results", images=2)
    assert collect(study, tmp_path / "results").replicated == ()
    files = sorted((tmp_path / "results").rglob("result.json"))
    for k, file in enumerate(files):
        values = json.loads(file.read_text()) | {"seed": 100}
        values["provenance"]["train"]["method"] = METHOD
        files[k] = tmp_path / f"{k}.json"
        files[k].write_text(json.dumps(values))
    store = tmp_path / "store"
    _, refused = add_results(files, read_store(store), study.present)
    assert not refused
    (answer,) = collect(study, tmp_path / "results", store).replicated
    assert answer.finding == study.findings[0]
    assert answer.verdict == "not tested", "one run a row says nothing of how far runs spread"
