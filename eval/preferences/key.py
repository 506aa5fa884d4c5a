"""The key of a blinded study: which system stands behind each code, and which image behind each image code.

The page that annotators see, and the votes that it hands in, know codes only. The key file (`<study>.key.json`)
lies beside the votes when they are read, never beside the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from add.errors import InputError
from add.files import write_whole
from eval.preferences.damage import cell_damage, parse_json, read_text
from eval.preferences.record import PreferenceError, Problem, one_problem

KEY_SUFFIX = ".key.json"
ATTENTION_CHECK = "attention-check"
"""The system of the destroyed image of an attention check. It is not rated."""


@dataclass(frozen=True)
class StudyKey:
    """The key of one study. systems: code -> name of the system. images: image code -> id of the source image.

    Raises InputError where a code is also a name: a file could then be read in two ways.
    """

    study: str
    systems: Mapping[str, str]
    images: Mapping[str, str]

    def __post_init__(self) -> None:
        for what, codes in (("system", self.systems), ("image", self.images)):
            both = sorted(set(codes) & set(codes.values()))
            if both:
                raise InputError(f"{both[0]!r} is both the code and the name of a {what}; give other codes")


def resolved(value: str, codes: Mapping[str, str]) -> str | None:
    """The name behind a code of `codes`; one of its names as it stands; None for anything else."""
    return codes.get(value, value if value in codes.values() else None)


def read_key(file: Path) -> StudyKey:
    """Reads a key file. Raises PreferenceError."""
    content = parse_json(file, read_text(file))
    if not isinstance(content, dict) or set(content) != {"study", "systems", "images"}:
        raise one_problem(file, "a key file is an object with exactly the fields study, systems, images")
    if problems := [Problem(file, 0, *problem) for problem in _key_problems(content)]:
        raise PreferenceError(problems)
    try:
        return StudyKey(**content)
    except InputError as error:
        raise one_problem(file, str(error)) from error


def _key_problems(content: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(field, value, reason) of each field of a key file, or code in it, that is wrong."""
    study = content["study"]
    if not isinstance(study, str) or not study:
        yield "study", str(study), "must be a text that is not empty"
    elif damage := cell_damage(study, is_text=False):
        yield "study", study, damage
    for name in ("systems", "images"):
        if not isinstance(content[name], dict):
            yield name, str(content[name]), "must be an object of codes and names"
            continue
        for code, value in content[name].items():
            if not isinstance(value, str) or not value or not code:
                yield name, str(value), f"the code {code!r} must stand for a text, and neither may be empty"
            elif damage := cell_damage(code, is_text=False) or cell_damage(value, is_text=False):
                yield name, f"{code}: {value}", damage


def write_key(file: Path, key: StudyKey) -> None:
    """Writes a key file, whole or not at all."""
    write_whole(file, json.dumps(asdict(key), indent=1, ensure_ascii=False) + "\n")


def read_keys(folder: Path) -> dict[str, StudyKey]:
    """Every key file (*.key.json) of a folder, by study. Raises PreferenceError, also for two keys of one study."""
    found: dict[str, tuple[StudyKey, Path]] = {}
    for file in sorted(folder.glob(f"*{KEY_SUFFIX}")):
        key = read_key(file)
        if found.setdefault(key.study, (key, file))[1] != file:
            reason = f"the study's key is already in {found[key.study][1].name}; keep one of the two"
            raise one_problem(file, reason, column="study", value=key.study)
    return {study: key for study, (key, _) in found.items()}


def read_all_keys(folders: Iterable[Path], study: Path | None) -> dict[str, StudyKey]:
    """The keys beside votes, and that of the study's directory once it is made.

    Raises PreferenceError where they contradict each other.
    """
    keys = read_keys(study) if study and study.is_dir() else {}
    for folder in sorted(folders):
        for name, key in read_keys(folder).items():
            if keys.setdefault(name, key) != key:
                reason = "another key of this study was read before; one of the two is another study's"
                raise one_problem(folder, reason, column="study", value=name)
    return keys
