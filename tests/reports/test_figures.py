"""Figures: labels that do not overlap, ranks, logs and samples that are refused, bytes that do not move."""

import json

import numpy as np
import pytest

from add.errors import InputError
from reports.cells import collect
from reports.plots.results import montage, outliers, plot_ranks, plot_scatter, ranks
from reports.plots.style import save, spread_out, styled
from reports.plots.training import read_log, smooth
from reports.samples import read_samples, tile
from reports.study import ReportRow
from reports.table import draw_figures
from tests.support.report_fixture import paper_study, study_of, write_results


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    results = tmp_path_factory.mktemp("small")
    rows = (
        ReportRow("a", "Question $x$", "one $y_2$", "baseline", True, 20.6, 0.319),
        ReportRow("a", "Question $x$", "two", "other", False, 21.0, 0.3),
        ReportRow("b", "Ours", "three", "third", False),
    )
    study = study_of(rows, seeds=(0, 1))
    write_results(study, results, images=2)
    return collect(study, results), results


def test_figures_keep_text_as_text_and_have_no_dates(small, tmp_path):
    report, _ = small
    with styled():
        drawn = save(plot_ranks(report), tmp_path, "ranks", "figures")
    assert b"CreationDate" not in drawn.pdf.read_bytes()
    assert b"/FontFile2" in drawn.pdf.read_bytes(), "text is TrueType, not outlines"
    assert b"/Subtype /Type3" not in drawn.pdf.read_bytes()
    assert drawn.png.read_bytes().startswith(b"\x89PNG")


def test_the_montage_shows_each_runs_samples_in_its_row(small):
    report, results = small
    samples = read_samples(report, results, report.first, 2)
    canvas = montage(report, samples)
    assert canvas.shape == (3 * 204, 2 * 204, 3)
    for line, run in enumerate(report.study.runs):
        for column, path in enumerate(samples.tiles[run]):
            top, left = 204 * line, 204 * column
            assert (canvas[top : top + 192, left : left + 192] == np.asarray(tile(path, 192))).all()
    assert (canvas[192:204] == 255).all(), "a white gap"


def test_labels_keep_their_distance_order_and_bounds():
    marks = [0.90, 0.91, 0.905, 0.1, 0.9, 0.99, 1.0]
    placed = spread_out(marks, 0.05, 0.0, 1.0)
    order = np.argsort(marks, kind="stable")
    steps = np.diff(np.array(placed)[order])
    assert (steps >= 0.05 - 1e-9).all()
    assert min(placed) >= 0
    assert max(placed) <= 1 + 1e-9
    assert placed[3] == pytest.approx(0.1), "a label that has room stays at its mark"


def test_more_labels_than_fit_are_spread_evenly():
    placed = spread_out([0.5] * 5, 0.5, 0.0, 1.0)
    assert placed == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


def test_no_two_labels_of_the_papers_scatter_overlap(tmp_path):
    study = paper_study()
    write_results(study, tmp_path, images=1)
    report = collect(study, tmp_path)
    with styled():
        figure = plot_scatter(report, "alignment")
        figure.draw_without_rendering()
        boxes = [t.get_window_extent() for axes in figure.axes for t in axes.texts if t.get_text()]
        width, height = figure.bbox.width, figure.bbox.height
    # 17 runs in two panels are labelled beside their marks, or named below as beyond the axes.
    named = sum(t.get_text().count("FID ") or 1 for axes in figure.axes for t in axes.texts if t.get_text())
    assert named == 2 * 17
    for i, one in enumerate(boxes):
        # Annotations' extents include their leader lines, so compare the text's own column.
        assert one.x1 <= width + 1
        assert one.y0 >= -1
        assert one.y1 <= height + 1
        for other in boxes[i + 1 :]:
            apart = abs((one.y0 + one.y1) / 2 - (other.y0 + other.y1) / 2)
            assert apart > 5, "centres at least five pixels (of 100 dpi) apart"


def test_far_values_do_not_shield_each_other():
    assert outliers([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 30.0, 100.0]) == {7, 8}
    assert outliers([1.0, 2.0, 3.0, 4.0, 5.0]) == set()
    assert outliers([]) == set()


def test_ranks_break_published_ties_by_the_measured_order():
    assert ranks([21.2, 21.2, 20.6, None], [5.0, 4.0, 9.0, 1.0]) == [2.0, 1.0, 0.0, None]


def test_running_mean_is_centred_and_leaves_nan_out():
    assert smooth(np.array([0.0, 3.0, np.nan, 6.0])) == pytest.approx([1.5, 1.5, 4.5, 6.0])


def test_a_broken_log_is_refused_with_file_and_line(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "gap": 0.1}\n{"gap": 0.2}\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: .*step"):
        read_log(log)
    log.write_text('{"step": 1}\n{"step": 2\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: not JSON"):
        read_log(log)
    log.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"log\.jsonl: not UTF-8 \(byte 0\)"):
        read_log(log)


def test_missing_logs_are_all_named(small, tmp_path):
    report, _ = small
    with pytest.raises(InputError) as error:
        draw_figures(report, tmp_path, tmp_path / "figures")
    assert str(error.value).count("log.jsonl") == 6
    assert not (tmp_path / "figures").exists()


def test_samples_of_other_prompts_are_refused(tmp_path):
    study = study_of(
        (ReportRow("a", "Q", "one", "baseline", True), ReportRow("a", "Q", "two", "other", False))
    )
    write_results(study, tmp_path, images=2)
    report = collect(study, tmp_path)
    index = tmp_path / "other/seed0/samples/coco-1step/index.csv"
    index.write_text(index.read_text().replace(",1001", ",7"))
    with pytest.raises(InputError, match=r"000001\.png has another prompt or seed"):
        read_samples(report, tmp_path, report.first, 2)


def test_a_missing_sample_is_named(tmp_path):
    study = study_of((ReportRow("a", "Q", "one", "baseline", True),))
    write_results(study, tmp_path, images=2)
    report = collect(study, tmp_path)
    gone = tmp_path / "baseline/seed0/samples/coco-1step/000001.png"
    gone.unlink()
    with pytest.raises(InputError, match=r"1 file(?s:.*)000001\.png"):
        read_samples(report, tmp_path, report.first, 2)


def test_small_images_are_enlarged_by_whole_pixels_and_large_ones_reduced(tmp_path):
    from PIL import Image

    small = Image.effect_noise((32, 32), 90).convert("RGB")
    small.save(tmp_path / "small.png")
    shown = np.asarray(tile(tmp_path / "small.png", 150))
    assert shown.shape == (128, 128, 3)
    assert (shown[::4, ::4] == np.asarray(small)).all()
    assert (shown[3::4, 3::4] == np.asarray(small)).all()
    small.resize((512, 512)).save(tmp_path / "large.png")
    assert tile(tmp_path / "large.png", 128).size == (128, 128)


def test_the_log_of_a_run_without_discriminator_is_drawn(small):
    report, results = small
    log = results / "third" / "seed0" / "train" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if not k.startswith("gap")} for line in lines]
    before = log.read_text()
    log.write_text("\n".join(map(json.dumps, kept)) + "\n")
    from reports.plots.training import plot_gap, read_curves

    with styled():
        figure = plot_gap(report, read_curves(report, results))
    log.write_text(before)
    assert any("no discriminator" in t.get_text() for axes in figure.axes for t in axes.texts)
