"""Label Studio: its tasks for a study or a list of pairs, and its export (1.x) as votes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from add.config.yaml import nearest
from add.errors import InputError
from add.files import write_whole
from eval.preferences.checks import CHOICES
from eval.preferences.damage import cell_damage
from eval.preferences.importers.build import (
    Builder,
    ForeignEntry,
    ForeignFile,
    Imported,
    Options,
    read_source,
)
from eval.preferences.record import PreferenceError, Problem, Question, one_problem
from eval.preferences.study.plan import WORDINGS, image_file, read_study

PAIR_COLUMNS = (
    *("study", "prompt_id", "prompt", "question", "system_left", "system_right"),
    *("image_left", "image_right", "attention_check"),
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

JSON_COLUMNS = ("data", "annotations")
FLAT_COLUMNS = ("annotation_id", "annotator")

_SIDES = {"left": "a", "right": "b"}
_NAMES = ("preference", "pairwise", "pw")
_SAYS = {name: name for name in ("study", "question", "prompt_id", "prompt")}
_ANSWER, _CANCELLED, _RATER = "the annotation's result", "was_cancelled", "annotator"


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
    data.setdefault("question_text", WORDINGS[cast(Question, pair["question"])].title)
    for side in ("left", "right"):
        image = data.pop(f"image_{side}")
        data[f"image_{side}"] = image_url + data.pop(f"file_{side}", image)
        data[f"image_id_{side}"] = image
    return data


def _of_study(file: Path, name: str | None) -> Iterable[Mapping[str, str]]:
    if file.name != "study.json":
        raise one_problem(file, "is not called study.json; give the study.json of a study, or a CSV of pairs")
    try:
        study = read_study(file.parent)
    except InputError as error:
        raise one_problem(file, str(error)) from error
    if name is not None and name not in study.lists:
        reason = f"the study has no such list{nearest(name, study.lists)}"
        raise one_problem(file, reason, column="lists", value=name)
    pairs: dict[tuple[object, ...], dict[str, str]] = {}
    for trial in (t for n, trials in study.lists.items() if name in (None, n) for t in trials):
        left, right = trial.left, "b" if trial.left == "a" else "a"
        sides = (("left", left), ("right", right))
        pair = {
            "study": study.study,
            "prompt_id": trial.prompt_id,
            "prompt": study.prompts[trial.prompt_id],
            "question": trial.question,
            "question_text": study.questions[trial.question].title,
            **{f"system_{side}": getattr(trial, f"system_{letter}") for side, letter in sides},
            "attention_check": {"no": "no", left: "left", right: "right"}[trial.check],
        }
        for side, letter in sides:
            image = getattr(trial, f"image_{letter}")
            pair |= {f"image_{side}": image, f"file_{side}": image_file(file.parent, image).name}
        images = frozenset((trial.image_a, trial.image_b))
        pairs.setdefault((trial.question, trial.prompt_id, images), pair)
    return pairs.values()


def _of_table(file: Path, name: str | None) -> Iterable[Mapping[str, str]]:
    source = read_source(file)
    if name is not None:
        raise one_problem(file, "a list of pairs has no lists; leave out --list")
    if source.columns != PAIR_COLUMNS:
        reason = f"the header must be {','.join(PAIR_COLUMNS)}"
        raise one_problem(file, reason, 1, value=",".join(source.columns))
    choices = {"question": CHOICES["question"], "attention_check": ("no", "left", "right")}
    problems = []
    lines: dict[tuple[object, ...], int] = {}
    for entry in source.entries:
        for column, value in entry.values.items():
            fault = "is empty" if not value else cell_damage(value, column == "prompt")
            if fault is None and value not in choices.get(column, (value,)):
                fault = f"is no {column}; valid are {', '.join(choices[column])}"
            if fault:
                problems.append(Problem(file, entry.line, column, value, fault))
        if entry.values["system_left"] == entry.values["system_right"]:
            system = entry.values["system_right"]
            problems.append(Problem(file, entry.line, "system_right", system, "is system_left too"))
        images = frozenset((entry.values["image_left"], entry.values["image_right"]))
        same = (entry.values["study"], entry.values["question"], entry.values["prompt_id"], images)
        if (first := lines.setdefault(same, entry.line)) != entry.line:
            reason = f"is the pair of line {first} again; its votes would count once"
            problems.append(Problem(file, entry.line, "image_right", entry.values["image_right"], reason))
    if problems:
        raise PreferenceError(problems)
    return [entry.values for entry in source.entries]


def convert(source: ForeignFile, options: Options) -> Imported:
    """The left image becomes a. Skipped annotations and empty ones need --unanswered leave-out.

    Raises PreferenceError.
    """
    entries = tuple(_annotations(source) if "annotations" in source.columns else _rows(source))
    if not any(entry.values.get("annotations", True) for entry in source.entries):
        raise one_problem(source.file, "no task has an annotation")
    columns = tuple(dict.fromkeys(name for entry in entries for name in entry.values))
    if missing := [name for name in ("system_left", "system_right") if name not in columns]:
        reason = f"the tasks have no field {', '.join(missing)}; did this project's export make them?"
        raise one_problem(source.file, reason, 1)
    builder = Builder(ForeignFile(source.file, columns, entries), options, {**_SAYS, "rater": _RATER})
    for entry in entries:
        answers, expected = entry.values[_ANSWER], str(entry.values.get("attention_check", "no"))
        if not answers or entry.values.get(_CANCELLED) in (True, "True", "true"):
            builder.decide(entry, "unanswered")
        elif len(answers) > 1 or answers[0] not in (*_SIDES, "tie"):
            given = ", ".join(map(str, answers))
            builder.refuse(entry, _ANSWER, "must be one of left, right and tie", value=given)
        elif expected not in (*_SIDES, "no"):
            builder.refuse(entry, "attention_check", "must be left, right or no")
        else:
            more = {"shown_left": "a", "attention_check": _SIDES.get(expected, "no")}
            for side, letter in _SIDES.items():
                if f"image_id_{side}" in entry.values:
                    more[f"image_{letter}"] = builder.text(entry, f"image_id_{side}")
            systems = builder.text(entry, "system_left"), builder.text(entry, "system_right")
            more["time"] = builder.time(entry, "created_at")
            builder.add(entry, systems, _SIDES.get(answers[0], "tie"), **more)
    return builder.finish()


def _annotations(source: ForeignFile) -> Iterator[ForeignEntry]:
    """One entry an annotation of the JSON export, or a task without one: the fields of its task, and its own."""
    for entry in source.entries:
        data, annotations = entry.values.get("data"), entry.values.get("annotations")
        if not isinstance(data, dict) or not isinstance(annotations, list):
            reason = "a task must have an object 'data' and a list 'annotations'"
            raise one_problem(source.file, reason, entry.line)
        if not annotations:  # nobody has answered
            yield ForeignEntry(entry.line, {**data, _ANSWER: []})
        for annotation in annotations:
            if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
                reason = "an annotation must have a list 'result'"
                raise one_problem(source.file, reason, entry.line, "annotations")
            by = annotation.get("completed_by")
            own = {name: annotation.get(name) for name in (_CANCELLED, "created_at")}
            own |= {_RATER: by.get("email") if isinstance(by, dict) else by}
            yield ForeignEntry(entry.line, {**data, **own, _ANSWER: _answers(annotation["result"])})


def _answers(result: list[Any]) -> list[Any]:
    found: list[Any] = []
    for item in result:
        kind, value = (item.get("type"), item.get("value")) if isinstance(item, dict) else (None, None)
        if kind == "pairwise" and isinstance(value, dict):
            found.append(value.get("selected"))
        elif kind == "choices" and isinstance(value, dict):
            choices = value.get("choices")
            found += choices if isinstance(choices, list) else [choices]
    return found


def _rows(source: ForeignFile) -> Iterator[ForeignEntry]:
    """One entry a row of CSV or JSON-MIN, whose answers stand in columns named after the tags."""
    names = [name for name in _NAMES if name in source.columns]
    if len(names) != 1 and not (not names and "tie" in source.columns):
        reason = f"one column must hold the Pairwise tag's answer, named {', '.join(_NAMES)}; found: {names}"
        raise one_problem(source.file, reason, 1)
    problems = []
    for entry in source.entries:
        value, tie = entry.values.get(names[0] if names else ""), entry.values.get("tie")
        try:
            answers = [] if value is None or value == "" else _selected(value)
        except ValueError:
            reason = 'must be a list such as [{"selected": "left"}]'
            problems.append(Problem(source.file, entry.line, names[0], str(value), reason))
            continue
        answers += [] if tie is None or tie == "" else [tie]
        yield ForeignEntry(entry.line, {**entry.values, _ANSWER: answers})
    if problems:
        raise PreferenceError(problems)


def _selected(value: Any) -> list[Any]:
    regions = json.loads(value) if isinstance(value, str) else value
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        raise ValueError
    return [region.get("selected") for region in regions]
