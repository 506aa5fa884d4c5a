"""Foreign votes in their real column layouts: what is read, what must be said, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.preferences.importers.build import Options
from eval.preferences.record import UNKNOWN
from tests.support.preference_foreign import (
    ALONE,
    ARENA,
    ARENA_33K,
    ARENA_55K,
    ARENA_140K,
    EVALICA,
    PICK,
    brought,
    evalica_options,
    refusals,
)

PICK_OPTIONS = Options(study="pick", question="quality", rater_kind="human", time_zone="UTC")


def test_lmarena_33k(tmp_path: Path) -> None:
    (vote,) = brought(tmp_path, [ARENA_33K], ARENA).votes
    assert (vote.system_a, vote.system_b, vote.winner) == ("chatglm-6b", "koala-13b", "b")
    assert (vote.prompt_id, vote.prompt, vote.rater) == ("58210e39", "a red cube", "arena_user_973")
    assert (vote.time, vote.image_a, vote.shown_left) == ("2023-04-24T15:53:11.132200Z", UNKNOWN, "none")


def test_lmarena_140k_has_sessions_and_no_raters(tmp_path: Path) -> None:
    assert refusals(tmp_path, [ARENA_140K], ARENA) == [
        "line 1: the file does not state the rater; give --rater or --rater-column COLUMN"
    ]
    by_session = Options(**{**vars(ARENA), "rater_column": "evaluation_session_id", "time_zone": "UTC"})
    (vote,) = brought(tmp_path, [ARENA_140K], by_session).votes
    assert (vote.rater, vote.prompt, vote.winner) == ("e9d7", "two cats", "tie")
    assert vote.time == "2025-06-24T18:29:34.151000Z"


def test_lmarena_55k(tmp_path: Path) -> None:
    first, second = brought(tmp_path, ARENA_55K, ALONE).votes
    assert (first.winner, first.prompt_id, first.prompt, first.line) == ("a", "30192", '["a red, cube"]', 2)
    assert (second.winner, second.time) == ("tie", UNKNOWN)
    bad = ARENA_55K.replace(",1,0,0", ",1,1,0").replace(",0,0,1", ",,,")
    assert [text.split(":")[0] for text in refusals(tmp_path, bad, ALONE)] == [
        "line 2, column winner_model_a, value '1, 1, 0'",
        "line 3, column winner_model_a, value ', , '",
    ]


def test_arena_rank_needs_only_three_columns(tmp_path: Path) -> None:
    options = Options(**{**vars(ALONE), "row_is": "prompt", "prompt": "not recorded"})
    text = "model_a,model_b,winner\nx,y,model_a\nx,y,tie\n"
    votes = brought(tmp_path, text, options).votes
    assert [(vote.prompt_id, vote.winner) for vote in votes] == [
        (f"{ALONE.study}-row-2", "a"),
        (f"{ALONE.study}-row-3", "tie"),
    ]


@pytest.mark.parametrize("word", ["tie (bothbad)", "both_bad"])
def test_both_bad_is_a_decision(tmp_path: Path, word: str) -> None:
    rows = [ARENA_33K, {**ARENA_33K, "question_id": "q2", "winner": word}, {**ARENA_33K, "question_id": "q3"}]
    rows.append({**rows[1], "question_id": "q4"})
    assert refusals(tmp_path, rows, ARENA) == [
        "line 2: 2 of 4 entries (this is the first) say that both are bad; decide with --both-bad tie"
    ]
    imported = brought(tmp_path, rows, Options(**{**vars(ARENA), "both_bad": "tie"}))
    assert [vote.winner for vote in imported.votes] == ["b", "tie", "b", "tie"]
    assert imported.notes == ("2 of 4 entries, first in line 2, say that both are bad: counted as ties",)


def test_unknown_winners_are_refused_where_other_tools_make_ties_of_them_or_drop_them(tmp_path: Path) -> None:
    rows = [
        {**ARENA_33K, "winner": "Model_A"},
        {**ARENA_33K, "winner": None},
        {**ARENA_33K, "winner": "skip"},
    ]
    found = refusals(tmp_path, rows, ARENA)
    valid = "model_a, model_b, tie, tie (bothbad), both_bad, bothbad"
    assert found[0] == f"line 1, column winner, value 'Model_A': is no winner; valid are {valid}"
    assert found[1].startswith("line 3, column winner, value 'skip': is no winner")
    assert found[2].startswith("line 2: 1 entry (this is the first) hold no answer; decide with --unanswered")
    found = refusals(tmp_path, EVALICA.replace("2,right", "2,Right"), evalica_options())
    assert found[0].startswith(
        "line 3, column winner, value 'Right': is no winner; valid are left, right, tie"
    )


def test_evalica(tmp_path: Path) -> None:
    votes = brought(tmp_path, EVALICA, evalica_options()).votes
    assert [(v.system_a, v.system_b, v.winner) for v in votes] == [
        ("0", "1", "tie"),
        ("0", "2", "b"),
        ("0", "2", "tie"),
        ("1", "0", "a"),
    ]
    assert {v.shown_left for v in votes} == {"none"}
    assert {v.shown_left for v in brought(tmp_path, EVALICA, evalica_options(shown_left="a")).votes} == {"a"}


def test_evalica_rows_on_one_pair_need_to_be_told_apart(tmp_path: Path) -> None:
    found = refusals(tmp_path, EVALICA, evalica_options(row_is=None, prompt_id="p"))
    assert [text[:6] for text in found] == ["line 4", "line 5"]
    assert "already answered this comparison in line 3" in found[0]


def test_what_the_file_does_not_say_must_be_said(tmp_path: Path) -> None:
    assert refusals(tmp_path, EVALICA, Options()) == [
        "line 1: the file does not state the study; give --study",
        "line 1: the file does not state the question; give --question",
        "line 1: the file does not state the rater; give --rater or --rater-column COLUMN",
        "line 1: the file does not state the rater_kind; give --rater-kind",
        "line 1: the file does not state the prompt_id; give --prompt-id or --prompt-id-column COLUMN",
        "line 1: the file does not state the prompt; give --prompt or --prompt-column COLUMN",
    ]


def test_what_the_file_says_may_not_be_said_again(tmp_path: Path) -> None:
    options = Options(**{**vars(ARENA), "rater": "me", "row_is": "prompt"})
    assert refusals(tmp_path, [ARENA_33K], options) == [
        "line 1, column judge: the file states the rater; leave out --rater",
        "line 1, column question_id: the file states the prompt_id; leave out --row-is prompt",
    ]
    absent = Options(**{**vars(ARENA), "rater_column": "jugde"})
    assert "no such column; did you mean 'judge'?" in refusals(tmp_path, [ARENA_33K], absent)[0]


@pytest.mark.parametrize("as_csv", [False, True])
def test_pickapic(tmp_path: Path, as_csv: bool) -> None:
    tie = {**PICK, "label_0": 0.5, "label_1": 0.5, "best_image_uid": "tie", "image_0_uid": "i-7"}
    content: Any = [PICK, tie]
    if as_csv:
        cells = [",".join(f'"{value}"' for value in row.values()) for row in (PICK, tie)]
        content = "\n".join([",".join(PICK), *cells]) + "\n"
    first, second = brought(tmp_path, content, PICK_OPTIONS).votes
    assert (first.winner, first.image_a, first.image_b, first.rater) == ("b", "i-0", "i-1", "17")
    assert (first.prompt, first.time) == ("a red, cube", "2023-04-14T12:45:21.500000Z")
    assert (second.winner, second.prompt_id) == ("tie", first.prompt_id)


def test_pickapic_rows_without_label_or_of_one_model_are_decisions(tmp_path: Path) -> None:
    rows = [PICK, {**PICK, "has_label": False}, {**PICK, "model_1": PICK["model_0"]}]
    assert refusals(tmp_path, rows, PICK_OPTIONS) == [
        "line 2: 1 entry (this is the first) hold no answer; decide with --unanswered leave-out",
        "line 3: 1 entry (this is the first) compare a system with itself; "
        "decide with --same-system leave-out",
    ]
    options = Options(**{**vars(PICK_OPTIONS), "unanswered": "leave-out", "same_system": "leave-out"})
    imported = brought(tmp_path, rows, options)
    assert (len(imported.votes), len(imported.notes)) == (1, 3)


def test_pickapic_times_without_zone_are_a_decision(tmp_path: Path) -> None:
    options = {**vars(PICK_OPTIONS), "time_zone": None}
    assert (
        "have a time without a zone; decide with --time-zone UTC"
        in refusals(tmp_path, [PICK], Options(**options))[0]
    )
    options["time_zone"] = "unknown"
    assert brought(tmp_path, [PICK], Options(**options)).votes[0].time == UNKNOWN


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"label_0": 1.0}, "column label_0, value '1.0, 1.0': label_0 and label_1 must be 1 and 0"),
        ({"label_1": None}, "column label_0, value '0.0, None': label_0"),
        ({"best_image_uid": "i-0"}, "column best_image_uid, value 'i-0': contradicts"),
        ({"has_label": "yes"}, "column has_label, value 'yes': must be true or false"),
        ({"user_id": 1.5}, "column user_id, value '1.5': must be a text or a whole number"),
        ({"created_at": "soon"}, "column created_at, value 'soon': is no time"),
        ({"caption": ""}, "column prompt: is empty"),
    ],
)
def test_pickapic_refuses(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    assert refusals(tmp_path, [{**PICK, **change}], PICK_OPTIONS)[0].startswith(f"line 1, {place}")
