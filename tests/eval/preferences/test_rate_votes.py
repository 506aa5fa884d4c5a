"""People's files and the automatic raters' one together: keys, systems, prompts and copies that are refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from eval.preferences.key import StudyKey, write_key
from eval.preferences.rate_votes import all_votes
from eval.preferences.reader import write_votes
from eval.preferences.record import PreferenceError, Vote
from eval.prompts import Prompt

PROMPTS = (Prompt("parti-0001", "a circle"), Prompt("parti-0002", "a ring"))
SYSTEMS = ("one", "two")
CODES = {"sys-bcd": "one", "sys-fgh": "two"}


def vote(rater: str = "anna", prompt: int = 0, **more: object) -> Vote:
    given = PROMPTS[prompt]
    base = Vote(
        given.prompt_id, given.prompt, "one", "two", f"one/{prompt}.png", f"two/{prompt}.png", "quality", "a",
        rater, "human", "a", "2026-01-02T03:04:05Z", "no", "study-k",
    )  # fmt: skip
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def oracle(prompt: int = 0) -> Vote:
    return vote(
        "realism", prompt, rater_kind="oracle", shown_left="none", time="unknown", study="s-automatic"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "preferences").mkdir()
    write_votes(tmp_path / "automatic.csv", [oracle(0), oracle(1)])
    return tmp_path / "preferences"


def votes(tmp_path: Path, folder: Path) -> tuple[Vote, ...]:
    return all_votes([folder], SYSTEMS, PROMPTS, tmp_path / "automatic.csv", tmp_path / "study")


def test_people_come_before_programs_and_none_is_lost(folder: Path, tmp_path: Path):
    assert [v.rater_kind for v in votes(tmp_path, folder)] == ["oracle", "oracle"]
    write_votes(tmp_path / "preferences" / "anna.csv", [vote(), vote(prompt=1)])
    write_votes(tmp_path / "preferences" / "ben.csv", [vote("ben")])
    (tmp_path / "preferences" / "README.md").write_text("notes")
    assert [v.rater for v in votes(tmp_path, folder)] == ["anna", "anna", "ben", "realism", "realism"]


def test_without_a_folder_there_are_no_people(folder: Path, tmp_path: Path):
    (tmp_path / "preferences").rmdir()
    assert {v.rater_kind for v in votes(tmp_path, folder)} == {"oracle"}


def coded() -> Vote:
    return vote(system_a="sys-bcd", system_b="sys-fgh", image_a="img-bcd", image_b="img-fgh")


@pytest.mark.parametrize("place", ["study", "preferences"])
def test_codes_are_read_with_the_key_of_the_study_or_beside_the_votes(
    folder: Path, tmp_path: Path, place: str
):
    (tmp_path / "study").mkdir()
    write_votes(tmp_path / "preferences" / "anna.csv", [coded()])
    with pytest.raises(PreferenceError, match="put that study's key file beside the votes"):
        votes(tmp_path, folder)
    key = StudyKey("study-k", CODES, {"img-bcd": "one/0.png", "img-fgh": "two/0.png"})
    write_key(tmp_path / place / "study-k.key.json", key)
    found = votes(tmp_path, folder)[0]
    assert (found.system_a, found.system_b, found.image_b) == ("one", "two", "two/0.png")


def test_two_keys_of_one_study_that_differ_are_refused(folder: Path, tmp_path: Path):
    (tmp_path / "study").mkdir()
    write_votes(tmp_path / "preferences" / "anna.csv", [coded()])
    images = {"img-bcd": "one/0.png", "img-fgh": "two/0.png"}
    write_key(tmp_path / "study" / "study-k.key.json", StudyKey("study-k", CODES, images))
    swapped = StudyKey("study-k", {"sys-bcd": "two", "sys-fgh": "one"}, images)
    write_key(tmp_path / "preferences" / "study-k.key.json", swapped)
    with pytest.raises(PreferenceError, match="another study's"):
        votes(tmp_path, folder)


def test_a_system_that_the_scale_does_not_have_is_refused(folder: Path, tmp_path: Path):
    write_votes(tmp_path / "preferences" / "anna.csv", [vote(system_b="three")])
    with pytest.raises(PreferenceError, match="three"):
        votes(tmp_path, folder)


def test_votes_on_another_scales_prompts_are_refused(folder: Path, tmp_path: Path):
    """Breaks when votes on other images count in the ratings, or the refusal does not say in which file they are."""
    other = dataclasses.replace(vote(), prompt="a square")
    write_votes(tmp_path / "preferences" / "anna.csv", [vote(prompt=1), other])
    unknown = dataclasses.replace(vote("ben"), prompt_id="p-7")
    write_votes(tmp_path / "preferences" / "ben.csv", [unknown])
    with pytest.raises(PreferenceError) as caught:
        votes(tmp_path, folder)
    first, second = str(caught.value).splitlines()
    assert re.search(
        r"anna\.csv, line 3, column prompt, .*is not prompt 'parti-0001', 'a circle'; votes on other images",
        first,
    )
    assert re.search(r"ben\.csv, line 2, column prompt_id, .*is no prompt that is compared", second)


def test_the_automatic_raters_own_file_is_not_counted_twice(folder: Path, tmp_path: Path):
    write_votes(tmp_path / "preferences" / "copy.csv", [oracle()])
    with pytest.raises(PreferenceError, match="or it counts twice"):
        votes(tmp_path, folder)
