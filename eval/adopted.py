"""Are the captions, photographs and prompts that an adopted scale names all there, and whole?

    python -m eval.adopted --scale config/coco.yaml --out data/coco

is the `data` stage of config/coco.yaml where `addbench adopt` wrote that file: it reads everything once by the
readers of the later stages, and leaves annotations/captions_train.json, which lists what is trained on (the
photographs on disk, with all their captions), and last dataset.json, which says how much there is of each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.data.coco import read_captions
from add.data.reading import file_bytes, json_object
from add.errors import InputError, refuses
from add.files import write_json
from add.lock import only_writer
from eval.images import decode_image, image_folder, on_disk, photograph_folder
from eval.prompts import read_prompts
from eval.stage import MeasureValues, add_scale_option

BUILD = "eval.adopted"
"""This module as a scale names it in `data.build`."""

TRAINING_LIST = "annotations/captions_train.json"
_ON_DISK = "those on disk"


@dataclass(frozen=True)
class AdoptedPhotographs:
    """A COCO captions file: image id -> file name, image id -> (annotation id, caption); what is on disk."""

    annotations: Path
    names: dict[int, str]
    captions: dict[int, list[tuple[int, str]]]
    present: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the photographs are."""
        return photograph_folder(self.annotations)

    def missing(self) -> str | None:
        """One line about the listed photographs that are not on disk; None where all are."""
        absent = sorted(set(self.names.values()) - set(self.present))
        if not absent:
            return None
        return (
            f"{self.folder}: {len(absent)} of the {len(self.names)} photographs that {self.annotations.name} "
            f"lists are missing, the first is {absent[0]}"
        )


def read_photographs(annotations: Path) -> AdoptedPhotographs:
    """Read the captions and look which photographs are there. Raises InputError."""
    read = read_captions(annotations)
    present = on_disk(annotations, list(read.names.values()))
    return AdoptedPhotographs(annotations, read.names, read.captions, present)


def image_modes(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Decode every photograph whole; how many have which Pillow mode on disk.

    Raises InputError that names every broken one.
    """
    from PIL import Image
    from tqdm import tqdm

    modes: Counter[str] = Counter()
    broken: list[str] = []
    for name in tqdm(names, desc="photographs", mininterval=5, disable=len(names) < 500):
        try:
            decode_image(folder / name)
        except InputError as error:
            broken += error.problems
            continue
        with Image.open(folder / name) as image:
            modes[image.mode] += 1
    if broken:
        raise InputError.of(broken)
    return dict(sorted(modes.items()))


def inspect(values: MeasureValues) -> tuple[dict[str, Any], dict[str, Any]]:
    """dataset.json's content and the training list's, once all that the scale names has been read.

    Raises InputError, also where no prompt set is of kind coco.
    """
    config = next((prompts for prompts in values.prompts.values() if prompts.kind == "coco"), None)
    if config is None:
        raise InputError(f"scale {values.name} has no prompt set of kind coco")
    found = read_photographs(Path(config.annotations))
    if config.present is None and (missing := found.missing()):
        raise InputError(found.folder, f"{missing.partition(': ')[2]}; a part must be stated (`present`)")
    counts = {name: len(read_prompts(prompts)) for name, prompts in values.prompts.items()}
    evaluation, reference = values.evaluation, values.evaluation.reference
    asked = (Path(reference.images), evaluation.resolution, evaluation.crop, reference.count)
    there = {found.folder / name for name in found.present}
    others = [file.name for file in image_folder(*asked).files if file not in there]
    modes = image_modes(found.folder, found.present)
    image_modes(Path(reference.images), others)  # of the reference, and no caption's: they are measured, too
    listing = _training_list(found)
    facts = {
        "scale": values.name,
        "notice": values.notice,
        "captions": {
            "file": config.annotations,
            "images": len(found.names),
            "captions": sum(map(len, found.captions.values())),
        },
        "photographs": {
            "folder": found.folder.as_posix(),
            "listed": len(found.names),
            "present": len(found.present),
            "modes": modes,
        },
        "prompts": counts,
        "reference": {"folder": reference.images, "images": reference.count},
        "training": {"images": len(listing["images"]), "captions": len(listing["annotations"])},
    }
    return facts, listing


def refuse_others(root: Path) -> None:
    """Raises InputError where `write_data` would write over a file that it did not write."""
    for path in (root / TRAINING_LIST, root / "dataset.json"):
        if path.is_file() and not _written_here(path):
            raise InputError(path, "is a file of yours, and would be written over; choose another --name")


def _written_here(path: Path) -> bool:
    """Whether `write_data` wrote a file."""
    try:
        content = json_object(file_bytes(path), path)
    except InputError:
        return False
    info = content.get("info")
    listed = isinstance(info, dict) and str(info.get("description", "")).endswith(_ON_DISK)
    return listed or {"scale", "photographs", "training"} <= content.keys()


def write_data(root: Path, facts: dict[str, Any], listing: dict[str, Any]) -> None:
    """Write both files below `root`. One that would not change is left alone: its age decides what is rerun.

    Raises InputError as `refuse_others` does.
    """
    refuse_others(root)
    for path, content in ((root / TRAINING_LIST, listing), (root / "dataset.json", facts)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_json(path, content)


def _training_list(found: AdoptedPhotographs) -> dict[str, Any]:
    there = set(found.present)
    ids = sorted(image_id for image_id, name in found.names.items() if name in there)
    title = f"{len(ids)} of the {len(found.names)} images of {found.annotations.name}: {_ON_DISK}"
    return {
        "info": {"description": title},
        "images": [{"id": i, "file_name": found.names[i]} for i in ids],
        "annotations": [
            {"id": number, "image_id": i, "caption": text} for i in ids for number, text in found.captions[i]
        ],
    }


@refuses
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 3 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.adopted", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="data/<scale>")
    add_scale_option(parser)
    options = parser.parse_args(arguments)
    with only_writer(options.out):
        facts, listing = inspect(MeasureValues.read(options.scale))
        write_data(options.out, facts, listing)
    print(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
