"""The built-in world: what a caption says is in the picture's record, splits are disjoint, pictures reproducible."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mini.dataset import write_dataset
from mini.pretrain.classify import GROUPS, attribute_labels, attribute_names, label_names
from mini.world import (
    COLOURS,
    LAYOUTS,
    SHAPES,
    SIZES,
    SPLITS,
    Scenes,
    caption,
    captions,
    draw_photographs,
    draw_scenes,
    render,
    scene_key,
    take,
)


def test_the_first_scenes_and_pictures_do_not_depend_on_how_many_are_drawn():
    few, many = draw_scenes("train", 5), draw_scenes("train", 3000)
    assert np.array_equal(scene_key(few), scene_key(many)[:5])
    a = render(few, draw_photographs("train", 5))
    b = render(take(many, slice(0, 300)), draw_photographs("train", 300))
    assert np.array_equal(a, b[:5])


def scene_graph(scenes: Scenes, i: int) -> dict[str, Any]:
    """Scene `i` as plain data: layout and objects (left or upper first), each with three attributes."""
    layout = LAYOUTS[scenes.layout[i]]
    objects = [
        {
            "shape": SHAPES[scenes.shape[i, min(k, 1)]],
            "colour": COLOURS[scenes.colour[i, min(k, 1)]],
            "size": SIZES[scenes.size[i, min(k, 1)]],
        }
        for k in range({"single": 1, "row": 2, "column": 2, "triple": 3}[layout])
    ]
    return {"layout": layout, "objects": objects}


def test_captions_name_exactly_what_the_scene_graph_holds():
    scenes = draw_scenes("val", 400)
    for i in range(400):
        graph = scene_graph(scenes, i)
        text = caption(scenes, i)
        for thing in graph["objects"]:
            for value in thing.values():
                assert value in text
        assert {"triple": "three"}.get(graph["layout"], "") in text
        if len(captions(scenes, i)) == 2:
            assert ("left of" if graph["layout"] == "row" else "above") in text
            assert text.index(graph["objects"][0]["shape"]) >= 0


def test_one_caption_is_one_scene():
    # The oracle looks a prompt's truth up by its text: two scenes behind one caption would make it a lottery.
    scenes = draw_scenes("val", 3000)
    truth: dict[str, dict[str, str]] = {}
    for i in range(3000):
        names = attribute_names(scenes, i)
        assert truth.setdefault(caption(scenes, i), names) == names


def test_two_object_captions_of_val_and_reference_are_never_trained_on():
    def pairs(split):
        scenes = draw_scenes(split, 4000)
        return {caption(scenes, i) for i in range(4000) if len(captions(scenes, i)) == 2}

    val, reference = pairs("val") | pairs("test"), pairs("reference")
    assert val
    assert not val & reference
    for split in ("train", "discriminator", "evaluation"):
        assert not pairs(split) & (val | reference)


def test_no_photograph_is_in_two_splits():
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        for picture in render(draw_scenes(split, 60), draw_photographs(split, 60)):
            assert seen.setdefault(picture.tobytes(), split) == split


def test_labels_say_none_for_an_object_that_is_not_there():
    scenes = draw_scenes("train", 200)
    labels = attribute_labels(scenes).numpy()
    assert labels.shape == (200, len(GROUPS))
    for i in range(200):
        names = attribute_names(scenes, i)
        pair = LAYOUTS[scenes.layout[i]] in ("row", "column")
        assert (names["shape_1"] == "none") is not pair
        assert names["shape_0"] == SHAPES[scenes.shape[i, 0]]
        assert names["colour_0"] == COLOURS[scenes.colour[i, 0]]
        assert names["size_0"] == SIZES[scenes.size[i, 0]]
    assert len(label_names()) == sum(map(len, GROUPS.values()))


def test_colours_are_where_the_caption_puts_them():
    # A renderer that swapped left and right would make every alignment figure wrong and no other test fail.
    scenes = draw_scenes("train", 600)
    rows = [
        i
        for i in range(600)
        if LAYOUTS[scenes.layout[i]] == "row"
        and COLOURS[scenes.colour[i, 0]] == "red"
        and COLOURS[scenes.colour[i, 1]] == "blue"
    ]
    assert rows
    pictures = render(
        take(scenes, np.array(rows)), take(draw_photographs("train", 600), np.array(rows))
    ).astype(int)
    redness = pictures[..., 0] - pictures[..., 2]
    assert all(r[:, :16].max() > 100 > -100 > r[:, 16:].min() for r in redness)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="unknown split 'exam'"):
        draw_scenes("exam", 1)


def test_the_data_set_has_coco_and_partiprompts_formats(tmp_path: Path):
    write_dataset(tmp_path / "world", train=6, val=5, reference=4, prompts=9)
    root = tmp_path / "world"
    for split, n in (("train", 6), ("val", 5), ("reference", 4)):
        content = json.loads((root / "annotations" / f"captions_{split}.json").read_text())
        assert {"info", "licenses", "images", "annotations"} <= set(content)
        assert len(content["images"]) == len(list((root / split).glob("*.png"))) == n
        assert Image.open(root / split / content["images"][0]["file_name"]).size == (32, 32)
    with (root / "PartiPrompts.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["Prompt", "Category", "Challenge", "Note"]
    assert len({r["Prompt"] for r in rows}) == 9
    scenes = json.loads((root / "scenes.json").read_text())["prompts"]
    assert {r["Prompt"] for r in rows} <= set(scenes)
    captions_val = json.loads((root / "annotations" / "captions_val.json").read_text())["annotations"]
    assert {a["caption"] for a in captions_val} <= set(scenes)
