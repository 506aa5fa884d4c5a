"""The study's server: durable, exactly once, and deaf to what other web sites send."""

from __future__ import annotations

import http.client
import json
import os
import random
import sqlite3
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from add.errors import REFUSED, InputError
from eval.preferences.key import read_keys
from eval.preferences.reader import read_votes
from eval.preferences.study.plan import StudyPlan
from eval.preferences.study.server import main
from eval.preferences.study.store import KnownRaterError, RefusedError, Store
from tests.support.browser import SYSTEMS, Server, small_study

RATERS = 20
NOW = "2026-01-02T03:04:05Z"
JSON = {"Content-Type": "application/json"}


def send(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] = JSON
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Rater(threading.Thread):
    """Votes as the page does: one answer at a time, sent again with its key until it is acknowledged.

    Now and then it undoes an answer, and sends what was acknowledged a second time.
    """

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.port, self.rater, self.draw = port, f"rater {number}", random.Random(number)
        self.standing: dict[str, str] = {}
        self.sent_again = self.undone = 0
        self.problem: str | None = None

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                status, content = send(self.port, "POST", path, body)
            except (OSError, http.client.HTTPException):
                self.sent_again += 1
                time.sleep(0.05)
                continue
            if status == 200:
                return dict(json.loads(content))
            raise AssertionError(f"{path} {body}: {status} {content!r}")

    def act(self, path: str, body: dict[str, Any]) -> None:
        keyed = {**body, "rater": self.rater, "key": f"{self.draw.getrandbits(128):032x}"}
        self.post(path, keyed)
        if self.draw.random() < 0.2:
            self.post(path, keyed)

    def run(self) -> None:
        try:
            for trial in self.post("/api/join", {"rater": self.rater, "resume": True})["trials"]:
                self.vote(trial["id"])
                if self.draw.random() < 0.2:
                    self.act("/api/undo", {"trial": trial["id"]})
                    self.undone += 1
                    self.vote(trial["id"])
        except Exception as error:
            self.problem = repr(error)

    def vote(self, trial: str) -> None:
        winner = self.draw.choice(["a", "b", "tie"])
        self.act("/api/vote", {"trial": trial, "winner": winner})
        self.standing[trial] = winner


def test_twenty_raters_and_two_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    study, directory = small_study(tmp_path, raters=RATERS, votes=60)
    total = sum(map(len, study.lists.values()))
    with Server(directory) as server:
        raters = [Rater(server.port, number) for number in range(RATERS)]
        for rater in raters:
            rater.start()
        for share in (0.3, 0.6):
            while sum(len(rater.standing) for rater in raters) < share * total:
                assert any(rater.is_alive() for rater in raters), [r.problem for r in raters]
                time.sleep(0.01)
            server.kill()
            server.start()
        for rater in raters:
            rater.join(timeout=500)
        assert [rater.problem for rater in raters] == [None] * RATERS
        content = urllib.request.urlopen(f"{server.url}/export.csv", timeout=120).read()
    assert sum(rater.sent_again for rater in raters) > 0, "no request met the kill"
    (tmp_path / "served.csv").write_bytes(content)
    assert main(["--study", str(directory), "--export", str(tmp_path / "votes.csv")]) == 0
    assert (tmp_path / "votes.csv").read_bytes() == content
    votes = read_votes(tmp_path / "votes.csv", SYSTEMS, read_keys(directory))
    assert len(votes) == total
    expected = {rater.rater: sorted(rater.standing.values()) for rater in raters}
    assert {r: sorted(v.winner for v in votes if v.rater == r) for r in expected} == expected
    database = sqlite3.connect(directory / "votes.sqlite3")
    stored = database.execute("SELECT rater, trial, winner FROM votes").fetchall()
    assert {(r, t): w for r, t, w in stored} == {
        (r.rater, t): w for r in raters for t, w in r.standing.items()
    }
    undone = database.execute("SELECT count(*) FROM events WHERE winner IS NULL").fetchone()[0]
    assert undone == sum(rater.undone for rater in raters) > 0
    assert database.execute("SELECT count(*) FROM events").fetchone()[0] == total + 2 * undone


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    study, directory = small_study(tmp_path_factory.mktemp("served"), votes=2)
    with Server(directory) as server:
        yield study, server


def test_only_the_page_and_the_images_are_served(served: tuple[StudyPlan, Server]) -> None:
    study, server = served
    image = study.images()[0]
    status, content = send(server.port, "GET", f"/images/{image}.png")
    assert (status, content[:4]) == (200, b"\x89PNG")
    key = f"{study.study}.key.json"
    paths = ["/study.json", f"/{key}", f"/images/{key}", f"/images/../{key}", "/images/..%2Fstudy.json"]
    paths += [
        "/images/%2e%2e/study.json",
        f"/images/..%2Fimages%2F{image}.png",
        "/votes.sqlite3",
        "/images/",
        "//",
    ]
    paths += [
        "/images/img-zzzz.png",
        f"/images/{image}.png%00",
        "/pages/rater-01.html",
        "/%2e%2e/systems.json",
    ]
    for path in paths:
        status, content = send(server.port, "GET", path)
        assert status == 404, path
        assert b"sys-" not in content
    assert send(server.port, "GET", "/export.csv")[0] == 409, "no votes yet"
    joined = send(server.port, "POST", "/api/join", {"rater": "Eve", "resume": True})
    assert joined[0] == 200
    assert b"sys-" not in joined[1]
    assert b"check" not in joined[1], "the rater's browser is told which trials are checks"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({**JSON, "Origin": "https://example.org"}, {"rater": "Mallory"}, 403),
        ({**JSON, "Origin": "null"}, {"rater": "Mallory"}, 403),
        ({"Content-Type": "text/plain"}, {"rater": "Mallory"}, 415),
        ({**JSON, "Host": "rebound.example.org"}, {"rater": "Mallory"}, 421),
        (JSON, b"{", 422),
        (JSON, b'{"rater": "Mallory", "list": "rater-01"}', 422),
        (JSON, b'{"rater": 5}', 422),
        (JSON, {"rater": "=1+1"}, 409),
        (JSON, {"rater": "x" * 5000}, 409),
    ],
)
def test_foreign_and_malformed_requests_change_nothing(
    served: tuple[StudyPlan, Server], headers: dict[str, str], body: object, status: int
) -> None:
    _, server = served
    assert send(server.port, "POST", "/api/join", body, headers)[0] == status
    database = sqlite3.connect(server.directory / "votes.sqlite3")
    assert database.execute("SELECT count(*) FROM raters WHERE rater <> 'Eve'").fetchone()[0] == 0


def test_the_store_takes_each_answer_once(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path, raters=2, votes=2)
    store = Store(tmp_path / "v.sqlite3", study)
    assert store.join("Ann", False).name == "rater-01"
    assert store.join("Bob", False).name == "rater-02"
    with pytest.raises(KnownRaterError, match="with 0 answers"):
        store.join("Ann", False)
    with pytest.raises(RefusedError, match="all 2 lists of this study are taken"):
        store.join("Cleo", False)
    store.vote("Ann", "t0001", "a", "k1", NOW)
    store.vote("Ann", "t0001", "a", "k1", NOW)
    for arguments, message in (
        (("Ann", "t0001", "b", "k2", NOW), "answered already"),
        (("Ann", "t0001", "b", "k1", NOW), "key was used for another answer"),
        (("Bob", "t0001", "a", "k1", NOW), "key was used for another answer"),
        (("Ann", "t9999", "a", "k3", NOW), "not in the rater's list"),
        (("Cleo", "t0001", "a", "k4", NOW), "nobody has joined"),
    ):
        with pytest.raises(RefusedError, match=message):
            store.vote(*arguments)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="no answer to take back"):
        store.vote("Ann", "t0002", None, "k5", NOW)
    store.vote("Ann", "t0001", None, "k6", NOW)
    store.vote("Ann", "t0001", None, "k6", NOW)
    store.vote("Ann", "t0001", "a", "k1", NOW)  # a late second delivery of what was undone since
    assert store.votes() == ()
    store.vote("Ann", "t0001", "tie", "k7", NOW)
    store.close()
    assert Store(tmp_path / "v.sqlite3", study).join("Ann", True).answers == {"t0001": "tie"}


def test_votes_are_on_disk_before_they_are_confirmed(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path, votes=1)
    database = Store(tmp_path / "v.sqlite3", study)._database
    assert database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_is_none_is_refused(
    tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, directory = small_study(tmp_path, votes=1)
    with pytest.raises(SystemExit):
        main(["--study", str(directory), "--port", port])
    assert "argument --port: " in capsys.readouterr().err


def test_a_file_of_another_study_is_refused_and_no_votes_are_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, directory = small_study(tmp_path, votes=1)
    other = study.model_copy(update={"study": "study-other"})
    Store(directory / "votes.sqlite3", other).close()
    line = ["--study", str(directory), "--export", str(tmp_path / "votes.csv")]
    assert main(line) == REFUSED
    assert "holds votes of study-other" in capsys.readouterr().err
    assert main([*line, "--votes", str(tmp_path / "new.sqlite3")]) == REFUSED
    assert "nobody has voted yet" in capsys.readouterr().err
    assert not os.path.lexists(tmp_path / "votes.csv")
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(InputError, match="is not a file of votes"):
        Store(tmp_path / "text", study)
    with pytest.raises(InputError, match="cannot be opened"):
        Store(tmp_path / "no folder" / "votes.sqlite3", study)
    assert main(["--study", str(tmp_path / "absent")]) == REFUSED
    assert "make the study first" in capsys.readouterr().err


def test_a_study_without_ties_takes_none(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path, votes=1)
    store = Store(tmp_path / "v.sqlite3", study.model_copy(update={"ties": False}))
    store.join("Ann", False)
    with pytest.raises(RefusedError, match="asks for a choice"):
        store.vote("Ann", "t0001", "tie", "k", NOW)
