"""The server's votes on disk: SQLite, so that an answer that was confirmed is there after a kill or a power cut."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from add.errors import InputError
from eval.preferences.record import Vote, Winner
from eval.preferences.study.plan import StudyPlan

_TABLES = """
CREATE TABLE IF NOT EXISTS study (id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS raters (
    rater TEXT PRIMARY KEY,
    list TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    rater TEXT NOT NULL REFERENCES raters,
    trial TEXT NOT NULL,
    winner TEXT CHECK (winner IN ('a', 'b', 'tie')),
    time TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS votes (
    rater TEXT NOT NULL REFERENCES raters,
    trial TEXT NOT NULL,
    winner TEXT NOT NULL CHECK (winner IN ('a', 'b', 'tie')),
    time TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES events,
    PRIMARY KEY (rater, trial)
) STRICT;
"""
# events is a log that only grows: an undo is a row without a winner. votes holds the answers that stand.


class RefusedError(InputError):
    """A rater's request that is refused; nothing was changed."""


class KnownRaterError(RefusedError):
    """Somebody has already started under this name."""


@dataclass(frozen=True)
class Joined:
    """A rater's list, and the answers so far: trial id -> winner."""

    name: str
    answers: dict[str, Winner]


class Store:
    """Votes of one study. Every method is one transaction, on disk when it returns; safe from several threads."""

    def __init__(self, file: Path, study: StudyPlan) -> None:
        """Open or make the file. Raises InputError where it is no file of votes, or another study's."""
        self._study, self._lock = study, threading.Lock()
        self._trials = {(name, t.id): t for name, trials in study.lists.items() for t in trials}
        try:
            self._database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise InputError(file, f"cannot be opened: {error}") from error
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            # FULL: the log is on disk before a commit returns; WAL's usual NORMAL may lose the last ones.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA foreign_keys = ON")
            self._database.executescript(_TABLES)
            with self._transaction() as database:
                found = database.execute("SELECT id FROM study").fetchone()
                if found is None:
                    database.execute("INSERT INTO study VALUES (?)", (study.study,))
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise InputError(file, f"is not a file of votes: {error}") from error
        if found is not None and found[0] != study.study:
            self._database.close()
            raise InputError(file, f"holds votes of {found[0]}, but this is {study.study}; name another file")

    def close(self) -> None:
        """Nothing is lost without it."""
        with self._lock:
            self._database.close()

    def join(self, rater: str, resume: bool) -> Joined:
        """The rater's list; for a new rater the first that nobody has. Raises RefusedError where there is none.

        Without `resume`, a name that has started raises KnownRaterError: two people may have chosen one name.
        """
        with self._transaction() as database:
            row = database.execute("SELECT list FROM raters WHERE rater = ?", (rater,)).fetchone()
            if row is None:
                taken = {name for (name,) in database.execute("SELECT list FROM raters")}
                free = next((name for name in self._study.lists if name not in taken), None)
                if free is None:
                    raise RefusedError(f"all {len(taken)} lists of this study are taken; ask the organiser")
                database.execute("INSERT INTO raters VALUES (?, ?)", (rater, free))
                return Joined(free, {})
            found = database.execute("SELECT trial, winner FROM votes WHERE rater = ?", (rater,))
            answers = dict(found.fetchall())
        if not resume:
            raise KnownRaterError(
                f"Somebody has started under this name, with {len(answers)} answers so far. "
                "If that was you, continue; if not, choose another name."
            )
        return Joined(row[0], answers)

    def votes(self) -> tuple[Vote, ...]:
        """All answers that stand, in the order of the lists and of the trials in them."""
        query = "SELECT list, rater, trial, winner, time FROM votes JOIN raters USING (rater)"
        with self._transaction() as database:
            rows = {(name, trial): rest for name, rater, trial, *rest in database.execute(query)}
            raters = dict(database.execute("SELECT list, rater FROM raters").fetchall())
        return tuple(
            self._study.vote(self._trials[place], raters[place[0]], *rows[place])
            for place in self._trials
            if place in rows
        )

    def vote(self, rater: str, trial: str, winner: Winner | None, key: str, time: str) -> None:
        """Record an answer, or take it back where `winner` is None; the log keeps both.

        The same key again changes nothing. Raises RefusedError where the trial has an answer, or none to take back.
        """
        if winner == "tie" and not self._study.ties:
            raise RefusedError("this study asks for a choice; a tie is not allowed")
        with self._transaction() as database:
            row = database.execute("SELECT list FROM raters WHERE rater = ?", (rater,)).fetchone()
            if row is None:
                raise RefusedError("nobody has joined under this name")
            if (row[0], trial) not in self._trials:
                raise RefusedError("this comparison is not in the rater's list")
            before = "SELECT rater, trial, winner FROM events WHERE key = ?"
            if (known := database.execute(before, (key,)).fetchone()) is not None:
                if known != (rater, trial, winner):
                    raise RefusedError("this key was used for another answer")
                return
            insert = "INSERT INTO events (key, rater, trial, winner, time) VALUES (?, ?, ?, ?, ?)"
            number = database.execute(insert, (key, rater, trial, winner, time)).lastrowid
            if winner is None:
                gone = database.execute("DELETE FROM votes WHERE rater = ? AND trial = ?", (rater, trial))
                if gone.rowcount != 1:
                    raise RefusedError("this comparison has no answer to take back")
                return
            try:
                row = (rater, trial, winner, time, number)
                database.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise RefusedError("this comparison is answered already") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; IMMEDIATE, so that what was read still holds when it is written."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
