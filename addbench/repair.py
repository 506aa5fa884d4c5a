"""`addbench repair`: results that lost files are made again by the next `snakemake`.

Snakemake looks at a stage's last file alone. Where another file of the stage is gone, that last file is removed, and
with it nothing that a person put there.
"""

from __future__ import annotations

import argparse
import shutil

from add.errors import InputError
from add.models.weights import lost_files
from addbench.project import load_project


def repair(options: argparse.Namespace) -> tuple[str, int]:
    """Let the next snakemake make again what lost files: sample sets and students that are not whole.

    Code 1 where a file that is no sample lies in a set, which is left alone.
    """
    from eval.images import ForeignFileError, read_samples

    root = load_project(options.scale, options.ablations).results
    lines, left = [], []
    for student in sorted([*root.glob("*/seed*/student"), *root.glob("systems/*/student")]):
        if lost := next(lost_files(student), None):
            shutil.rmtree(student)
            student.with_name("train").joinpath("train.json").unlink(missing_ok=True)
            lines.append(f"{lost}; {student} is removed and will be trained again")
    for finished in sorted(root.rglob("samples.json")):
        try:
            samples = read_samples(finished.parent, 1)
            empty = next((file for file in samples.files if not file.stat().st_size), None)
            reason = f"{empty}: is empty" if empty else None
        except ForeignFileError as error:
            left.append(f"{error} (nothing is changed: to sample the set again would remove it)")
            continue
        except InputError as error:
            reason = str(error)
        if reason:
            finished.unlink()
            lines.append(f"{reason}; {finished} is removed and the set will be sampled again")
    found = [*lines, *left]
    return "\n".join(found) or f"{root}: every student and sample set is whole", int(bool(left))
