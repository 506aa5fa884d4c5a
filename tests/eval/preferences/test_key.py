"""Key files: written and read back, and refused with their field."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.preferences.key import StudyKey, read_key, read_keys, resolved, write_key
from eval.preferences.record import PreferenceError

KEY = StudyKey(
    "pilot", {"sys-ka": "baseline, 1 step", "sys-wo": "teacher"}, {"img-ka": "p1-0", "img-wo": "p1-1"}
)


def test_a_key_is_read_back(tmp_path: Path) -> None:
    write_key(tmp_path / "pilot.key.json", KEY)
    assert read_key(tmp_path / "pilot.key.json") == KEY
    assert read_keys(tmp_path) == {"pilot": KEY}
    assert [file.name for file in tmp_path.iterdir()] == ["pilot.key.json"]


def test_codes_and_names_are_resolved_and_nothing_else() -> None:
    for value in ("sys-ka", "baseline, 1 step"):
        assert resolved(value, KEY.systems) == "baseline, 1 step"
    for value in ("img-wo", "p1-1"):
        assert resolved(value, KEY.images) == "p1-1"
    assert resolved("sys-ke", KEY.systems) is None
    assert resolved("p1-0", KEY.systems) is None


def test_a_code_that_is_also_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'teacher' is both the code and the name of a system"):
        StudyKey("pilot", {"sys-ka": "teacher", "teacher": "baseline"}, {})


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("[]", "", "exactly the fields study, systems, images"),
        ('{"study": "s", "systems": {}}', "", "exactly the fields"),
        ('{"study": "s", "systems": {}, "images": {}, "more": 1}', "", "exactly the fields"),
        ('{"study": "", "systems": {}, "images": {}}', "study", "not empty"),
        ('{"study": 3, "systems": {}, "images": {}}', "study", "must be a text"),
        ('{"study": "s ", "systems": {}, "images": {}}', "study", "white space"),
        ('{"study": "s", "systems": [], "images": {}}', "systems", "an object of codes and names"),
        ('{"study": "s", "systems": {"a": 1}, "images": {}}', "systems", "'a' must stand for a text"),
        ('{"study": "s", "systems": {}, "images": {"": "x"}}', "images", "neither may be empty"),
        ('{"study": "s", "systems": {"=a": "x"}, "images": {}}', "systems", "formula"),
        ('{"study": "s", "systems": {"a": "x", "a": "y"}, "images": {}}', "a", "twice in one object"),
        ('{"study": "s", "systems": {"x": "y", "y": "z"}, "images": {}}', "", "both the code and the name"),
        ('{"study": "s",\n', "", "not JSON"),
        ('{"study": NaN, "systems": {}, "images": {}}', "", "no number of JSON"),
    ],
)
def test_a_bad_key_is_refused_with_its_field(tmp_path: Path, text: str, column: str, reason: str) -> None:
    file = tmp_path / "s.key.json"
    file.write_text(text)
    with pytest.raises(PreferenceError, match=reason) as caught:
        read_key(file)
    assert [(p.file, p.column) for p in caught.value.problems] == [(file, column)]


def test_two_keys_of_one_study_are_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "a.key.json", KEY)
    write_key(tmp_path / "b.key.json", KEY)
    with pytest.raises(PreferenceError, match=r"b.key.json.*already in a.key.json"):
        read_keys(tmp_path)


def test_bytes_of_a_key(tmp_path: Path) -> None:
    file = tmp_path / "s.key.json"
    file.write_bytes(b'{\n"study": "\xe9"}')
    with pytest.raises(PreferenceError, match="line 2: byte 0xe9 is not UTF-8"):
        read_key(file)
    file.write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(PreferenceError, match="byte order mark"):
        read_key(file)
    with pytest.raises(PreferenceError, match="cannot be read"):
        read_key(tmp_path / "absent")
