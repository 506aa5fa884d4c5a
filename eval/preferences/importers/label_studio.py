"""Label Studio's export (1.x) of the pairwise project that `export --format label-studio` makes.

JSON (tasks with annotations), JSON-MIN and CSV (one row an annotation). A Pairwise tag gives {"selected": "left"}
or "right"; the template has no equal, so a Choices tag beside it gives "tie". Predictions and drafts are no votes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eval.preferences.importers.build import Builder, Imported
from eval.preferences.importers.options import Options
from eval.preferences.importers.source import Entry, Source
from eval.preferences.problem import PreferenceError, Problem, one_problem

JSON_COLUMNS = ("data", "annotations")
FLAT_COLUMNS = ("annotation_id", "annotator")

_SIDES = {"left": "a", "right": "b"}
_NAMES = ("preference", "pairwise", "pw")
_NEEDED = ("system_left", "system_right")
_SAYS = {name: name for name in ("study", "question", "prompt_id", "prompt")}
_ANSWER, _CANCELLED, _RATER = "the annotation's result", "was_cancelled", "annotator"


def convert(source: Source, options: Options) -> Imported:
    """The left image becomes a. Skipped annotations and empty ones need --unanswered leave-out.

    Raises PreferenceError.
    """
    entries = tuple(_annotations(source) if "annotations" in source.columns else _rows(source))
    if not entries:
        raise one_problem(source.file, "no task has an annotation")
    columns = tuple(dict.fromkeys(name for entry in entries for name in entry.values))
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        reason = (
            f"the tasks have no field {', '.join(missing)}; were they made by the export of this project?"
        )
        raise one_problem(source.file, reason, 1)
    builder = Builder(Source(source.file, columns, entries), options, {**_SAYS, "rater": _RATER})
    for entry in entries:
        _convert_one(builder, entry)
    return builder.finish()


def _convert_one(builder: Builder, entry: Entry) -> None:
    if entry.values.get(_CANCELLED) in (True, "True", "true"):
        builder.decide(entry, "unanswered")
        return
    answers = entry.values[_ANSWER]
    if not answers:
        builder.decide(entry, "unanswered")
        return
    if len(answers) > 1 or answers[0] not in (*_SIDES, "tie"):
        builder.refuse(
            entry, _ANSWER, "must be one of left, right and tie", value=", ".join(map(str, answers))
        )
        return
    expected = str(entry.values.get("attention_check", "no"))
    if expected not in (*_SIDES, "no"):
        builder.refuse(entry, "attention_check", "must be left, right or no")
        return
    more = {"shown_left": "a", "attention_check": _SIDES.get(expected, "no")}
    for side, letter in _SIDES.items():
        if f"image_id_{side}" in entry.values:
            more[f"image_{letter}"] = builder.text(entry, f"image_id_{side}")
    systems = builder.text(entry, "system_left"), builder.text(entry, "system_right")
    builder.add(entry, systems, _SIDES.get(answers[0], "tie"), time=builder.time(entry, "created_at"), **more)


def _annotations(source: Source) -> Iterator[Entry]:
    """One entry an annotation of the JSON export: the fields of its task, and its own."""
    for entry in source.entries:
        data, annotations = entry.values.get("data"), entry.values.get("annotations")
        if not isinstance(data, dict) or not isinstance(annotations, list):
            raise one_problem(
                source.file, "a task must have an object 'data' and a list 'annotations'", entry.line
            )
        for annotation in annotations:
            if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
                raise one_problem(
                    source.file, "an annotation must have a list 'result'", entry.line, "annotations"
                )
            by = annotation.get("completed_by")
            rater = by.get("email") if isinstance(by, dict) else by
            own = {
                _RATER: rater,
                _CANCELLED: annotation.get(_CANCELLED),
                "created_at": annotation.get("created_at"),
            }
            yield Entry(entry.line, {**data, **own, _ANSWER: _answers(annotation["result"])})


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


def _rows(source: Source) -> Iterator[Entry]:
    """One entry a row of CSV or JSON-MIN, whose answers stand in columns named after the tags."""
    names = [name for name in _NAMES if name in source.columns]
    if len(names) != 1 and not (not names and "tie" in source.columns):
        reason = f"one column must hold the Pairwise tag's answer, named {', '.join(_NAMES)}; found: {names}"
        raise one_problem(source.file, reason, 1)
    problems = []
    for entry in source.entries:
        try:
            answers = [*_selected(entry.values, names), *_choices(entry.values)]
        except ValueError:
            reason = 'must be a list such as [{"selected": "left"}]'
            problems.append(
                Problem(source.file, entry.line, names[0], str(entry.values.get(names[0])), reason)
            )
            continue
        yield Entry(entry.line, {**entry.values, _ANSWER: answers})
    if problems:
        raise PreferenceError(problems)


def _selected(values: Mapping[str, Any], names: list[str]) -> list[Any]:
    value = values.get(names[0]) if names else None
    if value is None or value == "":
        return []
    regions = json.loads(value) if isinstance(value, str) else value
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        raise ValueError
    return [region.get("selected") for region in regions]


def _choices(values: Mapping[str, Any]) -> list[Any]:
    value = values.get("tie")
    return [] if value is None or value == "" else [value]
