"""The report's ratings: people first and never pooled, a page that says when nobody voted, numbers in place."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from add.errors import InputError
from reports.cells import collect
from reports.document import prepare
from reports.plots.ratings import plot_elo, plot_pairs, plot_winrates
from reports.plots.style import styled
from reports.ratings import (
    Preferences,
    diagnostic_values,
    notes,
    ratings_page,
    read_preferences,
    warning,
)
from reports.study import ReportRow, ReportStudy
from reports.table import draw_ratings
from tests.reports.test_document import query
from tests.support.ratings_fixture import SYSTEMS, write_fixture_ratings
from tests.support.report_fixture import study_of, write_results

FOCUS = ("baseline, 1 step", "baseline, 4 steps")


def rated_study(focus: tuple[str, ...] = FOCUS) -> ReportStudy:
    rows = (ReportRow("a", "Q", "one", "baseline", True), ReportRow("a", "Q", "two", "other", False))
    return dataclasses.replace(study_of(rows), focus=focus)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    made = {people: tmp_path_factory.mktemp(f"people-{people}") for people in (False, True)}
    for people, folder in made.items():
        write_fixture_ratings(folder, people=people)
    return made


def preferences_of(folder: Path) -> Preferences:
    found = read_preferences(rated_study(), folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def both(folders: dict[bool, Path]) -> Preferences:
    return preferences_of(folders[True])


@pytest.fixture(scope="module")
def alone(folders: dict[bool, Path]) -> Preferences:
    return preferences_of(folders[False])


def test_people_come_first_and_stand_apart(both: Preferences, alone: Preferences):
    assert both.kinds == ("human", "oracle")
    assert alone.kinds == ("oracle",)
    for question in ("quality", "alignment", "both"):
        assert both.ratings["oracle", question] == alone.ratings["oracle", question], "people changed nothing"
    assert both.ratings["human", "quality"].diagnostics.votes == 10 * 45 * 2


def test_the_page_warns_exactly_where_no_person_has_voted(both: Preferences, alone: Preferences):
    text = warning(alone)
    assert text is not None
    assert text.startswith("No person has voted yet")
    assert "the oracle" in text
    assert warning(both) is None
    assert any("never pooled" in note for note in notes(both))
    assert not any("never pooled" in note for note in notes(alone))


def test_a_rate_read_from_the_other_side_is_the_rest(both: Preferences):
    pair = both.ratings["human", "quality"].pairs[0]
    here = both.rate("human", "quality", pair.system_a, pair.system_b)
    there = both.rate("human", "quality", pair.system_b, pair.system_a)
    assert here is not None
    assert there is not None
    assert (here.value, here.low, here.high) == (pair.win_rate, pair.low, pair.high)
    assert (there.value, there.low, there.high) == pytest.approx(
        (1 - here.value, 1 - here.high, 1 - here.low)
    )
    assert both.rate("human", "quality", pair.system_a, "absent") is None


def test_seconds_are_for_one_image(both: Preferences):
    assert both.seconds == pytest.approx({name: seconds for name, (_, seconds) in SYSTEMS.items()})


def test_bars_stand_at_the_win_rates_and_the_line_at_half(both: Preferences):
    with styled():
        figure = plot_winrates(both)
    assert len(figure.axes) == 4, "two systems of interest, people and oracle"
    axes = figure.axes[0]
    rivals = [name for name in SYSTEMS if name != FOCUS[0]]
    wanted = []
    for question in ("quality", "alignment"):
        rates = [both.rate("human", question, FOCUS[0], rival) for rival in rivals]
        wanted += [100 * rate.value for rate in rates if rate is not None]
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == pytest.approx(wanted)
    assert len(wanted) == 18
    assert any(np.array_equal(line.get_xdata(), [50, 50]) for line in axes.lines)
    assert axes.get_title(loc="left") == "People: baseline, 1 step preferred"


def test_ratings_are_drawn_over_time_with_names_that_do_not_overlap(both: Preferences):
    with styled():
        figure = plot_elo(both)
        figure.draw_without_rendering()
    assert both.questions("human") == ("quality", "alignment", "both")
    for axes, kind in zip(figure.axes, ("human", "oracle"), strict=True):
        names = [t for t in axes.texts if t.get_text() in SYSTEMS]
        assert len(names) == 10
        middles = sorted(t.get_window_extent().get_points()[:, 1].mean() for t in names)
        places = sorted(t.xyann[1] for t in names)  # type: ignore[attr-defined]
        assert all(b - a > 0.03 for a, b in pairwise(places)), middles
        marked = {tuple(map(float, t.xy)) for t in names}  # type: ignore[attr-defined]
        ratings = both.ratings[kind, "both"].systems
        assert marked == {(both.seconds[s.system], s.rating) for s in ratings}


def test_the_matrix_holds_every_pair_from_both_sides_best_on_top(both: Preferences):
    with styled():
        figure = plot_pairs(both)
    assert len(figure.axes) == 4
    axes = figure.axes[0]
    order = both.in_order("human")
    assert [t.get_text().rsplit("  ", 1)[0] for t in axes.get_yticklabels()] == list(order)
    ratings = [both.system("human", "both", name) for name in order]
    values = [s.rating for s in ratings if s is not None]
    assert values == sorted(values, reverse=True)
    cells = {(t.get_position()): t.get_text() for t in axes.texts if t.get_text()}
    assert len(cells) == 90
    rate = both.rate("human", "quality", order[1], order[0])
    assert rate is not None
    assert cells[0, 1] == f"{100 * rate.value:.0f}"


def test_the_diagnostics_are_the_ratings_own(both: Preferences):
    ratings = both.ratings["human", "quality"]
    shown = diagnostic_values(ratings.diagnostics)
    assert shown["votes"] == "900"
    assert shown["raters"] == "10"
    assert shown["ties"] == f"{100 * ratings.diagnostics.tie_rate:.0f}%"
    assert shown["chose the left"].endswith("]")
    assert diagnostic_values(both.ratings["oracle", "quality"].diagnostics)["chose the left"] == "\N{EN DASH}"


def test_the_page_is_typeset_the_same_twice_and_only_where_there_are_ratings(
    both: Preferences, tmp_path: Path
):
    study = rated_study()
    write_results(study, tmp_path / "results", images=2, ratings=False)
    report = collect(study, tmp_path / "results")
    assert ratings_page(both) == ratings_page(both)
    drawn = [draw_ratings(both, tmp_path / name) for name in ("one", "two")]
    for first, second in zip(*drawn, strict=True):
        assert first.pdf.read_bytes() == second.pdf.read_bytes()
        assert first.png.read_bytes() == second.png.read_bytes()
    for rated, figures, expected in (
        (both, drawn[0], {"ratings start", "ratings end"}),
        (None, (), set()),
    ):
        root = tmp_path / ("with" if rated else "without")
        root.mkdir()
        prepare(report, tmp_path / "results", figures, root, rated)
        places = {found["value"]["what"] for found in query(root, "<place>")}
        assert {place for place in places if place.startswith("ratings")} == expected


def test_names_of_systems_are_text_and_never_markup(tmp_path: Path):
    odd = 'x #panic("name") *b* $y_2$ `r` <l> @ref \\u{41} // c'
    names = (odd, "other", "third #sys.inputs [")
    study = rated_study((odd,))
    write_results(study, tmp_path / "results", images=2, ratings=False)
    write_fixture_ratings(tmp_path / "rated", people=True, systems=names, size=20)
    preferences = read_preferences(study, tmp_path / "rated")
    assert preferences is not None
    root = tmp_path / "root"
    root.mkdir()
    report = collect(study, tmp_path / "results")
    figures = draw_ratings(preferences, tmp_path / "figures")
    prepare(report, tmp_path / "results", figures, root, preferences)
    assert query(root, "<place>"), "typst stops at the first #panic that it reads as markup"


def test_a_scale_without_a_study_has_no_ratings(tmp_path: Path):
    assert read_preferences(rated_study(()), tmp_path) is None


def test_what_is_missing_or_of_another_study_is_refused(folders: dict[bool, Path], tmp_path: Path):
    import shutil

    with pytest.raises(InputError, match=r"2 file\(s\)(?s:.*)systems\.json(?s:.*)ratings\.json"):
        read_preferences(rated_study(), tmp_path)
    with pytest.raises(InputError, match=r"systems\.json: lacks gone"):
        read_preferences(rated_study(("gone",)), folders[False])
    copy = tmp_path / "copy"
    shutil.copytree(folders[False], copy)
    listed, rated = copy / "ratings" / "systems.json", copy / "ratings" / "ratings.json"
    text, entries = rated.read_text(), json.loads(listed.read_text())
    rated.write_text(text.replace("random init, 1 step", "an unknown one"))
    with pytest.raises(InputError, match="rates an unknown one, which"):
        read_preferences(rated_study(), copy)
    rated.write_text(text[:-200])
    with pytest.raises(InputError, match=r"ratings\.json.*run `snakemake`"):
        read_preferences(rated_study(), copy)
    rated.write_text(text)
    facts = Path(entries[0]["samples"]) / "samples.json"
    good = facts.read_text()
    facts.write_text(json.dumps({"steps": 1, "seconds": 0, "count": 100}))
    with pytest.raises(InputError, match=r"samples\.json: `seconds` and `count` must be above 0"):
        read_preferences(rated_study(), copy)
    facts.write_text(good)
