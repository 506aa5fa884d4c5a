"""Collecting and aggregating results: what is refused, and the arithmetic over seeds."""

import json
import math
from pathlib import Path

import pytest

from add.errors import InputError
from eval.result import Metric
from reports.cells import Slice, aggregate, collect
from reports.layout import STYLES, best_of, fixed, in_full, measured_cells
from reports.study import ReportRow
from tests.support.report_fixture import digest, paper_study, result_of, study_of, write_json, write_results

FIRST = Slice(1, "coco")


def metric(value: float, protocol: str = "aaaaaaaaaaaa", **more: object) -> Metric:
    return Metric.model_validate({"value": value, "protocol": protocol, **more})


def small_study(seeds: tuple[int, ...] = (0,)):
    rows = (
        ReportRow("a", "Question", "one", "baseline", True),
        ReportRow("a", "Question", "two", "other", False),
    )
    return study_of(rows, seeds=seeds)


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_the_papers_table_has_22_cells_17_runs_and_its_default_in_every_part():
    study = paper_study()
    assert len(study.rows) == 22
    assert len(study.runs) == 17
    assert [row.part for row in study.rows if row.default] == list("abcdef")


def test_one_seed_keeps_the_interval_that_scoring_reported():
    found = aggregate([metric(10.0, interval=[9.0, 12.0], interval_covers="images", stderr=0.5)])
    assert (found.value, found.low, found.high, found.covers) == (10.0, 9.0, 12.0, "images")
    assert found.seed_sd is None
    assert found.stderr == 0.5


def test_several_seeds_give_mean_sd_and_students_interval():
    # By hand: mean 12, deviations -2 0 2, variance 8 / 2 = 4, t(0.975, 2) = 4.302653.
    found = aggregate([metric(v, interval=[0, 99], interval_covers="images") for v in (10.0, 12.0, 14.0)])
    half = 4.302653 * 2 / math.sqrt(3)
    assert found.value == 12
    assert found.seed_sd == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((12 - half, 12 + half), rel=1e-6)
    assert found.covers == "training seeds (Student t, 95%, n = 3)"
    assert found.stderr is None


def test_attribute_groups_are_averaged_over_seeds():
    found = aggregate([metric(0.5, groups={"shape": 0.25}), metric(0.5, groups={"shape": 0.75})])
    assert found.groups == {"shape": 0.5}
    with pytest.raises(InputError, match="groups"):
        aggregate([metric(0.5, groups={"shape": 0.25}), metric(0.5, groups={"colour": 0.75})])


def test_seeds_under_two_protocols_are_refused():
    with pytest.raises(InputError, match="aaaaaaaaaaaa, bbbbbbbbbbbb"):
        aggregate([metric(1.0), metric(2.0, "bbbbbbbbbbbb")])


def test_a_column_with_two_protocols_is_refused_and_says_what_differs(tmp_path):
    study = small_study()
    write_results(study, tmp_path)
    # A valid result, but scored on 4 images where the other run was scored on 8.
    write_json(tmp_path / "other" / "seed0" / "result.json", result_of(study, "other", 0, images=4))
    with pytest.raises(InputError, match=r"several protocols(?s:.*)baseline(?s:.*)other(?s:.*)images"):
        collect(study, tmp_path)


def test_a_metric_that_one_run_lacks_is_refused(tmp_path):
    study = small_study()
    write_results(study, tmp_path)
    edit(tmp_path / "other/seed0/result.json", lambda r: r["systems"][0]["metrics"].pop("fid"))
    with pytest.raises(InputError, match="not measured: other"):
        collect(study, tmp_path)


def test_a_slice_that_one_run_lacks_is_refused(tmp_path):
    study = small_study()
    write_results(study, tmp_path)
    edit(tmp_path / "other/seed0/result.json", lambda r: r["systems"].pop(1))
    with pytest.raises(InputError, match=r"other seed 0: coco at 4 step"):
        collect(study, tmp_path)


def test_every_missing_result_is_named_and_no_other(tmp_path):
    study = small_study(seeds=(0, 1))
    write_results(study, tmp_path)
    gone = [tmp_path / "baseline/seed1/result.json", tmp_path / "other/seed0/result.json"]
    for path in gone:
        path.unlink()
    with pytest.raises(InputError) as error:
        collect(study, tmp_path)
    named = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert named == [str(path) for path in gone]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(spec_hash="0" * 12), "train it again"),
        (lambda r: r.update(seed=7), "holds scale, run, seed"),
        (lambda r: r["systems"][0]["metrics"]["fid"].update(value="low"), r"systems\.0\.metrics\.fid\.value"),
        (lambda r: r["systems"][0]["metrics"]["fid"].update(value=float("nan")), r"metrics\.fid\.value"),
        (lambda r: r["protocols"].popitem(), "protocols not described"),
        (lambda r: next(iter(r["protocols"].values())).update(images=1), "what is called protocol"),
        (lambda r: r["systems"].append(r["systems"][0]), "measured twice"),
    ],
)
def test_a_result_that_is_stale_wrong_or_undescribed_is_refused(tmp_path, change, message):
    study = small_study()
    write_results(study, tmp_path)
    edit(tmp_path / "other/seed0/result.json", change)
    with pytest.raises(InputError, match=message):
        collect(study, tmp_path)


def test_broken_json_is_refused_with_file_and_line(tmp_path):
    study = small_study()
    write_results(study, tmp_path)
    (tmp_path / "other/seed0/result.json").write_text('{\n"schema": 1,\n oops}')
    with pytest.raises(InputError, match=r"result\.json:3: not JSON"):
        collect(study, tmp_path)
    (tmp_path / "other/seed0/result.json").write_bytes(b'{"schema": "\xff"}')
    with pytest.raises(InputError, match=r"result\.json: not UTF-8 \(byte 12\)"):
        collect(study, tmp_path)


def test_headline_is_the_prompt_set_with_an_fid(tmp_path):
    study = small_study()
    write_results(study, tmp_path)
    report = collect(study, tmp_path)
    assert report.headline == (FIRST, Slice(4, "coco"))
    assert report.slices == (FIRST, Slice(4, "coco"), Slice(1, "parti"), Slice(4, "parti"))
    assert (report.first, report.last) == report.headline


def test_real_images_are_shown_only_under_the_columns_own_protocol(tmp_path):
    study = small_study()
    write_results(study, tmp_path)
    assert list(collect(study, tmp_path).floors(FIRST)) == ["fid", "clip_score"]
    other = digest("another protocol")
    edit(
        tmp_path / "reference/reference.json", lambda r: r["real"][0]["metrics"]["fid"].update(protocol=other)
    )
    assert list(collect(study, tmp_path).floors(FIRST)) == ["clip_score"]


def test_best_is_by_direction_as_printed_and_ties_are_all_best():
    estimates = [aggregate([metric(v)]) for v in (20.61, 20.64, 21.0)]
    assert [cell.best for cell in measured_cells(estimates, "fid")] == [True, True, False]
    assert [cell.best for cell in measured_cells(estimates, "clip_score")] == [False, False, True]
    assert best_of([20.6, None], STYLES["fid"]) == (False, False), "one value alone is no best"


def test_numbers_as_text():
    assert fixed(-0.00001, 4) == "0.0000"
    assert in_full(28.41, 1) == "28.41", "the paper's decimals are kept"
    assert in_full(20.0, 1) == "20.0"
    shown = measured_cells([aggregate([metric(v) for v in (0.8, 0.9)]), None], "alignment")
    assert (shown[0].value, shown[0].spread) == ("0.850", "± 0.071")
    assert shown[1].value == "–"  # noqa: RUF001 (an absent value is an en dash)
