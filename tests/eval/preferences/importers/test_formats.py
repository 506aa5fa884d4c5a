"""Which foreign format is it, and is it whole? HPDv2's lists and rankings are here too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from addbench.preferences import _FORMATS
from eval.preferences.importers import FORMATS, import_votes
from eval.preferences.importers.build import Options
from eval.preferences.record import COLUMNS, PreferenceError
from tests.support.preference_foreign import (
    ARENA,
    ARENA_33K,
    EVALICA,
    PICK,
    brought,
    evalica_options,
    refusals,
)

TRAIN = {"human_preference": [0, 1], "prompt": "a red cube", "image_path": ["1.jpg", "2.jpg"]}
TEST = {
    "prompt": "two cats",
    "image_path": ["1.jpg", "2.jpg", "3.jpg"],
    "rank": [1, 2, 3],
    "raw_annotations": [{"rank": [1, 3, 2], "user_hash": "ua"}, {"rank": [2, 1, 2], "user_hash": "ub"}],
}
LABELLED = {
    "data": {
        "study": "s",
        "prompt_id": "p",
        "prompt": "hi",
        "question": "quality",
        "system_left": "x",
        "system_right": "y",
    },
    "annotations": [
        {
            "completed_by": {"id": 1, "email": "a@b.c"},
            "result": [
                {"type": "pairwise", "value": {"selected": "left"}},
                {"type": "choices", "value": {"choices": []}},
            ],
            "was_cancelled": False,
            "created_at": "2026-11-21T13:22:05.7Z",
        }
    ],
}
SYSTEMS = {"1.jpg": "dalle", "2.jpg": "sdv1", "3.jpg": "sdv2"}


def hpd_options(folder: Path, systems: Any = SYSTEMS, **more: Any) -> Options:
    file = folder / "systems.json"
    file.write_text(json.dumps(systems))
    return Options(study="hpd", question="quality", rater_kind="human", image_systems=file, **more)


@pytest.mark.parametrize("key", ["image_path", "file_path"])
def test_hpdv2_train_is_pairs(tmp_path: Path, key: str) -> None:
    row = {"human_preference": [0, 1], "prompt": "a red cube", key: ["1.jpg", "2.jpg"]}
    assert "does not state the rater" in refusals(tmp_path, [row], hpd_options(tmp_path))[0]
    (vote,) = brought(tmp_path, json.dumps([row]), hpd_options(tmp_path, rater="hpd")).votes
    assert (vote.system_a, vote.system_b, vote.image_a, vote.winner) == ("dalle", "sdv1", "1.jpg", "b")


def test_hpdv2_test_is_rankings_and_a_lower_rank_is_better(tmp_path: Path) -> None:
    votes = brought(tmp_path, json.dumps([TEST], indent=1), hpd_options(tmp_path)).votes
    assert [(v.rater, v.image_a[0] + v.image_b[0], v.winner) for v in votes] == [
        ("ua", "12", "a"),
        ("ua", "13", "a"),
        ("ua", "23", "b"),
        ("ub", "12", "b"),
        ("ub", "13", "tie"),
        ("ub", "23", "a"),
    ]
    assert {v.line for v in votes} == {2}


def test_hpdv2_pictures_that_nobody_ranked_need_a_decision(tmp_path: Path) -> None:
    """Breaks when entries vanish without a word."""
    text = json.dumps([TEST, {**TEST, "prompt": "another", "raw_annotations": []}], indent=1)
    (found,) = refusals(tmp_path, text, hpd_options(tmp_path))
    assert "--unanswered leave-out" in found
    imported = brought(tmp_path, text, hpd_options(tmp_path, unanswered="leave-out"))
    assert len(imported.notes) == 1
    assert {vote.prompt for vote in imported.votes} == {TEST["prompt"]}
    one = {
        **TEST,
        "image_path": TEST["image_path"][:1],
        "raw_annotations": [{"rank": [1], "user_hash": "ua"}],
    }
    (found,) = refusals(tmp_path, json.dumps([one]), hpd_options(tmp_path))
    assert "must name two images or more" in found


@pytest.mark.parametrize(
    ("indent", "raters"), [(None, ("hpd-row-1.1", "hpd-row-1.2")), (1, ("hpd-row-2", "hpd-row-9"))]
)
def test_rows_of_one_line_are_told_apart(tmp_path: Path, indent: int | None, raters: tuple[str, str]) -> None:
    """Breaks when all rows of a file without line breaks count as one rater's: intervals are over raters."""
    rows = [TRAIN, {**TRAIN, "prompt": "another"}]
    votes = brought(tmp_path, json.dumps(rows, indent=indent), hpd_options(tmp_path, row_is="rater")).votes
    assert len({vote.rater for vote in votes}) == len(votes) == 2
    assert votes[0].rater == raters[0]


def test_hpdv2_does_not_name_systems(tmp_path: Path) -> None:
    options = Options(study="hpd", question="quality", rater_kind="human", rater="hpd")
    assert "give --image-systems FILE" in refusals(tmp_path, [TRAIN], options)[0]
    some = hpd_options(tmp_path, {"1.jpg": "dalle"}, rater="hpd")
    (found,) = refusals(tmp_path, [TRAIN], some)
    assert found == "line 1, column image_path, value '2.jpg': is not in the file of --image-systems"


def test_hpdv2_a_ranking_given_twice_is_refused(tmp_path: Path) -> None:
    twice = {**TEST, "raw_annotations": [TEST["raw_annotations"][0]] * 2}
    found = refusals(tmp_path, [twice], hpd_options(tmp_path))
    assert len(found) == 3
    assert "already answered this comparison in line 1" in found[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**TRAIN, "human_preference": [1, 1]}, "column human_preference, value '[1, 1]': must be [1, 0] or"),
        ({**TRAIN, "image_path": "1.jpg"}, "column image_path, value '1.jpg': must be a list of texts"),
        ({**TEST, "raw_annotations": [{"rank": [1], "user_hash": "u"}]}, "column raw_annotations, value"),
        ({**TEST, "raw_annotations": [{"rank": [1, 2, 2.5], "user_hash": "u"}]}, "column raw_annotations"),
        (
            {**TEST, "raw_annotations": [{"rank": [1, 2, 3]}]},
            "column raw_annotations, value 'None': each must hold a user",
        ),
        ({**TEST, "raw_annotations": 3}, "column raw_annotations"),
    ],
)
def test_hpdv2_refuses(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    options = hpd_options(tmp_path, **({} if "raw_annotations" in row else {"rater": "hpd"}))
    (found,) = refusals(tmp_path, [row], options)
    assert found.startswith(f"line 1, {reason}")


def test_formats_are_told_apart_by_header(tmp_path: Path) -> None:
    assert tuple(FORMATS) == _FORMATS
    both = [{**ARENA_33K, "left": "x", "right": "y"}]
    assert refusals(tmp_path, both, ARENA) == [
        "line 1: may be in the formats lmarena and evalica; say which with --format"
    ]
    assert len(brought(tmp_path, both, ARENA, "lmarena").votes) == 1
    assert "lmarena lacks the columns winner" in refusals(tmp_path, "model_a,model_b\nx,y\n", ARENA)[0]
    assert "lacks the columns caption" in refusals(tmp_path, EVALICA, ARENA, "pickapic")[0]
    own = ",".join(COLUMNS) + "\n" + "x," * 13 + "x\n"
    assert "own schema already" in refusals(tmp_path, own, ARENA)[0]


JUNK = [None, "", "x", 0, 1.5, True, [], ["x"], [[1], 0], {}, {"a": [1]}, "\ud800"]


@pytest.mark.parametrize("row", [ARENA_33K, PICK, TRAIN, TEST, LABELLED], ids=lambda row: next(iter(row)))
def test_junk_in_any_field_gives_votes_or_problems_and_no_other_error(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    rater = "hpd" if row is TRAIN else None
    options = hpd_options(tmp_path, rater=rater, time_zone="UTC")
    if row is LABELLED:
        options = Options(rater_kind="human")
    for changed in junked(row):
        (tmp_path / "foreign").write_text(json.dumps([changed]))
        with contextlib.suppress(PreferenceError):
            assert import_votes(tmp_path / "foreign", options).votes


def junked(value: Any) -> Iterator[Any]:
    """The value with junk in its place, or in the place of one of its parts."""
    yield from ({**value, key: part} for key in value for part in JUNK) if isinstance(value, dict) else ()
    if isinstance(value, dict):
        yield from ({**value, key: part} for key in value for part in junked(value[key]))
    elif isinstance(value, list):
        yield from ([*value[:k], part, *value[k + 1 :]] for k in range(len(value)) for part in JUNK)
        yield from (
            [*value[:k], part, *value[k + 1 :]] for k in range(len(value)) for part in junked(value[k])
        )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("left;right;winner\n0;1;tie\n", "line 1, value 'left;right;winner': is not separated by commas"),
        ("left,right,winner\n0,1\n", "line 2, value '0,1': has 2 cells, the header has 3"),
        ("left,right,winner,left\n0,1,tie,2\n", "line 1, column left, value 'left': is in the header twice"),
        ("left,right,winner\n", "holds no entries"),
        ('{"left": 1}\n[]\n', "line 2, value '[]': each entry must be an object"),
        ('[\n {"left": 1},\n 3]', "line 3, value '3': each entry must be an object"),
        ('{"left": 1}\n{"left": \n', "line 3: not JSON"),
        ("[]", "holds no entries"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (found,) = refusals(tmp_path, text, evalica_options())
    assert found.removeprefix(f"{tmp_path / 'foreign'}: ").startswith(reason)
