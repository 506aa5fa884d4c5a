"""Read scales, baseline, ablations and runs from their files; refuse wrong ones with file and line."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from add.config.run import Ablation, Run, Variant
from add.config.scale import Scale
from add.config.types import Document
from add.config.yaml import SpecError, nearest, raise_all, read_json, read_model

ABLATIONS = Path("ablations")
"""The folder of the paper's questions."""

BASELINE = "baseline"
"""Name of the baseline's file in `ablations/`, and of its run."""

LONGEST_RUN = 120
"""Letters of a run's name: file systems take 255 in a file's name, and logs have the stage and the seed besides."""

_DOCUMENT = TypeVar("_DOCUMENT", bound=Document)


def load_scale(path: str | Path) -> Scale:
    """Reads config/<name>.yaml. Raises SpecError with every problem of the file."""
    scale = load_document(Scale, path)
    if scale.name != Path(path).stem:
        message = f"'{scale.name}' differs from the file's: two scales would share results/{scale.name}/"
        raise scale.origin.error(("name",), f"name: {message}")
    return scale


def load_baseline(path: str | Path) -> Variant:
    """Reads ablations/baseline.yaml. Raises SpecError with every problem of the file."""
    return load_document(Variant, path)


def baseline_file(ablations: Path) -> Path:
    """The shared default of a folder of ablations: its own baseline.yaml, or that of the project's folder."""
    own = ablations / f"{BASELINE}.yaml"
    # A link that leads nowhere is refused by its reader, not ignored.
    return own if os.path.lexists(own) else ABLATIONS / own.name


def load_ablations(directory: str | Path) -> tuple[Ablation, ...]:
    """Every YAML of `directory` but baseline.yaml, by part. Raises SpecError with all files' problems."""
    ablations, problems = load_folder(Ablation, directory, r"[a-z][a-z0-9_]*", "runs", without=(BASELINE,))
    for ablation in ablations:
        problems += (*_label_problems(ablation), *_finding_problems(ablation))
    ablations.sort(key=lambda ablation: (ablation.part, ablation.name))
    for first, second in pairwise(ablations):
        if first.part == second.part:
            message = f"part: '{second.part}' is already the part of {first.origin.file}"
            problems.append(second.origin.error(("part",), message))
    raise_all(problems)
    if not ablations and not (Path(directory) / f"{BASELINE}.yaml").exists():
        raise SpecError(Path(directory).as_posix(), 1, "holds no question and no baseline: no YAML file")
    return tuple(ablations)


def load_run(path: str | Path) -> Run:
    """A run written as JSON (`Run.model_dump_json`). Raises SpecError."""
    return read_json(Run, path)


def load_folder(
    model: type[_DOCUMENT], directory: str | Path, stem: str, named: str, without: Collection[str] = ()
) -> tuple[list[_DOCUMENT], list[SpecError]]:
    """Every YAML of a folder as a `model`, by name, and what is wrong with the others.

    stem: a pattern of the files' stems, which name what `named` says. without: stems of other files that belong
    there. Raises SpecError where the folder is none.
    """
    if not Path(directory).is_dir():
        raise SpecError(Path(directory).as_posix(), 1, "is not a directory; run from the repository's root")
    problems: list[SpecError] = []
    found: list[_DOCUMENT] = []
    for path in sorted(Path(directory).iterdir()):
        if path.suffix.lower() not in (".yaml", ".yml") or path.name.startswith("."):
            continue
        if path.name in (f"{left_out}.yaml" for left_out in without):
            continue
        try:
            if not re.fullmatch(rf"{stem}\.yaml", path.name):
                message = (
                    f"rename it to lower-case letters, digits and '_', ending in .yaml: it names {named}"
                )
                raise SpecError(path.as_posix(), 1, message)
            found.append(load_document(model, path))
        except SpecError as error:
            problems.append(error)
    return found, problems


def load_document(model: type[_DOCUMENT], path: str | Path) -> _DOCUMENT:
    """One YAML file as a `model`. Raises SpecError with every problem of the file."""
    document, origin = read_model(model, path)
    document.read_from(origin)
    return document


def _label_problems(ablation: Ablation) -> Iterator[SpecError]:
    """Labels that a reader or a path cannot tell apart."""
    seen: dict[str, int] = {}
    for index, row in enumerate(ablation.rows):
        loc = ("rows", index, "label")
        first = seen.setdefault(row.slug, index)
        if not row.slug:
            message = f"label '{row.label}' has no ASCII letter or digit, so it cannot name a run"
            yield ablation.origin.error(loc, message)
        elif len(run := f"{ablation.name}-{row.slug}") > LONGEST_RUN:
            message = (
                f"label names the run '{run[:20]}...', whose {len(run)} letters are more than {LONGEST_RUN}"
            )
            yield ablation.origin.error(loc, f"{message}; folders and logs are named so: shorten it")
        elif first != index:
            other, line = ablation.rows[first].label, ablation.origin.line(("rows", first, "label"))
            what = "duplicate label" if other == row.label else "label too close to another:"
            message = f"{what} '{row.label}'; line {line} has '{other}', and both name runs '-{row.slug}'"
            yield ablation.origin.error(loc, message)


def _finding_problems(ablation: Ablation) -> Iterator[SpecError]:
    """Findings about rows that the file does not have."""
    labels = [row.label for row in ablation.rows]
    for index, finding in enumerate(ablation.findings):
        for key in ("rows", "than"):
            for place, label in enumerate(getattr(finding, key)):
                if label not in labels:
                    message = f"{key}: this file has no row '{label}'{nearest(label, labels)}"
                    yield ablation.origin.error(("findings", index, key, place), message)
        if both := sorted(set(finding.rows) & set(finding.than)):
            message = f"than: '{both[0]}' would be compared with itself"
            yield ablation.origin.error(("findings", index, "than"), message)
        if finding.relation == "best" and set(finding.rows) >= set(labels):
            yield ablation.origin.error(
                ("findings", index, "rows"), "rows: there is no other row to be better than"
            )
