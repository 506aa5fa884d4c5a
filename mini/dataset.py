"""Write the built-in world as a data set: `python -m mini.dataset --out data/mini`.

It has COCO's layout and formats (images, `annotations/captions_<split>.json`), a TSV in PartiPrompts' format, and
`scenes.json` with the attributes behind every caption that can be a prompt. The splits are disjoint: no photograph is
in two of them, and no caption of `val` or `reference` with two different objects is in `train`. What is called `val`,
as COCO calls it, is of the world's split `test`: no network was chosen by it, and no setting.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

from PIL import Image

from add.errors import InputError, at_least, refuses
from add.files import whole_directory
from add.lock import only_writer
from mini.pretrain.classify import attribute_names
from mini.world import (
    LAYOUTS,
    RESOLUTION,
    Scenes,
    Split,
    caption,
    draw_photographs,
    draw_scenes,
    is_alike,
    render,
)

WRITTEN: dict[str, Split] = {"train": "train", "val": "test", "reference": "reference"}
"""The world's split behind each set of images."""
ENTRIES = {*WRITTEN, "annotations", "scenes.json", "PartiPrompts.tsv", "dataset.json", "networks", "encoded"}
"""What may stand in the data set's directory: what is written, the smoke scale's networks, the mini scale's cache."""


def write_split(root: Path, name: str, n: int) -> Scenes:
    """Write the first `n` images of a set as PNG, and a COCO captions file; return their scenes."""
    split = WRITTEN[name]
    scenes = draw_scenes(split, n)
    pictures = render(scenes, draw_photographs(split, n))
    folder = root / name
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(n):
        file_name = f"{i + 1:012d}.png"
        Image.fromarray(pictures[i]).save(folder / file_name, compress_level=1)
        images.append(
            {"id": i + 1, "file_name": file_name, "width": RESOLUTION, "height": RESOLUTION, "license": 1}
        )
        annotations.append({"id": i + 1, "image_id": i + 1, "caption": caption(scenes, i)})
    content = {
        "info": {"description": f"built-in world of captioned scenes, {split} split", "version": "1"},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": ""}],
        "images": images,
        "annotations": annotations,
    }
    file = root / "annotations" / f"captions_{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return scenes


def challenge(scenes: Scenes, i: int) -> str:
    """The challenge, in PartiPrompts' terms, of the caption of scene `i`."""
    if LAYOUTS[scenes.layout[i]] == "single":
        return "Basic"
    if is_alike(scenes, i):
        return "Quantity"
    return "Properties & Positioning" if LAYOUTS[scenes.layout[i]] == "row" else "Perspective"


def write_prompts(root: Path, n: int, skip: int) -> dict[str, dict[str, str]]:
    """Write `n` different prompts from the scenes of `val` after the first `skip` to PartiPrompts.tsv.

    Returns the attributes behind each prompt.
    """
    scenes = draw_scenes(WRITTEN["val"], skip + 4 * n + 64)
    first: dict[str, int] = {}
    for i in range(skip, len(scenes)):
        first.setdefault(caption(scenes, i), i)
        if len(first) == n:
            break
    attributes = {prompt: attribute_names(scenes, i) for prompt, i in first.items()}
    with (root / "PartiPrompts.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        writer.writerow(["Prompt", "Category", "Challenge", "Note"])
        for prompt, i in first.items():
            writer.writerow([prompt, attributes[prompt]["background"].capitalize(), challenge(scenes, i), ""])
    return attributes


def write_dataset(root: Path, train: int, val: int, reference: int, prompts: int) -> None:
    """Write the data set to `root`, which appears whole or not at all and keeps its folder `networks`.

    Raises InputError where `root` holds something else, which would be lost.
    """
    others = sorted({path.name for path in root.iterdir()} - ENTRIES) if root.exists() else []
    if others:
        raise InputError(
            root, f"holds {', '.join(others)}, and is replaced as a whole; give another directory"
        )
    counts = {"train": train, "val": val, "reference": reference, "prompts": prompts}
    graphs: dict[str, dict[str, str]] = {}
    with whole_directory(root) as partial:
        for name in WRITTEN:
            scenes = write_split(partial, name, counts[name])
            if name != "train":
                graphs |= {caption(scenes, i): attribute_names(scenes, i) for i in range(len(scenes))}
        graphs |= write_prompts(partial, prompts, skip=val)
        (partial / "scenes.json").write_text(
            json.dumps({"prompts": graphs}, indent=0) + "\n", encoding="utf-8"
        )
        (partial / "dataset.json").write_text(json.dumps({"images": counts}) + "\n", encoding="utf-8")
        if (root / "networks").exists():
            (root / "networks").rename(partial / "networks")


@refuses
def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(prog="python -m mini.dataset", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write (replaced as a whole)")
    parser.add_argument("--train", type=at_least(1), default=10_000, help="training images")
    parser.add_argument(
        "--val", type=at_least(1), default=4000, help="validation images, whose captions are prompts"
    )
    parser.add_argument("--reference", type=at_least(1), default=4000, help="reference images of the FID")
    parser.add_argument("--prompts", type=at_least(1), default=160, help="prompts in PartiPrompts.tsv")
    arguments = parser.parse_args()
    with only_writer(arguments.out):
        write_dataset(arguments.out, arguments.train, arguments.val, arguments.reference, arguments.prompts)


if __name__ == "__main__":
    sys.exit(main())
