"""Every bad preference file is refused at its place, with a message of its own that says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eval.preferences.reader import read_votes
from eval.preferences.record import PreferenceError

BAD = Path(__file__).parent / "bad"
SYSTEMS = {"alpha", "beta", "gamma"}

# file: (line, column, value, reason); a file may have more problems, this one must be among them
STORED = {
    "attention-check": (3, "attention_check", "yes", "is no attention_check; valid are no, a, b"),
    "bars": (1, "", "prompt_id|", "separated by vertical bars"),
    "column-extra": (1, "comment", "comment", "unknown column.*delete it"),
    "column-missing": (1, "study", "", "the column is missing; the header must be prompt_id,prompt,"),
    "column-nameless": (1, "", "", r"column without a name \(number 15\)"),
    "duplicate": (5, "rater", "anna", "already answered this comparison in line 2 .*in either order"),
    "header-capital": (1, "Winner", "Winner", "unknown column .*did you mean 'winner'"),
    "header-missing": (1, "", "p1,a red cube", "is no header of a preference file"),
    "header-only": (1, "", "", "the header and no votes"),
    "header-order": (1, "system_b", "system_b", "stands where system_a must stand"),
    "header-renamed": (1, "promptid", "promptid", "unknown column .*did you mean 'prompt_id'"),
    "header-repeated": (5, "", "", "repeats the header"),
    "header-twice": (1, "image_a", "image_a", "in the header twice"),
    "image-empty": (3, "image_b", "", "is empty; where it is not known, write unknown"),
    "image-same": (3, "image_b", "i1", "is image_a too"),
    "image-two-systems": (4, "image_b", "i1", "image of 'gamma' here, and of 'alpha' in line 2"),
    "prompt-command": (4, "prompt", r"\+cmd", "starts like a spreadsheet formula"),
    "prompt-empty": (3, "prompt", "", "is empty"),
    "prompt-formula": (4, "prompt", "=HYPERLINK", "starts like a spreadsheet formula"),
    "prompt-id-date": (4, "prompt_id", "03-Nov", "is a date"),
    "prompt-id-minus": (4, "prompt_id", "-12", "starts with '-'"),
    "prompt-id-name": (4, "prompt_id", "#NAME", "for a broken formula"),
    "prompt-id-rounded": (4, "prompt_id", r"1\.2E\+05", "scientific notation"),
    "prompt-id-slashes": (4, "prompt_id", "11/3/2026", "is a date"),
    "prompt-lost-letter": (4, "prompt", "a caf\ufffd", "a letter was lost"),
    "prompt-two": (3, "prompt", "a blue cube", "'p1' has another prompt in line 2: 'a red cube'"),
    "question-unknown": (3, "question", "aesthetics", "is no question; valid are quality, alignment"),
    "quote-after": (4, "prompt", "two", "has ' ' after its closing quote"),
    "quote-inside": (4, "prompt", "two ", "has a quote in a cell without quotes"),
    "quote-unclosed": (4, "prompt", '"two cats', "opened and never closed"),
    "rater-empty": (3, "rater", "", "who voted"),
    "rater-formula": (3, "rater", "=anna", "starts with '=', which a spreadsheet takes for a formula"),
    "rater-invisible": (3, "rater", "an\u200bna", r"invisible character U\+200B"),
    "rater-variation": (3, "rater", "anna\ufe0f", r"invisible character U\+FE0F"),
    "rater-filler": (3, "rater", "an\u3164na", r"invisible character U\+3164"),
    "rater-no-break": (3, "rater", "an\u00a0na", r"invisible character U\+00A0"),
    "rater-decomposed": (3, "rater", "Jose\u0301", "would count as another rater"),
    "rater-kind": (3, "rater_kind", "people", "is no rater_kind; valid are human, model, oracle"),
    "rater-nan": (3, "rater", "nan", "what programs write for an empty cell"),
    "rater-plus": (3, "rater", r"\+49170", r"starts with '\+'"),
    "rater-space": (3, "rater", "anna ", "ends with white space"),
    "rater-two-kinds": (3, "rater_kind", "model", "the rater has another rater_kind in line 2: 'human'"),
    "rater-unknown": (3, "rater", "unknown", "must be known; only time, image_a, image_b"),
    "row-cut-off": (
        4,
        "attention_check",
        "",
        "has 12 cells, the header has 14: attention_check, study missing",
    ),
    "row-empty": (3, "", "", "is an empty line"),
    "row-long": (4, "", "pilot", "has 15 cells, .*comma must be in double quotes"),
    "row-of-commas": (5, "", "", "a row of empty cells"),
    "row-short": (3, "attention_check", "", "has 12 cells"),
    "semicolons": (1, "", "prompt_id;", "separated by semicolons"),
    "sep-line": (1, "", "sep=,", "a spreadsheet's hint"),
    "shown-left": (3, "shown_left", "right", "is a side of the screen"),
    "shown-left-empty": (3, "shown_left", "", "write a, b, or none"),
    "study-empty": (3, "study", "", "is empty"),
    "study-leading-space": (3, "study", " pilot", "starts with white space"),
    "system-attention": (4, "attention_check", "no", "system_b is attention-check, .*write a"),
    "system-empty": (3, "system_a", "", "is empty"),
    "system-formula": (3, "system_a", "@alpha", "starts with '@'"),
    "system-same": (3, "system_b", "alpha", "is system_a too"),
    "system-unknown": (
        3,
        "system_a",
        "bta",
        "no known system .*'pilot', put that study's key.*did you mean 'beta'",
    ),
    "tabs": (1, "", "prompt_id\t", "separated by tabs"),
    "time-american": (3, "time", "11/21/2026 13:22", "a date as a spreadsheet writes it"),
    "time-calendar": (3, "time", "2026-02-30T", "no moment of the calendar"),
    "time-clock": (3, "time", "13:22:19", "has no date"),
    "time-day": (3, "time", "2026-11-21", "has no time of day"),
    "time-empty": (3, "time", "", "is empty; where it is not known, write unknown"),
    "time-german": (3, "time", "21.11.26", "a date as a spreadsheet writes it"),
    "time-naive": (3, "time", "2026-11-21T13:22:19$", "has no zone"),
    "time-offset": (3, "time", r".*\+01:00", "is not in UTC"),
    "time-rounded": (3, "time", r"1\.8E\+09", "a spreadsheet rounded"),
    "time-serial": (3, "time", r"46347\.5", "serial number"),
    "time-small": (3, "time", "2026-11-21t13", "small t or z"),
    "time-space": (3, "time", "2026-11-21 13:22:19", "a space between date and time"),
    "time-unix": (3, "time", "1795267339", "is Unix time"),
    "time-words": (3, "time", "yesterday", "is no time"),
    "white-space": (0, "", "", "nothing but white space"),
    "winner-draw": (3, "winner", "draw", "is no winner, and a winner is never guessed; valid are a, b, tie"),
    "winner-empty": (3, "winner", "", "An empty winner is not a tie"),
    "winner-number": (3, "winner", "1", "is no winner, and .*; valid are a, b, tie"),
    "winner-side": (3, "winner", "left", "is a side of the screen"),
    "winner-space": (3, "winner", "a ", "is no winner, and .*; valid are a, b, tie"),
    "winner-system": (3, "winner", "alpha", "is the name of system_b; write b"),
    "winner-unknown": (3, "winner", "A", "is no winner, and .*; valid are a, b, tie"),
}

HEADER = (
    b"prompt_id,prompt,system_a,system_b,image_a,image_b,question,winner,rater,rater_kind,shown_left,time,"
    b"attention_check,study\n"
)
ROW = b"p1,a cafe,alpha,beta,i1,i2,quality,a,anna,human,a,unknown,no,pilot\n"
SECOND = b"p2,a caf\xc3\xa9,alpha,beta,i3,i4,quality,a,anna,human,a,unknown,no,pilot\n"
GOOD = HEADER + ROW + SECOND

# Files whose bytes an editor or git could change are made here.
MADE = {
    "empty": (b"", 0, "", "", "0 bytes"),
    "bom": (b"\xef\xbb\xbf" + GOOD, 1, "", "", "starts with a byte order mark"),
    "bom-inside": (GOOD + b"\xef\xbb\xbf" + ROW, 4, "prompt_id", "\ufeffp1", r"byte order mark \(U\+FEFF\)"),
    "utf16-le": (b"\xff\xfe" + GOOD.decode().encode("utf-16-le"), 1, "", "", "is UTF-16 .*'CSV UTF-8'"),
    "utf16-be": (b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), 1, "", "", "is UTF-16 .*'CSV UTF-8'"),
    "utf16-unmarked": (GOOD.decode().encode("utf-16-le"), 1, "", "", "UTF-16 without a mark"),
    "utf32": (GOOD.decode().encode("utf-32"), 1, "", "", "is UTF-32"),
    "latin1": (HEADER + ROW.replace(b"cafe", b"caf\xe9"), 2, "prompt", "a caf", "0xe9 .'é'.*may be Latin-1"),
    "mixed": (GOOD + ROW.replace(b"cafe", b"caf\xe9"), 4, "prompt", "a caf", "0xe9.*mixes two encodings"),
    "latin1-rater": (HEADER + ROW.replace(b"anna", b"Ren\xe9"), 2, "rater", "Ren", "0xe9"),
    "nul": (GOOD.replace(b"i3", b"i\x003"), 3, "image_a", "i\0" + "3", "NUL byte"),
    "control": (GOOD.replace(b"a cafe", b"a\x07cafe"), 2, "prompt", "a\acafe", r"control character U\+0007"),
    "tab-in-id": (GOOD.replace(b"alpha", b"al\tpha", 1), 2, "system_a", "al\tpha", r"U\+0009"),
    "old-mac": (GOOD.replace(b"\n", b"\r"), 1, "study", "study", "bare carriage return"),
    "xlsx": (b"PK\x03\x04" + bytes(40), 0, "", "", "a spreadsheet or an archive"),
    "xls": (b"\xd0\xcf\x11\xe0" + bytes(40), 0, "", "", "an old spreadsheet"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), 0, "", "", "compressed"),
    "parquet": (b"PAR1" + bytes(40), 0, "", "", "Parquet"),
    "no-break-space": (GOOD.replace(b"anna", b"anna\xc2\xa0", 1), 2, "rater", "anna\xa0", "white space"),
}


def refused(file: Path) -> PreferenceError:
    with pytest.raises(PreferenceError) as caught:
        read_votes(file, SYSTEMS)
    return caught.value


def assert_named(file: Path, line: int, column: str, value: str, reason: str) -> None:
    found = refused(file).problems
    assert any(
        p.file == file
        and (p.line, p.column) == (line, column)
        and bool(p.value) == bool(value)
        and re.match(value, p.value)
        and re.search(reason, p.reason)
        for p in found
    ), "\n".join(map(str, found))


@pytest.mark.parametrize("name", STORED)
def test_a_bad_file_is_refused_at_its_place(name: str) -> None:
    assert_named(BAD / f"{name}.csv", *STORED[name])


@pytest.mark.parametrize("name", MADE)
def test_bad_bytes_are_refused_at_their_place(name: str, tmp_path: Path) -> None:
    content, *expected = MADE[name]
    file = tmp_path / f"{name}.csv"
    file.write_bytes(content)
    assert_named(file, *expected)  # type: ignore[arg-type]


def test_each_stored_file_is_in_the_table() -> None:
    assert {file.stem for file in BAD.iterdir()} == set(STORED)
    assert len(STORED) >= 40


def test_all_messages_differ() -> None:
    messages = [str(refused(BAD / f"{name}.csv")).replace(f"{name}.csv", "") for name in STORED]
    assert len(set(messages)) == len(messages)


def test_the_bytes_are_good_but_for_the_damage(tmp_path: Path) -> None:
    """Else every case above might be refused for another reason."""
    file = tmp_path / "good.csv"
    for content in (GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD.removesuffix(b"\n")):
        file.write_bytes(content)
        assert [vote.prompt for vote in read_votes(file, SYSTEMS)] == ["a cafe", "a café"]
