"""Folders of preference files: order, what does not belong, contradictions between files, and codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eval.preferences.key import StudyKey, write_key
from eval.preferences.reader import read_folder, read_votes, write_votes
from eval.preferences.record import PreferenceError
from tests.support.preference_votes import CODED, KEY, OTHER, VOTE, same


def reasons(error: pytest.ExceptionInfo[PreferenceError]) -> list[tuple[str, int, str, str]]:
    return [(p.file.name, p.line, p.column, p.reason) for p in error.value.problems]


def test_a_folder_is_read_in_order_and_notes_are_passed_over(tmp_path: Path) -> None:
    assert read_folder(tmp_path) == ()
    write_votes(tmp_path / "b.csv", [OTHER])
    write_votes(tmp_path / "a.csv", [VOTE])
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden").write_text("")
    assert same(read_folder(tmp_path), [VOTE, OTHER])


def test_contradictions_between_files_are_refused(tmp_path: Path) -> None:
    write_votes(tmp_path / "a.csv", [VOTE])
    swapped = dataclasses.replace(
        VOTE, system_a="beta", system_b="alpha", image_a="i2", image_b="i1", winner="b"
    )
    machine = dataclasses.replace(OTHER, rater_kind="model", prompt_id="p1")
    write_votes(tmp_path / "b.csv", [swapped])
    write_votes(tmp_path / "c.csv", [machine])
    with pytest.raises(PreferenceError) as caught:
        read_folder(tmp_path)
    found = reasons(caught)
    assert [(name, line, column) for name, line, column, _ in found] == [
        ("b.csv", 2, "rater"),
        ("c.csv", 2, "rater_kind"),
        ("c.csv", 2, "prompt"),
    ]
    assert all(f"{tmp_path / 'a.csv'}, line 2" in reason for *_, reason in found)


@pytest.mark.parametrize("name", ["votes.xlsx", "votes.CSV", "votes.csv.bak", "votes.tsv"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    write_votes(tmp_path / "a.csv", [VOTE])
    (tmp_path / name).write_text("x")
    with pytest.raises(PreferenceError, match=f"{name}: is no preference file .*would be lost"):
        read_folder(tmp_path)


def test_a_folder_of_votes_in_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "more.csv").mkdir()
    with pytest.raises(PreferenceError, match=r"more.csv: is no preference file"):
        read_folder(tmp_path)


def test_codes_become_names_where_the_key_is(tmp_path: Path) -> None:
    write_votes(tmp_path / "votes.csv", [CODED])
    assert same(read_folder(tmp_path), [CODED]), "with neither key nor systems, codes stand"
    with pytest.raises(
        PreferenceError, match="code of the study 'pilot', put that study's key file beside the votes"
    ):
        read_folder(tmp_path, {"alpha", "beta"})
    write_key(tmp_path / "pilot.key.json", KEY)
    assert same(read_folder(tmp_path, {"alpha", "beta"}), [VOTE])
    assert same(read_votes(tmp_path / "votes.csv", None, {"pilot": KEY}), [VOTE])
    with pytest.raises(
        PreferenceError, match="stands for 'beta', which is no known system; did you mean 'bet'"
    ):
        read_folder(tmp_path, {"alpha", "bet"})


def test_a_file_of_codes_and_one_of_names_are_the_same_votes(tmp_path: Path) -> None:
    write_key(tmp_path / "pilot.key.json", KEY)
    write_votes(tmp_path / "codes.csv", [CODED])
    write_votes(tmp_path / "names.csv", [VOTE])
    with pytest.raises(
        PreferenceError, match=r"names.csv, line 2.*already answered this comparison in .*codes.csv"
    ):
        read_folder(tmp_path)


def test_unknown_codes_of_a_known_study_are_refused(tmp_path: Path) -> None:
    write_votes(tmp_path / "v.csv", [dataclasses.replace(CODED, system_b="sys-wa", image_a="img-xx")])
    with pytest.raises(PreferenceError) as caught:
        read_votes(tmp_path / "v.csv", None, {"pilot": KEY})
    assert [(column, reason.split(";")[0]) for _, _, column, reason in reasons(caught)] == [
        ("image_a", "is no image code of the study 'pilot'"),
        ("system_b", "is no system code of the study 'pilot'"),
    ]


def test_two_codes_of_one_system_are_one_system(tmp_path: Path) -> None:
    key = StudyKey("pilot", {"sys-ka": "alpha", "sys-wo": "alpha"}, KEY.images)
    write_votes(tmp_path / "v.csv", [CODED])
    with pytest.raises(PreferenceError, match="is system_a too"):
        read_votes(tmp_path / "v.csv", None, {"pilot": key})


def test_attention_checks_through_codes(tmp_path: Path) -> None:
    key = StudyKey(
        "pilot", {"sys-ka": "alpha", "sys-wo": "attention-check"}, {"img-ka": "i1", "img-wo": "i1"}
    )
    check = dataclasses.replace(CODED, attention_check="a")
    write_votes(tmp_path / "v.csv", [check])
    (vote,) = read_votes(tmp_path / "v.csv", {"alpha"}, {"pilot": key})
    assert (vote.system_b, vote.passed) == ("attention-check", True)
    write_votes(tmp_path / "v.csv", [dataclasses.replace(CODED, attention_check="b")])
    with pytest.raises(PreferenceError, match="any attentive rater prefers a; write a"):
        read_votes(tmp_path / "v.csv", {"alpha"}, {"pilot": key})
