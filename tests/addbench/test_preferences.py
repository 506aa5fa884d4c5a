"""`addbench preferences`: what it prints, how it fails, and that it starts at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from addbench.__main__ import main
from eval.preferences.key import write_key
from eval.preferences.reader import read_votes, write_votes
from tests.support.preference_votes import CODED, KEY, OTHER, VOTE


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["preferences", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_check_says_what_is_there(command, tmp_path: Path) -> None:
    write_votes(tmp_path / "votes.csv", [VOTE, OTHER])
    expected = "2 votes, 1 rater, 2 prompts, 2 systems, 1 tie, 0 attention checks\n"
    assert command("check", tmp_path / "votes.csv") == (0, f"{tmp_path / 'votes.csv'}: {expected}", "")
    assert command("check", tmp_path) == (0, f"{tmp_path}: {expected}", "")


def test_check_prints_every_problem_of_every_file(command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_votes(tmp_path / f"{name}.csv", [VOTE])
        text = (tmp_path / f"{name}.csv").read_text().replace(",a,anna,", ",draw,,")
        (tmp_path / f"{name}.csv").write_text(text)
    write_votes(tmp_path / "c.csv", [OTHER])
    code, out, err = command("check", tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv")
    assert (code, out) == (1, "")
    assert [line.split(":")[0] for line in err.splitlines()] == [
        f"{tmp_path / name}.csv, line 2, column {cell}"
        for name in "ab"
        for cell in ("winner, value 'draw'", "rater")
    ]


def test_check_finds_a_vote_that_is_in_two_of_the_files(command, tmp_path: Path) -> None:
    """Breaks where each file is read by itself: their folder would then be refused only by the ratings."""
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    for file in (one, other):
        write_votes(file, [VOTE])
    code, _, err = command("check", one, other)
    assert code == 1
    assert f"{other}, line 2" in err
    assert f"already answered this comparison in {one}, line 2" in err
    assert command("check", one, one)[0] == 0, "one file, named twice"


def test_check_reads_a_file_of_a_folder_once(command, tmp_path: Path) -> None:
    write_votes(tmp_path / "votes.csv", [CODED])
    code, text, _ = command("check", tmp_path, tmp_path / "votes.csv")
    assert (code, len(text.splitlines())) == (0, 1)


def test_check_knows_systems_and_keys(command, tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    write_votes(file, [CODED])
    assert command("check", file)[0] == 0
    code, _, err = command("check", file, "--system", "alpha", "--system", "beta")
    assert code == 1
    assert "put that study's key file beside the votes" in err
    write_key(tmp_path / "pilot.key.json", KEY)
    assert command("check", file, "--system", "alpha", "--system", "beta")[0] == 0


def test_import_writes_what_check_accepts(command, tmp_path: Path) -> None:
    foreign, out = tmp_path / "foreign.csv", tmp_path / "new" / "votes.csv"
    foreign.write_text("model_a,model_b,winner,judge\nx,y,model_b,u1\nx,y,both_bad,u2\n")
    fixed = (
        "--study",
        "s",
        "--question",
        "quality",
        "--rater-kind",
        "human",
        "--prompt-id",
        "p",
        "--prompt",
        "hi",
    )
    code, text, err = command("import", foreign, "--out", out, *fixed)
    assert (code, text) == (1, "")
    assert "line 3: 1 entry (this is the first) say that both are bad; decide with --both-bad tie" in err
    assert not out.exists()
    code, text, _ = command("import", foreign, "--out", out, *fixed, "--both-bad", "tie")
    assert code == 0
    assert text.splitlines()[1] == "note: 1 entry, first in line 3, say that both are bad: counted as ties"
    assert [(vote.rater, vote.winner) for vote in read_votes(out)] == [("u1", "b"), ("u2", "tie")]
    assert command("check", out)[0] == 0


def test_export_writes_tasks_and_labels(command, tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "tasks.json"
    pairs.write_text(
        "study,prompt_id,prompt,question,system_left,system_right,image_left,image_right,attention_check\n"
        "s,p,hi,quality,x,y,1.png,2.png,no\n"
    )
    code, text, _ = command("export", pairs, "--format", "label-studio", "--image-url", "/d/", "--out", out)
    assert (code, text) == (0, f"{out}: 1 tasks; labelling configuration: {tmp_path / 'tasks.xml'}\n")
    assert json.loads(out.read_text())[0]["data"]["image_right"] == "/d/2.png"


def test_nothing_that_is_there_is_overwritten(command, tmp_path: Path) -> None:
    """An import would take the place of people's votes, an export's labels that of its own tasks."""
    foreign, out = tmp_path / "arena.csv", tmp_path / "votes.csv"
    foreign.write_text("x\n")
    out.write_text("precious\n")
    for arguments, said in (
        (("import", foreign, "--out", out), "give --replace to lose it"),
        (("import", foreign, "--out", foreign, "--replace"), "is named twice"),
        (
            ("export", foreign, "--format", "label-studio", "--image-url", "/", "--out", out),
            "give --replace to lose it",
        ),
        (
            ("export", foreign, "--format", "label-studio", "--image-url", "/", "--out", tmp_path / "t.xml"),
            "twice",
        ),
        (
            ("export", foreign, "--format", "label-studio", "--image-url", "/", "--out", foreign),
            "is named twice",
        ),
        (
            ("export", foreign, "--format", "label-studio", "--image-url", "/", "--out", tmp_path),
            "is a folder",
        ),
    ):
        code, _, err = command(*arguments)
        assert code == 1
        assert said in err
    assert (foreign.read_text(), out.read_text()) == ("x\n", "precious\n")


def test_wrong_options_are_refused(command, tmp_path: Path) -> None:
    for arguments in (
        ("check",),
        ("import", "x"),
        ("export", "x"),
        ("import", "x", "--out", "y", "--both-bad", "a"),
    ):
        with pytest.raises(SystemExit) as caught:
            command(*arguments)
        assert caught.value.code == 2


def test_it_starts_without_heavy_libraries(tmp_path: Path) -> None:
    write_votes(tmp_path / "votes.csv", [VOTE])
    script = (
        "import sys; from addbench.__main__ import main; "
        f"assert main(['preferences', 'check', {str(tmp_path / 'votes.csv')!r}]) == 0; "
        "print([n for n in ('torch', 'pandas', 'numpy', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
