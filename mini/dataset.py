"""Write the built-in world as a data set: `python -m mini.dataset --out data/mini`.

COCO's layout and formats (images, `annotations/captions_<split>.json`), a TSV in PartiPrompts' format, and
`scenes.json`, the scene graph behind every caption that can be a prompt. The splits are disjoint: no photograph
is in two of them, and no two-object caption of `val` or `reference` is in `train`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from mini.pretrain.classify import attribute_names
from mini.render import render
from mini.world import LAYOUTS, Scenes, Split, caption, draw_photographs, draw_scenes, is_alike, scene_graph

WRITTEN: tuple[Split, ...] = ("train", "val", "reference")
_CATEGORY = {"snow": "Snow", "stone": "Stone", "sand": "Sand", "night": "Night"}


def write_split(root: Path, split: Split, n: int) -> Scenes:
    """Write the first `n` images of a split as PNG with a COCO captions file; returns their scenes."""
    scenes = draw_scenes(split, n)
    pictures = render(scenes, draw_photographs(split, n))
    folder = root / split
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(n):
        name = f"{i + 1:012d}.png"
        Image.fromarray(pictures[i]).save(folder / name, compress_level=1)
        side = pictures.shape[1]
        images.append({"id": i + 1, "file_name": name, "width": side, "height": side, "license": 1})
        annotations.append({"id": i + 1, "image_id": i + 1, "caption": caption(scenes, i)})
    info = {"description": f"built-in world of captioned scenes, {split} split", "version": "1"}
    content = {
        "info": info,
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": ""}],
        "images": images,
        "annotations": annotations,
    }
    file = root / "annotations" / f"captions_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return scenes


def challenge(scenes: Scenes, i: int) -> str:
    """PartiPrompts' challenge that the caption of scene `i` poses."""
    if LAYOUTS[scenes.layout[i]] == "single":
        return "Basic"
    if is_alike(scenes, i):
        return "Quantity"
    return "Properties & Positioning" if LAYOUTS[scenes.layout[i]] == "row" else "Perspective"


def write_prompts(root: Path, n: int, skip: int) -> list[tuple[str, dict[str, str]]]:
    """Write `n` different prompts as PartiPrompts.tsv from `val` scenes after the first `skip`."""
    scenes = draw_scenes("val", skip + 4 * n + 64)
    rows: dict[str, tuple[str, str, str, dict[str, str]]] = {}
    for i in range(skip, len(scenes)):
        graph = scene_graph(scenes, i)
        category = _CATEGORY[str(graph["background"])]
        rows.setdefault(caption(scenes, i), (category, challenge(scenes, i), "", attribute_names(scenes, i)))
        if len(rows) == n:
            break
    with (root / "PartiPrompts.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        writer.writerow(["Prompt", "Category", "Challenge", "Note"])
        for prompt, (category, kind, note, _) in rows.items():
            writer.writerow([prompt, category, kind, note])
    return [(prompt, row[3]) for prompt, row in rows.items()]


def write_dataset(root: Path, train: int, val: int, reference: int, prompts: int) -> None:
    """Write the whole data set to `root`, which appears whole or not at all."""
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    graphs: dict[str, dict[str, str]] = {}
    for split, n in zip(WRITTEN, (train, val, reference), strict=True):
        scenes = write_split(partial, split, n)
        if split != "train":
            for i in range(n):
                graphs[caption(scenes, i)] = attribute_names(scenes, i)
    graphs |= dict(write_prompts(partial, prompts, skip=val))
    (partial / "scenes.json").write_text(json.dumps({"prompts": graphs}, indent=0) + "\n", encoding="utf-8")
    counts = {"train": train, "val": val, "reference": reference, "prompts": prompts}
    (partial / "dataset.json").write_text(json.dumps({"images": counts}) + "\n", encoding="utf-8")
    replace_directory(partial, root, keep=("networks",))


def replace_directory(partial: Path, root: Path, keep: tuple[str, ...] = ()) -> None:
    """Put `partial` in the place of `root`, moving over the entries of the old one named in `keep`."""
    for name in keep:
        if (root / name).exists() and not (partial / name).exists():
            (root / name).rename(partial / name)
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(prog="python -m mini.dataset", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write (replaced as a whole)")
    parser.add_argument("--train", type=int, default=10_000, help="training images")
    parser.add_argument("--val", type=int, default=1000, help="validation images, whose captions are prompts")
    parser.add_argument("--reference", type=int, default=4000, help="reference images of the FID")
    parser.add_argument("--prompts", type=int, default=160, help="prompts in PartiPrompts.tsv")
    arguments = parser.parse_args()
    write_dataset(arguments.out, arguments.train, arguments.val, arguments.reference, arguments.prompts)


if __name__ == "__main__":
    main()
