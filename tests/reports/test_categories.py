"""Scores by category: against means and errors taken by hand, and what does not belong together."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from add.errors import InputError
from eval.image_scores import scores_file, write_scores
from eval.metrics.measure import ImageScores
from reports.categories import (
    CategoryScore,
    categories_data,
    collect_categories,
    render_categories_csv,
    standard_error,
)
from reports.cells import Report, collect
from reports.study import ReportSystem
from reports.systems import collect_systems
from tests.support.report_fixture import paper_study, write_results

PARTI = [
    ("a dog", "Animals", "Basic"),
    ("two dogs", "Animals", "Quantity"),
    ("a red car", "Vehicles", "Basic"),
    ("two cats", "Animals", "Quantity"),
]
IDS = [f"parti-{k:04d}" for k in range(1, len(PARTI) + 1)]
SEEDS = (0, 1)
CLIP = {0: [0.1, 0.3, 0.2, 0.6], 1: [0.3, 0.3, 0.4, 0.8]}
RIGHT = {0: [True, True, True, False], 1: [True, True, False, False]}


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Of one student with two training seeds, with scores of single images by one step."""
    study = replace(paper_study(seeds=SEEDS), focus=())
    study = replace(study, rows=study.rows[1:2])
    results = tmp_path / "results"
    write_results(study, results, images=4, ratings=False)
    file = tmp_path / "parti.tsv"
    file.write_text("\n".join(["Prompt\tCategory\tChallenge", *map("\t".join, PARTI)]) + "\n")
    folders = [results / "baseline" / f"seed{seed}" for seed in SEEDS]
    for seed, folder in zip(SEEDS, folders, strict=True):
        scores = ImageScores(clip_score=CLIP[seed], alignment=RIGHT[seed])
        write_scores(scores_file(folder, "parti", 1), IDS, seed, scores)
    found = tuple(str(folder / "result.json") for folder in folders)
    systems = tuple(ReportSystem("ADD", f"ADD, {k} steps", k, "baseline", found) for k in (1, 4))
    return collect(replace(study, systems=systems, parti={"parti": file.as_posix()}), results)


def scored(report: Report) -> dict[tuple[str, str], CategoryScore]:
    every = collect_categories(report, collect_systems(report))
    assert {score.row.system.steps for score in every} == {1}, "by 4 steps there are no scores of images"
    return {(score.group, score.metric): score for score in every}


def test_a_groups_score_is_the_mean_over_its_prompts_of_the_mean_over_seeds(report: Report) -> None:
    found = scored(report)
    animals = [0.2, 0.3, 0.7]  # prompts 1, 2, 4; the mean of two seeds each
    score = found["Animals", "clip_score"]
    assert (score.field, score.count, score.runs) == ("category", 3, 2)
    assert score.value == pytest.approx(0.4)
    assert score.stderr == pytest.approx(np.std(animals, ddof=1) / math.sqrt(3))
    assert found["Vehicles", "clip_score"].stderr is None, "of one prompt"
    assert found["Animals", "alignment"].value == pytest.approx(2 / 3)
    assert found["Vehicles", "alignment"].value == pytest.approx(0.5), "one of two seeds"
    assert found["Quantity", "alignment"].field == "challenge"
    assert set(found) == {
        (group, metric)
        for group in ("Animals", "Vehicles", "Basic", "Quantity")
        for metric in ("clip_score", "alignment")
    }


def test_a_shares_error_has_four_prompts_more_and_is_never_nought() -> None:
    assert standard_error(np.ones(4), "alignment") == pytest.approx(math.sqrt(6 / 8 * 2 / 8 / 8))
    assert standard_error(np.full(4, 0.3), "clip_score") == pytest.approx(0)
    right = np.repeat([1.0, 0.0], [300, 700])
    assert standard_error(right, "alignment") == pytest.approx(math.sqrt(0.21 / 1000), rel=0.01)


def test_the_csv_has_every_figure_under_its_sets_protocol(report: Report) -> None:
    every = collect_categories(report, collect_systems(report))
    rows = list(csv.DictReader(io.StringIO(render_categories_csv(every))))
    assert len(rows) == len(every) == 8
    protocol = report.measurements["baseline", report.slices[-1]].metrics["clip_score"].protocol
    assert {row["source"] for row in rows if row["metric"] == "clip_score"} == {protocol}
    (car,) = [r for r in rows if (r["group"], r["metric"]) == ("Vehicles", "clip_score")]
    assert (car["system"], car["count"], car["stderr"]) == ("ADD", "1", "")
    assert float(car["value"]) == pytest.approx(0.3)


def test_each_table_says_how_many_prompts_a_group_has(report: Report) -> None:
    clip, right = categories_data(collect_categories(report, collect_systems(report)))
    assert clip["title"].startswith("CLIP score")
    assert right["title"].startswith("All right")
    assert [(head["group"], head["count"]) for head in clip["heads"]] == [
        ("Animals", 3),
        ("Vehicles", 1),
        ("Basic", 2),
        ("Quantity", 2),
    ]
    (row,) = clip["rows"]
    assert row["cells"][1] == {"value": "0.300", "spread": ""}


def test_scores_of_other_prompts_are_refused(report: Report) -> None:
    folder = Path(report.study.systems[0].results[1]).parent
    scores = ImageScores(clip_score=CLIP[1])
    write_scores(scores_file(folder, "parti", 1), [*IDS[:3], "parti-0099"], 1, scores)
    with pytest.raises(InputError, match=r"seed1.*scores other prompts than .*seed0"):
        scored(report)
    for result in report.study.systems[0].results:
        write_scores(scores_file(Path(result).parent, "parti", 1), [*IDS[:3], "parti-0099"], 1, scores)
    with pytest.raises(InputError, match="scores parti-0099, which PartiPrompts' file does not have"):
        scored(report)
