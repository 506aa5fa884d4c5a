"""Claims in an ablation's YAML: resolved to runs, and refused by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from add.config.yaml import SpecError
from tests.support.specs import ROOT, copy_settings, edit, table_of

FILE = "ablations/teacher_steps.yaml"
ANOTHER = """findings:
  - claim: Four steps are best
    metric: clip_score
    steps: 4
    rows: ["4"]
    relation: best
    margin: 0.01
"""


def test_the_papers_claims_are_there_with_their_runs_and_published_values():
    findings = table_of(ROOT).findings
    assert len(findings) >= 14
    suffices = next(f for f in findings if f.claim.startswith("One step of the teacher"))
    assert suffices.rows == ("teacher_steps-2", "teacher_steps-4")
    assert (suffices.relation, suffices.others) == ("not_better", ("baseline",))
    assert suffices.published == {"baseline": 20.6, "teacher_steps-2": 20.8, "teacher_steps-4": 20.3}
    assert "ablations/teacher_steps.yaml:" in suffices.place


def test_best_is_better_than_all_other_rows(tmp_path: Path):
    root = copy_settings(tmp_path)
    text = (root / FILE).read_text().partition("findings:")[0]
    (root / FILE).write_text(text + ANOTHER)
    found = next(f for f in table_of(root).findings if f.part == "f")
    assert (found.relation, found.rows) == ("better", ("teacher_steps-4",))
    assert found.others == ("baseline", "teacher_steps-2")
    assert (found.steps, found.margin, found.published) == (4, 0.01, {}), "nothing is published at four steps"


def test_a_finding_changes_no_run(tmp_path: Path):
    root = copy_settings(tmp_path)
    (root / FILE).write_text((root / FILE).read_text().partition("findings:")[0])
    assert table_of(root).runs == table_of(ROOT).runs


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('rows: ["4"]', 'rows: ["5"]', 5, "rows: this file has no row '5'"),
        ("relation: best", 'relation: better\n    than: ["4"]', 7, "than: '4' would be compared with itself"),
        ("relation: best", "relation: better", 1, "any other relation needs it"),
        ("relation: best", "relation: besst", 6, "relation"),
        ("metric: clip_score", "metric: clip_scor", 3, "metric"),
        ("    steps: 4", "    steps: 2", 4, "config/mini.yaml samples at 1, 4, not at 2"),
        ("margin: 0.01", "margin: 1.5", 7, "margin"),
        ("    margin: 0.01", "    margn: 0.01", 7, "margn"),
        ('rows: ["4"]', 'rows: ["1", "2", "4"]', 5, "there is no other row to be better than"),
    ],
)
def test_a_wrong_claim_is_refused_by_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
):
    root = copy_settings(tmp_path)
    head = (root / FILE).read_text().partition("findings:")[0]
    (root / FILE).write_text(head + ANOTHER)
    edit(root / FILE, old, new)
    with pytest.raises(SpecError) as caught:
        table_of(root)
    first = caught.value
    assert first.file.endswith(FILE)
    assert message in str(first)
    assert abs(first.line - (head.count("\n") + line)) <= 1


def test_best_is_not_asked_to_be_better_than_itself(tmp_path: Path):
    """Breaks when a row with the same values, and so the same run, makes the claim one that cannot be tested."""
    root = copy_settings(tmp_path)
    text = (root / FILE).read_text().partition("findings:")[0]
    row = '  - label: "one"\n    set: {teacher_steps: 1}\n'
    (root / FILE).write_text(text + row + ANOTHER.replace('rows: ["4"]', 'rows: ["one"]'))
    found = next(f for f in table_of(root).findings if f.part == "f")
    assert (found.rows, found.others) == (("baseline",), ("teacher_steps-2", "teacher_steps-4"))
