"""Label Studio tasks of a study or of a list of pairs, with the labelling configuration that they need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from add.files import write_whole
from eval.preferences.checks import CHOICES
from eval.preferences.damage import cell_damage
from eval.preferences.importers.source import read_source
from eval.preferences.problem import PreferenceError, Problem, nearest, one_problem

PAIR_COLUMNS = (
    "study",
    "prompt_id",
    "prompt",
    "question",
    "system_left",
    "system_right",
    "image_left",
    "image_right",
    "attention_check",
)
"""The header of a list of pairs. attention_check: no, left or right."""

LABELS = """<View>
  <Header value="$question_text"/>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="preference" toName="left,right"/>
  <View style="display: flex; gap: 1em">
    <View style="flex: 1"><Image name="left" value="$image_left"/></View>
    <View style="flex: 1"><Image name="right" value="$image_right"/></View>
  </View>
  <Choices name="tie" toName="left" choice="single" showInline="true">
    <Choice value="tie"/>
  </Choices>
</View>
"""
"""Choose an image, or the choice 'tie', and not both: the import refuses an annotation with two answers."""

_WORDINGS = {"quality": "Which image looks better?", "alignment": "Which image fits the text better?"}


def export_tasks(file: Path, image_url: str, out: Path, trials: str | None = None) -> int:
    """Writes tasks (out, JSON) and the labelling configuration (out with .xml); returns the number of tasks.

    file: a study.json, or a CSV with the header PAIR_COLUMNS. image_url: what stands before an image's file name.
    trials: one list of the study (such as rater-01); all of its comparisons, each once, if None. Raises
    PreferenceError.
    """
    pairs = _of_study(file, trials) if file.suffix == ".json" else _of_table(file, trials)
    tasks = [{"data": _data(pair, image_url)} for pair in pairs]
    write_whole(out, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
    write_whole(out.with_suffix(".xml"), LABELS)
    return len(tasks)


def _data(pair: Mapping[str, str], image_url: str) -> dict[str, Any]:
    data = dict(pair)
    data.setdefault("question_text", _WORDINGS[pair["question"]])
    for side in ("left", "right"):
        image = data.pop(f"image_{side}")
        data[f"image_{side}"] = image_url + data.pop(f"file_{side}", image)
        data[f"image_id_{side}"] = image
    return data


def _of_study(file: Path, name: str | None) -> Iterable[Mapping[str, str]]:
    from eval.preferences.study.plan import PlanError, image_file, read_study

    if file.name != "study.json":
        raise one_problem(file, "is not called study.json; give the study.json of a study, or a CSV of pairs")
    try:
        study = read_study(file.parent)
    except PlanError as error:
        raise one_problem(file, str(error)) from error
    if name is not None and name not in study.lists:
        raise one_problem(
            file, f"the study has no such list; {nearest(name, study.lists)}", column="lists", value=name
        )
    pairs: dict[tuple[object, ...], dict[str, str]] = {}
    sides = {"no": "no"}
    for trial in (t for n, trials in study.lists.items() if name in (None, n) for t in trials):
        left, right = ("a", "b") if trial.left == "a" else ("b", "a")
        sides |= {left: "left", right: "right"}
        images = {"left": getattr(trial, f"image_{left}"), "right": getattr(trial, f"image_{right}")}
        pair = {
            "study": study.study,
            "prompt_id": trial.prompt_id,
            "prompt": study.prompts[trial.prompt_id],
            "question": trial.question,
            "question_text": study.questions[trial.question].title,
            "system_left": getattr(trial, f"system_{left}"),
            "system_right": getattr(trial, f"system_{right}"),
            "attention_check": sides[trial.check],
        }
        for side, image in images.items():
            pair |= {f"image_{side}": image, f"file_{side}": image_file(file.parent, image).name}
        pairs.setdefault((trial.question, trial.prompt_id, frozenset(images.values())), pair)
    return pairs.values()


def _of_table(file: Path, name: str | None) -> Iterable[Mapping[str, str]]:
    source = read_source(file)
    if name is not None:
        raise one_problem(file, "a list of pairs has no lists; leave out --list")
    if source.columns != PAIR_COLUMNS:
        raise one_problem(
            file, f"the header must be {','.join(PAIR_COLUMNS)}", 1, value=",".join(source.columns)
        )
    choices = {"question": CHOICES["question"], "attention_check": ("no", "left", "right")}
    problems = []
    for entry in source.entries:
        for column, value in entry.values.items():
            reason = "is empty" if not value else cell_damage(value, column == "prompt")
            if reason is None and value not in choices.get(column, (value,)):
                reason = f"is no {column}; {nearest(value, choices[column])}"
            if reason:
                problems.append(Problem(file, entry.line, column, value, reason))
        if entry.values["system_left"] == entry.values["system_right"]:
            system = entry.values["system_right"]
            problems.append(Problem(file, entry.line, "system_right", system, "is system_left too"))
    if problems:
        raise PreferenceError(problems)
    return [entry.values for entry in source.entries]
