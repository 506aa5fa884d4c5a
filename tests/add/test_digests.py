"""Digests of files: every change of content is seen, nothing else is, and what did not change is not read again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from add import digests
from add.digests import digest_of, file_digest, file_digests, file_state, remembered
from add.errors import InputError


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A memory of the test's own that keeps files of any age."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_SETTLED", -1e9)
    return tmp_path / "cache"


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"votes")
    (tmp_path / "b").write_bytes(b"")
    expected = [hashlib.sha256(content).hexdigest() for content in (b"votes", b"")]
    assert file_digests([tmp_path / "a", tmp_path / "b"]) == expected


@pytest.mark.parametrize("age", ["older", "the same"])
def test_a_change_is_seen_whatever_the_time_of_modification_says(tmp_path: Path, age: str):
    file = tmp_path / "votes.csv"
    file.write_bytes(b"left")
    before, state = file_digest(file), file.stat()
    file.write_bytes(b"righ")
    time = state.st_mtime_ns - (10**12 if age == "older" else 0)
    os.utime(file, ns=(time, time))
    assert file_digest(file) != before


def test_a_file_that_takes_the_place_of_another_is_seen(tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"left")
    new.write_bytes(b"righ")
    os.utime(new, ns=(old.stat().st_mtime_ns,) * 2)
    before = file_digest(old)
    new.replace(old)
    assert file_digest(old) != before


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    before = file_digest(file)
    monkeypatch.setattr(digests, "_hash", lambda path: pytest.fail(f"{path} was read"))
    assert file_digest(file) == before


def test_a_file_younger_than_the_clock_can_tell_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(digests, "_SETTLED", 1e9)
    file = tmp_path / "young"
    file.write_bytes(b"1")
    file_digest(file)
    monkeypatch.setattr(digests, "_hash", lambda path: "read again")
    assert file_digest(file) == "read again"


@pytest.mark.parametrize("damage", ["no folder", "no database"])
def test_without_a_memory_files_are_read(tmp_path: Path, memory: Path, damage: str):
    if damage == "no folder":
        memory.write_text("a file in its place")
    else:
        (memory / "addbench").mkdir(parents=True)
        (memory / "addbench" / "digests.sqlite").write_bytes(
            b"not a database, but long enough to be read as one" * 9
        )
    (tmp_path / "a").write_bytes(b"votes")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"votes").hexdigest()


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "there").write_bytes(b"")
    with pytest.raises(InputError) as refused:
        file_digests(tmp_path / name for name in ("one", "there", "two"))
    assert [p.split(":")[0] for p in refused.value.problems] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_a_remembered_digest_is_made_again_when_a_file_changes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1")
    made: list[str] = []

    def digest() -> str:
        made.append("x")
        return str(len(made))

    def ask(what: str = "set") -> str:
        state = file_state(tmp_path / "a")
        assert state is not None
        return remembered(what, {"a": state}, digest)

    assert [ask(), ask(), ask("another set")] == ["1", "1", "2"]
    (tmp_path / "a").write_bytes(b"22")
    assert ask() == "3"


def test_the_order_of_keys_changes_no_digest():
    assert digest_of({"a": 1, "b": [2.5]}) == digest_of({"b": [2.5], "a": 1}) != digest_of({"a": 1, "b": [2]})
