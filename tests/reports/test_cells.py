"""Collecting and aggregating results: what is refused, and the arithmetic over seeds."""

import json
import math
import random
from pathlib import Path

import pytest

from add.errors import InputError
from eval.findings.contrasts import Observation, fit
from eval.result import Metric
from reports.cells import Report, Slice, budget, collect, estimate
from reports.layout import fixed, in_full, measured_cells, supported_best
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


def test_without_a_spread_between_runs_the_interval_is_the_one_that_scoring_stated():
    values = [metric(10.0, interval=[9.0, 12.0], interval_covers="images", stderr=0.5)]
    found = estimate("kid", "one", values, None)
    assert (found.value, found.low, found.high, found.covers) == (10.0, 9.0, 12.0, "images")
    assert (found.runs, found.seed_sd, found.stderr) == (1, None, 0.5)


def test_the_total_interval_holds_runs_images_and_reference():
    """By hand: variance between runs 4 by 3 runs, standard errors .5 of the images and .25 of the reference."""
    values = [metric(v, stderr=0.5, reference_stderr=0.25) for v in (10.0, 12.0, 14.0)]
    made = fit([Observation("one", k, "p", v.value) for k, v in enumerate(values)])
    found = estimate("kid", "one", values, made)
    half = 4.302653 * math.sqrt(4 / 3 + 0.5**2 + 0.25**2)  # Student's .975 quantile at 2 degrees of freedom
    assert found.value == pytest.approx(12)
    assert (found.low, found.high) == pytest.approx((12 - half, 12 + half), rel=1e-6)
    assert found.covers == "total: images, reference, seed, processor (95%, runs 3)"
    assert found.seed_sd == pytest.approx(2)


def test_fid_is_averaged_as_its_logarithm_and_its_errors_are_relative():
    values = [metric(v, stderr=0.02 * v) for v in (10.0, 40.0)]
    made = fit([Observation("one", k, "p", math.log(v.value)) for k, v in enumerate(values)])
    found = estimate("fid", "one", values, made)
    assert found.value == pytest.approx(20.0)
    half = 12.706205 * math.hypot(math.log(4) / 2, 0.02)
    assert found.high == pytest.approx(20 * math.exp(half), rel=1e-5)
    assert found.low == pytest.approx(20 * math.exp(-half), rel=1e-5)


def test_the_budget_of_one_runs_uncertainty(tmp_path):
    """Between runs as the runs show it; of the images and the reference what each run states, relative for FID."""
    study = small_study(seeds=(0, 1, 2))
    write_results(study, tmp_path)
    for k, path in enumerate(sorted(tmp_path.glob("*/seed*/result.json"))):
        more = {"value": 100 * math.exp(0.1 * (k % 3)), "stderr": 5 * math.exp(0.1 * (k % 3))}
        edit(path, lambda r, more=more: r["systems"][0]["metrics"]["fid"].update(more, reference_stderr=1.0))
    found = budget(collect(study, tmp_path), FIRST, "fid")
    assert found["between runs"] == pytest.approx(0.1)
    assert found["images"] == pytest.approx(0.05)
    assert found["reference"] == pytest.approx(0.01, rel=0.15)
    assert "processor" not in found
    assert budget(collect(small_study(), tmp_path), FIRST, "fid") is None


def test_a_share_stays_between_nought_and_one():
    values = [metric(v) for v in (0.99, 1.0)]
    made = fit([Observation("one", k, "p", v.value) for k, v in enumerate(values)])
    assert estimate("alignment", "one", values, made).high == 1.0


def test_attribute_groups_are_averaged_over_seeds():
    found = estimate("alignment", "one", [metric(0.5, groups={"shape": g}) for g in (0.25, 0.75)], None)
    assert found.groups == {"shape": 0.5}
    with pytest.raises(InputError, match="groups"):
        estimate("alignment", "one", [metric(0.5, groups={g: 0.25}) for g in ("shape", "colour")], None)


def test_seeds_under_two_protocols_are_refused():
    with pytest.raises(InputError, match="aaaaaaaaaaaa, bbbbbbbbbbbb"):
        estimate("fid", "one", [metric(1.0), metric(2.0, "bbbbbbbbbbbb")], None)


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
    with pytest.raises(InputError, match=r"other, seed 0 on an invented CPU: coco at 4 step"):
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
        (lambda r: r["systems"].append(r["systems"][0]), "more than once"),
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


def test_bold_is_what_is_better_than_every_other_row_of_its_sub_table():
    """Breaks when the smallest mean is bold whatever its interval."""
    study = study_of(
        tuple(
            ReportRow(part, "Question", run, run, run == "r0")
            for part in "ab"
            for run in ("r0", f"{part}1", f"{part}2")
        )
    )
    means = {"r0": 0.0, "a1": 1.0, "a2": 2.0, "b1": 0.01, "b2": 2.0}
    rng = random.Random(0)
    noise = [
        Observation(run, k, "p", mean + 0.1 * rng.gauss(0, 1))
        for run, mean in means.items()
        for k in range(8)
    ]
    report = Report(
        study, (FIRST,), {}, {}, {}, None, {(FIRST, "fid"): fit(noise), (FIRST, "clip_score"): fit(noise)}
    )
    found = supported_best(report)
    assert found == {
        (FIRST, "fid", "a"): "r0",
        (FIRST, "clip_score", "a"): "a2",
        (FIRST, "clip_score", "b"): "b2",
    }


def test_numbers_as_text():
    assert fixed(-0.00001, 4) == "0.0000"
    assert in_full(28.41, 1) == "28.41", "the paper's decimals are kept"
    assert in_full(20.0, 1) == "20.0"
    one = estimate("alignment", "one", [metric(0.85, interval=[0.8, 0.9], interval_covers="images")], None)
    shown = measured_cells([one, None], "alignment", [True, False])
    assert (shown[0].value, shown[0].spread, shown[0].best) == ("0.850", "[0.800, 0.900]", True)
    assert shown[1].value == "–"  # noqa: RUF001 (an absent value is an en dash)
