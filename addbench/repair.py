"""`addbench repair`: results that lost files are made again by the next `snakemake`.

Snakemake looks at a stage's last file alone. Where another file of the stage is gone, that last file is removed, and
with it nothing that a person put there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from add.errors import InputError
from add.models.weights import PARTS
from addbench.project import RESULTS, load_project


def repair(options: argparse.Namespace) -> tuple[str, int]:
    """Let the next snakemake make again what lost files: sample sets and students that are not whole."""
    from eval.images import read_samples

    root = RESULTS / load_project(options.scale).scale.name
    lines = []
    for student in sorted(root.glob("*/seed*/student")):
        if lost := next(_lost(student), None):
            shutil.rmtree(student)
            student.with_name("train").joinpath("train.json").unlink(missing_ok=True)
            lines.append(f"{lost}; {student} is removed and will be trained again")
    for finished in sorted(root.rglob("samples.json")):
        try:
            samples = read_samples(finished.parent, 1)
            empty = next((file for file in samples.files if not file.stat().st_size), None)
            reason = f"{empty}: is empty" if empty else None
        except InputError as error:
            reason = str(error)
        if reason:
            finished.unlink()
            lines.append(f"{reason}; {finished} is removed and the set will be sampled again")
    return "\n".join(lines) or f"{root}: every student and sample set is whole", 0


def _lost(student: Path) -> Iterator[str]:
    """What a student's directory lacks of what its model_index.json lists."""
    try:
        index = json.loads((student / "model_index.json").read_bytes())
    except (OSError, ValueError):
        yield f"{student / 'model_index.json'}: is missing or no JSON"
        return
    for name, value in index.items():
        if isinstance(value, list) and None not in value:
            files = [file for file in (student / name).glob("*") if file.stat().st_size]
            if not files:
                yield f"{student / name}: is missing or empty"
            elif name in PARTS and not any(file.suffix == ".safetensors" for file in files):
                yield f"{student / name}: holds no weights"
