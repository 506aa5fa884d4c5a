"""The first miniature beside the present one: the shipped table has the shipped records, ranks are by means."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from add.errors import InputError
from benchmarks.before_after import FILE, main, markdown, of_results, rows
from eval.findings.store import read_store


def test_the_shipped_file_has_every_cell_and_the_stores_values():
    with FILE.open(encoding="utf-8", newline="") as stream:
        shipped = list(csv.DictReader(stream))
    after = of_results(read_store(Path("replication/mini")).runs.values())
    found = rows(after, after)
    assert len(shipped) == len(found) == 44
    for line, made in zip(shipped, found, strict=True):
        for key in ("part", "row", "steps", "fid_after", "alignment_after"):
            assert line[key] == str(made[key])
        assert line["fid_before"], "each cell was made with the first miniature"


def test_ranks_are_by_the_mean_of_all_runs_and_two_are_shown():
    after = of_results(read_store(Path("replication/mini")).runs.values())
    low = {key: 1.0 if key[0] == "student_pretraining-random" else value for key, value in after.items()}
    by_row = {(line["row"], line["steps"]): line for line in rows(after, low)}
    line = by_row["random", 1]
    assert (line["rank_before"], line["rank_after"], line["fid_after"]) == (2, 1, "1 1")
    assert by_row["pretrained", 1]["rank_after"] == 2
    assert "| (c) random | " in markdown(rows(after, low))


def test_results_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mistyped --old would write the table without the further seeds, and say nothing."""
    monkeypatch.setattr("sys.argv", ["before_after", "--old", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    broken = tmp_path / "run/seed1/result.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{}")
    with pytest.raises(InputError, match=r"seed1/result\.json: not a result"):
        main()
