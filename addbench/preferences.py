"""The subcommand preferences: files of votes, in and out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from add.errors import InputError
from add.files import refuse_outputs
from eval.preferences.record import QUESTIONS, RATER_KINDS, PreferenceError, Problem, Vote

_FORMATS = ("lmarena", "evalica", "pickapic", "hpdv2", "label-studio")
_TEXTS = {
    "study": "id of the study that these votes belong to",
    "rater": "who voted, where the file does not say and all rows are one rater's",
    "prompt-id": "id of the prompt, where all rows have the same",
    "prompt": "the prompt, where the file does not say",
    "rater-column": "the column that names the rater",
    "prompt-id-column": "the column that holds the id of the prompt",
    "prompt-column": "the column that holds the prompt",
}
_DECISIONS = {
    "row-is": (("prompt", "rater"), "every row is another prompt (or rater), named by its line"),
    "time-zone": (("UTC", "unknown"), "the zone of times that have none"),
    "both-bad": (("tie",), "count 'both are bad' as a tie"),
    "unanswered": (("leave-out",), "leave out rows without an answer, and say how many"),
    "same-system": (("leave-out",), "leave out rows that compare a system with itself, and say how many"),
}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`preferences check FILE...`, `preferences import FILE ...`, `preferences export FILE ...`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("check", help="say whether files can be read, or what is wrong").add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="a preference file, or a folder of them")
    add("--system", action="append", metavar="NAME", help="a system that may occur (may be repeated)")
    add = actions.add_parser("import", help="make a preference file of another tool's votes").add_argument
    add("file", type=Path, metavar="FILE")
    add("--format", choices=("auto", *_FORMATS), default="auto", help="(default: by the header)")
    add("--out", type=Path, required=True, metavar="FILE", help="the preference file to write")
    add("--replace", action="store_true", help="overwrite the file of --out")
    for name, text in _TEXTS.items():
        add(f"--{name}", metavar=name.rsplit("-", maxsplit=1)[-1].upper(), help=text)
    add("--question", choices=QUESTIONS, help="what the raters were asked")
    add("--rater-kind", choices=RATER_KINDS, help="what the raters are")
    add("--shown-left", choices=("a", "b", "none"), default="none", help="(default: none, not known)")
    add("--image-systems", type=Path, metavar="FILE", help="JSON object {image id: system} (HPDv2)")
    for name, (choices, text) in _DECISIONS.items():
        add(f"--{name}", choices=choices, help=text)
    add = actions.add_parser("export", help="write the tasks of a study for another tool").add_argument
    add("file", type=Path, metavar="FILE", help="a study.json, or a CSV of pairs")
    add("--format", choices=("label-studio",), required=True)
    add("--image-url", required=True, metavar="PREFIX", help="the URL before an image's file name")
    add("--list", metavar="NAME", help="one rater's list of the study (default: every comparison once)")
    add("--out", type=Path, required=True, metavar="FILE", help="tasks (JSON); the labels go beside it")
    add("--replace", action="store_true", help="overwrite these two files")


def preferences(options: argparse.Namespace) -> tuple[str, int]:
    """Check preference files, import votes from other tools, export tasks to them.

    Raises PreferenceError with every problem of every file.
    """
    return {"check": _check, "import": _import, "export": _export}[options.action](options), 0


def _check(options: argparse.Namespace) -> str:
    from eval.preferences.checks import Seen
    from eval.preferences.key import read_keys
    from eval.preferences.reader import read_folder, read_votes

    lines: list[str] = []
    problems: list[Problem] = []
    seen = Seen()  # of all files together, as they are rated
    given = {file.resolve(): file for file in options.files}
    # A file of a folder that is given, too, is one file.
    for file in (file for place, file in given.items() if place.parent not in given):
        try:
            if file.is_dir():
                votes = read_folder(file, options.system, seen=seen)
            else:
                votes = read_votes(file, options.system, read_keys(file.parent), seen)
        except PreferenceError as error:
            problems += error.problems
        else:
            lines.append(f"{file}: {summary(votes)}")
    if problems:
        raise PreferenceError(problems)
    return "\n".join(lines)


def _import(options: argparse.Namespace) -> str:
    from eval.preferences.importers import import_votes
    from eval.preferences.importers.build import Options
    from eval.preferences.reader import write_votes

    refuse_outputs([options.out], [options.file])
    _refuse_lost(options, options.out)
    given = Options(**{field.name: getattr(options, field.name) for field in fields(Options)})
    imported = import_votes(options.file, given, options.format)
    write_votes(options.out, imported.votes)
    lines = [f"{options.out}: {summary(imported.votes)}", *(f"note: {note}" for note in imported.notes)]
    return "\n".join(lines)


def _export(options: argparse.Namespace) -> str:
    from eval.preferences.importers.label_studio import export_tasks

    labels = options.out.with_suffix(".xml")
    refuse_outputs([options.out, labels], [options.file])
    _refuse_lost(options, options.out, labels)
    count = export_tasks(options.file, options.image_url, options.out, options.list)
    return f"{options.out}: {count} tasks; labelling configuration: {labels}"


def _refuse_lost(options: argparse.Namespace, *outputs: Path) -> None:
    for file in outputs:
        if file.exists() and not options.replace:
            raise InputError(file, "exists; give --replace to lose it, or choose another --out")


def summary(votes: Sequence[Vote]) -> str:
    """How many votes, raters, prompts, systems and ties, in one line; attention checks apart."""
    real = [vote for vote in votes if vote.attention_check == "no"]
    counts = {
        "vote": len(real),
        "rater": len({(vote.rater_kind, vote.rater) for vote in votes}),
        "prompt": len({(vote.study, vote.prompt_id) for vote in real}),
        "system": len({name for vote in real for name in (vote.system_a, vote.system_b)}),
        "tie": sum(vote.winner == "tie" for vote in real),
        "attention check": len(votes) - len(real),
    }
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
