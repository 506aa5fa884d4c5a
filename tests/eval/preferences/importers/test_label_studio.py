"""Label Studio: tasks of a study and of pairs out, annotations back in."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from eval.preferences.importers import import_votes
from eval.preferences.importers.build import Options
from eval.preferences.importers.label_studio import PAIR_COLUMNS, export_tasks
from eval.preferences.reader import read_votes, write_votes
from eval.preferences.record import PreferenceError
from eval.preferences.study.plan import StudyPlan, Trial, Wording
from tests.support.preference_foreign import brought, refusals

HUMAN = Options(rater_kind="human")
PAIRS = (
    ",".join(PAIR_COLUMNS)
    + '\npilot,p1,"a <b>, ""c""",quality,alpha,beta,i1.png,i2.png,no'
    + "\npilot,p2,x,alignment,beta,alpha,i3.png,i4.png,right\n"
)


def annotation(answer: str | None, rater: Any = 7, **more: Any) -> dict[str, Any]:
    """As Label Studio 1.x exports it."""
    pairwise = {
        "from_name": "preference",
        "to_name": "left",
        "type": "pairwise",
        "value": {"selected": answer},
    }
    tie = {"from_name": "tie", "to_name": "left", "type": "choices", "value": {"choices": ["tie"]}}
    result = [] if answer is None else [tie if answer == "tie" else pairwise]
    fixed = {"id": 1, "completed_by": rater, "result": result, "was_cancelled": False, "ground_truth": False}
    return {**fixed, "created_at": "2026-11-21T13:22:05.728353Z", "lead_time": 4.288, "task": 1, **more}


def tasks(folder: Path, *annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of PAIRS, exported, with these annotations."""
    (folder / "pairs.csv").write_text(PAIRS)
    export_tasks(folder / "pairs.csv", "https://example.org/", folder / "tasks.json")
    exported = json.loads((folder / "tasks.json").read_text())
    return [
        {"id": k, **task, "annotations": list(given), "predictions": []}
        for k, (task, given) in enumerate(zip(exported, annotations, strict=True), 1)
    ]


def test_a_task_that_nobody_answered_needs_a_decision(tmp_path: Path) -> None:
    text = json.dumps(tasks(tmp_path, [annotation("left")], []))
    (found,) = refusals(tmp_path, text, HUMAN)
    assert "--unanswered leave-out" in found
    left_out = replace(HUMAN, unanswered="leave-out")
    imported = brought(tmp_path, text, left_out)
    assert (len(imported.votes), len(imported.notes)) == (1, 1)


def test_pairs_out_and_votes_back(tmp_path: Path) -> None:
    made = tasks(
        tmp_path,
        [annotation("right"), annotation("tie", {"id": 3, "email": "b@c.org"})],
        [annotation("left")],
    )
    assert made[0]["data"]["image_left"] == "https://example.org/i1.png"
    (tmp_path / "export.json").write_text(json.dumps(made, indent=1))
    first, second, third = import_votes(tmp_path / "export.json", HUMAN).votes
    assert (first.prompt, first.winner, first.rater) == ('a <b>, "c"', "b", "7")
    assert (first.system_a, first.image_a, first.shown_left) == ("alpha", "i1.png", "a")
    assert (first.time, first.study, first.question) == ("2026-11-21T13:22:05.728353Z", "pilot", "quality")
    assert (second.winner, second.rater) == ("tie", "b@c.org")
    assert (third.system_a, third.winner, third.attention_check, third.passed) == ("beta", "a", "b", False)


def test_the_labels_name_every_field_that_is_shown(tmp_path: Path) -> None:
    (made, _) = tasks(tmp_path, [], [])
    labels = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    shown = {
        element.get("value", "").removeprefix("$") for element in labels.iter() if element.tag != "Choice"
    }
    assert shown - {""} <= set(made["data"])
    assert "system_left" not in shown
    names = {element.get("name") for element in labels.iter()}
    (pairwise,) = labels.iter("Pairwise")
    assert set(pairwise.get("toName", "").split(",")) <= names


def test_skipped_and_empty_annotations_are_a_decision(tmp_path: Path) -> None:
    made = tasks(tmp_path, [annotation("left", was_cancelled=True), annotation(None)], [annotation("left")])
    text = json.dumps(made)
    assert refusals(tmp_path, text, HUMAN) == [
        "line 1: 2 of 3 entries (this is the first) hold no answer; decide with --unanswered leave-out"
    ]
    imported = import_votes(tmp_path / "foreign", Options(rater_kind="human", unanswered="leave-out"))
    assert len(imported.votes) == 1


def test_two_answers_are_refused(tmp_path: Path) -> None:
    both = annotation("left")
    both["result"] += annotation("tie")["result"]
    (found,) = refusals(tmp_path, json.dumps(tasks(tmp_path, [both], [annotation("left")])), HUMAN)
    assert "value 'left, tie': must be one of left, right and tie" in found


@pytest.mark.parametrize("flat", ["csv", "json-min"])
def test_flat_exports(tmp_path: Path, flat: str) -> None:
    rows: list[dict[str, Any]] = []
    for task, answer in zip(tasks(tmp_path, [], []), ("left", "tie"), strict=True):
        own = {
            "id": task["id"],
            "annotator": "b@c.org",
            "annotation_id": 9,
            "created_at": "2026-11-21T13:22:05.7Z",
        }
        own |= {"updated_at": "2026-11-21T13:22:06.7Z", "lead_time": 1.5}
        own |= {"preference": [{"selected": "left"}]} if answer == "left" else {"tie": "tie"}
        rows.append({**task["data"], **own})
    file = tmp_path / "export"
    if flat == "csv":
        names = sorted({name for row in rows for name in row} | {"was_cancelled"})
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names, quoting=csv.QUOTE_NONNUMERIC)
            writer.writeheader()
            for row in rows:
                cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                writer.writerow({**cells, "was_cancelled": False})
    else:
        file.write_text(json.dumps(rows))
    votes = import_votes(file, HUMAN).votes
    assert [(vote.winner, vote.rater, vote.attention_check) for vote in votes] == [
        ("a", "b@c.org", "no"),
        ("tie", "b@c.org", "b"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": {"text1": "x", "text2": "y"}}, "the tasks have no field system_left, system_right"),
        ({"data": []}, "a task must have an object 'data'"),
        ({"annotations": [{"completed_by": 1}]}, "an annotation must have a list 'result'"),
        ({"annotations": []}, "no task has an annotation"),
    ],
)
def test_foreign_projects_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    made = [{**task, **change} for task in tasks(tmp_path, [annotation("left")], [annotation("left")])]
    assert reason in refusals(tmp_path, json.dumps(made), HUMAN)[0]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("study,prompt_id", "prompt_id,study", "line 1"),
        (",no\n", ",maybe\n", "line 2, column attention_check, value 'maybe': is no attention_check"),
        (",alpha,beta", ",alpha,alpha", "line 2, column system_right, value 'alpha': is system_left too"),
        ("alignment", "beauty", "line 3, column question, value 'beauty'"),
        (",x,", ",,", "line 3, column prompt: is empty"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, old: str, new: str, place: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(PAIRS.replace(old, new, 1))
    with pytest.raises(PreferenceError) as caught:
        export_tasks(file, "", tmp_path / "tasks.json")
    assert str(caught.value).startswith(f"{file}, {place}")
    assert not (tmp_path / "tasks.json").exists()


def test_a_study_out_and_votes_back(tmp_path: Path) -> None:
    """The study's comparisons, each once, with codes and with the side that the study chose."""
    codes = {"system_a": "sys-ka", "system_b": "sys-wo", "image_a": "img-ka", "image_b": "img-wo"}
    trial = Trial(id="t1", prompt_id="p1", question="quality", left="b", check="a", **codes)
    turned = trial.model_copy(update={"left": "a"})
    study = StudyPlan(
        study="study-kabo",
        resolution=8,
        ties=True,
        questions={"quality": Wording(title="Which one?", hint="")},
        prompts={"p1": "a red cube"},
        lists={"rater-01": (trial,), "rater-02": (turned,)},
    )
    (tmp_path / "images").mkdir()
    for name in ("img-ka", "img-wo"):
        (tmp_path / "images" / f"{name}.png").write_bytes(b"")
    (tmp_path / "study.json").write_text(study.model_dump_json())
    assert export_tasks(tmp_path / "study.json", "/", tmp_path / "one.json", "rater-02") == 1
    assert json.loads((tmp_path / "one.json").read_text())[0]["data"]["image_left"] == "/img-ka.png"
    assert export_tasks(tmp_path / "study.json", "/", tmp_path / "tasks.json") == 1
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert (task["data"]["image_left"], task["data"]["question_text"]) == ("/img-wo.png", "Which one?")
    (tmp_path / "export.json").write_text(json.dumps([{**task, "annotations": [annotation("left")]}]))
    (vote,) = import_votes(tmp_path / "export.json", HUMAN).votes
    assert (vote.system_a, vote.image_a, vote.winner, vote.attention_check) == ("sys-wo", "img-wo", "a", "b")
    write_votes(tmp_path / "votes.csv", [vote])
    assert read_votes(tmp_path / "votes.csv")[0].study == "study-kabo"
    with pytest.raises(PreferenceError, match="no such list; did you mean 'rater-01'"):
        export_tasks(tmp_path / "study.json", "/", tmp_path / "x.json", "rater-1")
