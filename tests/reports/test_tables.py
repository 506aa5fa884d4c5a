"""The table as CSV, Markdown and LaTeX: golden text, and labels that try to break out."""

import csv
import io
import math
import re

import pytest

from reports.cells import collect
from reports.layout import reading_notes, split_label, table_one
from reports.study import ReportRow
from reports.text import (
    escape_latex,
    escape_markdown,
    latex_label,
    render_csv,
    render_latex,
    render_markdown,
)
from tests.support.report_fixture import paper_study, study_of, write_results

NASTY = (
    r"\input{/etc/passwd} & 100% $x$ #1 a_b^c ~ {x} | <b>`code`</b> [a](b) *bold* "
    '\n| second line\\\\ \\end{tabular} "'
)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    results = tmp_path_factory.mktemp("paper")
    study = paper_study()
    write_results(study, results)
    return collect(study, results)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    results = tmp_path_factory.mktemp("nasty")
    rows = (
        ReportRow("a", NASTY, NASTY, "baseline", True, 20.6, 0.319),
        ReportRow("a", NASTY, "# 1. plain", "other", False),
    )
    study = study_of(rows, notice=NASTY, description=NASTY)
    write_results(study, results)
    return collect(study, results)


def test_csv_golden(paper):
    lines = render_csv(paper).splitlines()
    assert lines[0] == (
        "part,question,row,default,run,steps,prompts,"
        "fid,fid_low,fid_high,fid_covers,fid_seed_sd,"
        "kid,kid_low,kid_high,kid_covers,kid_seed_sd,"
        "clip_score,clip_score_low,clip_score_high,clip_score_covers,clip_score_seed_sd,clip_stderr,"
        "alignment,alignment_low,alignment_high,alignment_covers,alignment_seed_sd,"
        "alignment_background,alignment_colour_0,alignment_colour_1,alignment_layout,"
        "alignment_shape_0,alignment_shape_1,alignment_size_0,alignment_size_1,"
        "published_fid,published_clip_score,heads_separate,runs,images,"
        "fid_protocol,kid_protocol,clip_score_protocol,alignment_protocol"
    )
    row = next(csv.DictReader(io.StringIO(render_csv(paper))))
    assert (row["part"], row["row"], row["default"], row["run"]) == (
        "a",
        "ViT-S DINOv1",
        "false",
        "features-dinov1",
    )
    assert row["fid"] == "348.633"
    assert row["fid_low"] == "338.174"
    assert row["fid_high"] == "359.092"
    assert row["fid_covers"] == "images (influence function, 95%)"
    assert (row["published_fid"], row["published_clip_score"]) == ("21.5", "0.312")
    assert (row["runs"], row["images"], row["fid_seed_sd"]) == ("1", "8", "")


def test_csv_has_one_line_a_cell_and_slice_and_one_protocol_a_column(paper):
    rows = list(csv.DictReader(io.StringIO(render_csv(paper))))
    assert len(rows) == 22 * 4
    for steps, prompts in (("1", "coco"), ("4", "coco"), ("1", "parti")):
        column = [row for row in rows if (row["steps"], row["prompts"]) == (steps, prompts)]
        assert len(column) == 22
        assert len({row["clip_score_protocol"] for row in column}) == 1


def test_published_values_stand_only_where_they_were_published(paper):
    rows = list(csv.DictReader(io.StringIO(render_csv(paper))))
    with_published = {(row["steps"], row["prompts"]) for row in rows if row["published_fid"]}
    assert with_published == {("1", "coco")}
    assert all(not row["fid"] for row in rows if row["prompts"] == "parti"), "no FID without a reference"


def test_a_default_is_one_run_with_the_same_numbers_in_every_part(paper):
    rows = [row for row in csv.DictReader(io.StringIO(render_csv(paper))) if row["default"] == "true"]
    first = [row for row in rows if (row["steps"], row["prompts"]) == ("1", "coco")]
    assert len(first) == 6
    assert len({(row["run"], row["fid"], row["clip_score"]) for row in first}) == 1


def test_measured_and_published_are_never_one_column(paper):
    for column in table_one(paper).columns:
        cells = [
            row[table_one(paper).columns.index(column)] for p in table_one(paper).parts for row in p.cells
        ]
        assert all(bool(cell.spread) == (column.where is not None) for cell in cells)


def test_markdown_lays_out_six_sub_tables(paper):
    text = render_markdown(paper)
    assert len(re.findall(r"^## \([a-f]\)", text, re.MULTILINE)) == 6
    assert len(re.findall(r"^\| [^-| ]", text, re.MULTILINE)) == 22
    assert "| ViT-S DINOv2 † | 349.8 [339.3, 360.3] | 20.6 | 0.824" in text
    assert "L\\_adv" in text


def test_latex_lays_out_one_booktabs_table(paper):
    text = render_latex(paper)
    assert text.count("\\midrule") == 6
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    assert len([line for line in body.splitlines() if line.endswith(r"\\")]) == 22 + 6
    assert r"\textbf{" not in text, "with one run a row no test supports a best one"
    assert text.isascii(), "pdflatex without further packages sets it"


def test_markdown_escapes_what_users_write(nasty):
    text = render_markdown(nasty)
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 10, "nine cells, whatever a label holds"
    assert "<b>" not in text.replace("\\<b", "")
    assert "\n| second" not in text
    assert escape_markdown("# x") == "\\# x"
    assert escape_markdown("1. x") == "1\\. x"


def test_latex_escapes_what_users_write(nasty):
    text = render_latex(nasty)
    assert r"\input{/etc" not in text
    assert r"\textbackslash{}input\{/etc/passwd\} \& 100\% \$x\$ \#1" in text
    assert text.count(r"\end{tabular}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {8}
    assert not re.search(r"(?<!\\)%(?! Needs)", text.replace("{!}{%", "{!}{")), "no comment but the first"


def test_latex_escape_leaves_no_active_character():
    active = "\\{}$&#%_^~"
    stripped = re.sub(r"\\(text\w+\{\}|[{}$&#%_])", "", escape_latex(active))
    assert stripped == ""


def test_loss_names_are_set_as_symbols_and_nothing_else_is():
    assert [(p.text, p.index) for p in split_label("L_adv + lambda L_distill,exp")] == [
        ("L", False),
        ("adv", True),
        (" + λ ", False),
        ("L", False),
        ("distill,exp", True),
    ]
    assert [p.text for p in split_label("vit_s_dinov2 lambdas")] == ["vit_s_dinov2 lambdas"]
    assert latex_label("L_adv") == r"$\mathit{L}$$_{\mathrm{adv}}$"


def test_the_notes_say_what_the_interval_covers(paper):
    notes = " ".join(reading_notes(paper))
    assert "22 cells from 17 rows, 1 run each (training seed 0)" in notes
    assert "FID: images (influence function, 95%)" in notes
    assert "do not cover the training seed" in notes
    assert "Real images score, under the same protocols: FID 31.7, CLIP score 0.820" in notes


def test_several_seeds_print_mean_and_spread(tmp_path):
    study = study_of(
        (ReportRow("a", "Q", "one", "baseline", True), ReportRow("a", "Q", "two", "other", False)),
        seeds=(0, 1, 2),
    )
    write_results(study, tmp_path)
    report = collect(study, tmp_path)
    assert re.search(r"\| two \| (\*\*)?\d+\.\d(\*\*)? \[\d+\.\d, \d+\.\d\] \|", render_markdown(report))
    notes = " ".join(reading_notes(report))
    assert "means over a row's runs" in notes
    assert "3 runs each (training seeds 0 to 2)" in notes
    assert "95%, total" in notes
    row = next(csv.DictReader(io.StringIO(render_csv(report))))
    values = [result.systems[0].metrics["fid"].value for result in report.results["baseline"]]
    assert float(row["fid"]) == pytest.approx(math.prod(values) ** (1 / 3), rel=1e-5)
    assert row["runs"] == "3"
