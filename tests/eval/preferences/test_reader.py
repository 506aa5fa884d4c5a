"""Preference files: the documented example, writing and reading back, folders, and codes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.preferences.reader import read_folder, read_votes, write_votes
from eval.preferences.record import COLUMNS, UNKNOWN, PreferenceError, Vote
from tests.support.preference_votes import OTHER, VOTE, same

ROOT = Path(__file__).parents[3]


def example() -> str:
    found = re.search(r"```csv\n(.*?)```", (ROOT / "docs/preferences.md").read_text(), re.S)
    assert found
    return found[1]


def test_the_documented_example_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "pilot.csv"
    file.write_text(example())
    votes = read_votes(file, {"add-1step", "teacher-25steps"})
    assert [vote.winner for vote in votes] == ["a", "tie", "b", "a"]
    assert [vote.line for vote in votes] == [2, 3, 4, 5]
    assert votes[2].prompt == 'a sign that says "hello", in rain'
    assert votes[3].passed
    write_votes(tmp_path / "again.csv", votes)
    assert (tmp_path / "again.csv").read_text() == example()


def test_the_document_names_every_column_in_order() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "docs/preferences.md").read_text(), re.M)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert tuple(named[: len(COLUMNS)]) == COLUMNS


ids = st.text(st.sampled_from("abz09-_.,;:'\"<>/&ß 漢"), max_size=8).map(lambda text: f"x{text}x")
odd = [
    '<script>alert("x")</script>',
    'say "hi", twice',
    "line\nbreak",
    "a\r\nb",
    "old\rmac",
    ",",
    '"',
    " x ",
    "a\t",
    "-1 = @",
]
plain = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffd"), min_size=1)
prompts = st.one_of(
    st.sampled_from(odd), plain.map(lambda text: f"a {text}"), plain.map(lambda text: f"{text}\n.\n")
)


@st.composite
def vote_lists(draw: st.DrawFn) -> list[Vote]:
    count = draw(st.integers(1, 6))
    votes = []
    for k in range(count):
        known = draw(st.booleans())
        votes.append(
            Vote(
                prompt_id=f"row{k}{draw(ids)}",
                prompt=draw(prompts),
                system_a=f"a{draw(ids)}",
                system_b=f"b{draw(ids)}",
                image_a=f"left {k}" if known else UNKNOWN,
                image_b=f"right {k}" if known else UNKNOWN,
                question=draw(st.sampled_from(("quality", "alignment"))),
                winner=draw(st.sampled_from(("a", "b", "tie"))),
                rater=draw(ids),
                rater_kind="human",
                shown_left=draw(st.sampled_from(("a", "b", "none"))),
                time=draw(st.sampled_from((UNKNOWN, "2026-11-21T13:22:05Z", "2026-11-21T13:22:05.25Z"))),
                attention_check=draw(st.sampled_from(("no", "a", "b"))),
                study=draw(ids),
            )
        )
    return votes


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(vote_lists())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, votes: list[Vote]) -> None:
    file = tmp_path_factory.mktemp("votes") / "votes.csv"
    write_votes(file, votes)
    read = read_votes(file)
    assert same(read, votes)
    lines = file.read_bytes().split(b"\n")
    for k, vote in enumerate(read):  # the physical line in which the row starts
        assert lines[vote.line - 1].lstrip(b'"').startswith(f"row{k}".encode())
    with file.open(newline="", encoding="utf-8") as stream:  # another reader sees the same cells
        cells = list(csv.reader(stream, strict=True))
    assert cells == [list(COLUMNS), *([getattr(vote, name) for name in COLUMNS] for vote in votes)]


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    for bad, column in (
        (dataclasses.replace(OTHER, rater=""), "rater"),
        (dataclasses.replace(OTHER, winner="draw"), "winner"),  # type: ignore[arg-type]
        (dataclasses.replace(VOTE, winner="b"), "rater"),
        (dataclasses.replace(OTHER, prompt="=1+1"), "prompt"),
    ):
        with pytest.raises(PreferenceError) as caught:
            write_votes(file, [VOTE, bad])
        assert [(p.line, p.column) for p in caught.value.problems] == [(3, column)]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "prompt", ["= is a sign", "-5 degrees", "@home", "+1", "=, written large", "a =SUM(A1)"]
)
def test_a_prompt_may_look_odd(tmp_path: Path, prompt: str) -> None:
    vote = dataclasses.replace(VOTE, prompt=prompt)
    write_votes(tmp_path / "votes.csv", [vote])
    assert same(read_votes(tmp_path / "votes.csv"), [vote])


@pytest.mark.parametrize(
    "prompt", ["=A1", "=SUM(A1)", "=1+1", "=-1", '="x"', "=(1)", "@cmd|' /c calc'!A0", "#REF!"]
)
def test_a_prompt_may_not_be_a_formula(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(PreferenceError, match="formula"):
        write_votes(tmp_path / "votes.csv", [dataclasses.replace(VOTE, prompt=prompt)])


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    write_votes(file, [VOTE, OTHER])
    text = file.read_text().replace(",a,anna,", ",A,,").replace("2026-11-21T13:22:05Z", "21.11.26")
    file.write_text(text + "short\n")
    with pytest.raises(PreferenceError) as caught:
        read_votes(file)
    assert [(p.line, p.column) for p in caught.value.problems] == [
        (2, "winner"),
        (2, "rater"),
        (2, "time"),
        (3, "time"),
        (4, "prompt"),
    ]
    assert len(str(caught.value).splitlines()) == 5
    assert str(caught.value).startswith(f"{file}, line 2, column winner, value 'A': is no winner")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match="cannot be read: No such file"):
        read_votes(tmp_path / "absent.csv")
    with pytest.raises(PreferenceError, match="is no folder"):
        read_folder(tmp_path / "absent")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.binary(max_size=3), st.integers(0, 3))
def test_damaged_bytes_give_votes_or_problems_and_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, put: bytes, cut: int
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "votes.csv"
    good = example().encode()
    at = place % len(good)
    file.write_bytes(good[:at] + put + good[at + cut :])
    with contextlib.suppress(PreferenceError):
        assert len(read_votes(file)) == 4, "a vote was lost or won"
