"""What the explorer refuses, and how it keeps to its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from add.errors import REFUSED, InputError
from eval.image_scores import write_scores
from eval.metrics.measure import ImageScores
from reports.explorer.__main__ import main
from reports.explorer.contents import read_contents
from reports.explorer.entries import ExplorerEntry, read_entries
from reports.explorer.page import view_fragment, write_explorer
from reports.explorer.sheets import encoded_sheet, shrunk
from tests.support.evaluation import parti_file, picture, write_index, write_samples

PROMPTS = [("a", "a red ring"), ("b", "a blue ring"), ("c", "two rings")]
SCENES: dict[str, dict[str, str | None]] = {
    "a red ring": {"colour": "red", "count": None},
    "a blue ring": {"colour": "blue", "count": "one"},
    "two rings": {"colour": None, "count": "two"},
}
ANSWERS = [
    {"colour": "red", "count": "two"},
    {"colour": "red", "count": "one"},
    {"colour": "red", "count": "two"},
]


def entry(root: Path, name: str = "ours", **changes: Any) -> dict[str, Any]:
    """An entry with samples and scores in `root`."""
    folder = write_samples(root / name, PROMPTS, 1)
    scores = ImageScores(clip_score=[0.1, 0.2, 0.3], alignment=[True, False, True], answers=ANSWERS)
    write_scores(root / f"{name}.csv", [key for key, _ in PROMPTS], 0, scores)
    given: dict[str, Any] = {"system": name, "steps": 1, "prompts": "parti", "samples": str(folder)}
    given |= {"scores": str(root / f"{name}.csv"), "group": "systems", "cells": [], "finding": None}
    return given | changes


def read(root: Path, *entries: dict[str, Any]) -> tuple[ExplorerEntry, ...]:
    file = root / "entries.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    return read_entries(file)


def refusal(root: Path, *entries: dict[str, Any], scenes: Any = None, parti: Path | None = None) -> str:
    """Why these entries are refused."""
    file = None
    if scenes is not None:
        file = root / "scenes.json"
        file.write_text(json.dumps(scenes), encoding="utf-8")
    with pytest.raises(InputError) as found:
        read_contents(read(root, *entries), file, {} if parti is None else {"parti": parti})
    return str(found.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fid": 3}, "0.fid: Extra inputs"),
        ({"steps": "1"}, "0.steps"),
        ({"steps": 0}, "0.steps"),
        ({"system": ""}, "0.system"),
        ({"cells": [{"metric": "fid", "value": 3}]}, "0.cells.0.text"),
        ({"finding": {"claim": "it holds"}}, "0.finding.verdict"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as found:
        read(tmp_path, entry(tmp_path, **changes))
    assert str(found.value).startswith(f"{tmp_path / 'entries.json'}: ")
    assert said in str(found.value)


def test_two_cells_of_one_metric_are_refused(tmp_path: Path) -> None:
    cells = [{"metric": "fid", "text": "3.1"}, {"metric": "fid", "text": "3.2"}]
    with pytest.raises(InputError, match=r"entries.json: 0\.cells: two cells have the metric 'fid'"):
        read(tmp_path, entry(tmp_path, cells=cells))


def test_a_missing_field_an_empty_list_and_no_file_are_refused(tmp_path: Path) -> None:
    given = entry(tmp_path)
    del given["group"]
    with pytest.raises(InputError, match=r"entries.json: 0\.group: Field required"):
        read(tmp_path, given)
    with pytest.raises(InputError, match="holds no entries"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_entries(tmp_path / "absent.json")


def test_one_name_for_two_image_sets_is_refused_and_one_set_in_two_tables_is_not(tmp_path: Path) -> None:
    ours, other = entry(tmp_path), entry(tmp_path, "other", system="ours")
    with pytest.raises(
        InputError, match=r"entries.json: 1: 'ours' at 1 step\(s\) .* other samples or scores"
    ):
        read(tmp_path, ours, other)
    contents = read_contents(read(tmp_path, ours, ours | {"group": "Another question"}), None, {})
    assert len(contents.images) == 1


def test_scores_of_other_prompts_are_refused_by_line(tmp_path: Path) -> None:
    given = entry(tmp_path)
    write_scores(tmp_path / "ours.csv", ["a", "c", "b"], 0, ImageScores(clip_score=[0.1, 0.2, 0.3]))
    assert f"{tmp_path / 'ours.csv'}:3: prompt_id: is c, but" in refusal(tmp_path, given)
    write_scores(tmp_path / "ours.csv", ["a", "b"], 0, ImageScores(clip_score=[0.1, 0.2]))
    assert "holds the scores of 2 images" in refusal(tmp_path, given)
    assert "cannot be read" in refusal(tmp_path, given | {"scores": str(tmp_path / "absent.csv")})


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ours, other = entry(tmp_path), entry(tmp_path, "other")
    assert "says 1 steps, the entry of 'ours' says 4" in refusal(tmp_path, ours | {"steps": 4})
    assert "sampling did not finish" in refusal(tmp_path, ours | {"samples": str(tmp_path / "absent")})
    rows = [(f"{k:06d}.png", key, text + "s", 7, 1000 + k) for k, (key, text) in enumerate(PROMPTS)]
    write_index(tmp_path / "other", rows, 1)
    assert "entry 1 is for a, 'a red rings'" in refusal(tmp_path, ours, other)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    given = entry(tmp_path)
    Image.fromarray(picture(1, 24)).save(tmp_path / "ours" / "000001.png")
    with pytest.raises(InputError, match=r"000001\.png: is 24x24; 16x16"):
        write_explorer(read(tmp_path, given), tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_the_scenes_must_be_those_of_the_scores(tmp_path: Path) -> None:
    given = entry(tmp_path)
    wrong = SCENES | {"two rings": {"colour": "green", "count": "two"}}
    said = refusal(tmp_path, given, scenes={"prompts": wrong})
    assert f"{tmp_path / 'ours.csv'}:4: all_right: is true, but not by the scene of 'two rings'" in said
    lacking = {text: scene for text, scene in SCENES.items() if text != "two rings"}
    assert "prompts['two rings']: no scene" in refusal(tmp_path, given, scenes={"prompts": lacking})
    assert "is not {" in refusal(tmp_path, given, scenes={"a red ring": {}})


def test_categories_are_of_the_same_prompts(tmp_path: Path) -> None:
    prompts = [("parti-0001", "a red ring"), ("parti-0003", "two rings")]
    write_samples(tmp_path / "parti", prompts, 1)
    given = entry(tmp_path, samples=str(tmp_path / "parti"), scores=None)
    rows = [("a red ring", "Night", "Basic"), ("other", "Snow", "Basic"), ("two rings", "Sand", "Quantity")]
    contents = read_contents(read(tmp_path, given), None, {"parti": parti_file(tmp_path / "p.tsv", rows)})
    found = [(shown.prompt.category, shown.prompt.challenge) for shown in contents.prompts["parti"]]
    assert found == [("Night", "Basic"), ("Sand", "Quantity")]
    swapped = parti_file(tmp_path / "swapped.tsv", rows[::-1])
    assert "has no prompt parti-0001, 'a red ring'" in refusal(tmp_path, given, parti=swapped)
    with pytest.raises(InputError, match="--parti coco: no entry has this prompt set"):
        read_contents(read(tmp_path, given), None, {"coco": swapped})


def test_the_command_says_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(tmp_path, entry(tmp_path))
    command = ["--entries", str(tmp_path / "entries.json"), "--out", str(tmp_path / "out.html")]
    assert main([*command, "--images", "0"]) == REFUSED
    assert "--images: is 0" in capsys.readouterr().err
    assert main([*command, "--parti", "parti.tsv"]) == REFUSED
    assert "should be SET=FILE" in capsys.readouterr().err
    assert main([*command, "--images", "2"]) == 0
    assert (tmp_path / "out.html").is_file()


def config_of(page: Path) -> dict[str, Any]:
    text = page.read_text("utf-8").split('id="config">', 1)[1].split("</script>", 1)[0]
    found: dict[str, Any] = json.loads(text)
    return found


def test_too_large_a_page_shrinks_images_then_takes_fewer_prompts_and_says_so(tmp_path: Path) -> None:
    names = [f"{k:06d}.png" for k in range(4)]
    (tmp_path / "big").mkdir()
    for k, name in enumerate(names):
        Image.fromarray(picture(k, 256)).save(tmp_path / "big" / name)
    write_index(tmp_path / "big", [(name, name, name, 7, k) for k, name in enumerate(names)], 1)
    entries = read(tmp_path, entry(tmp_path, samples=str(tmp_path / "big"), scores=None))
    out = tmp_path / "out.html"
    whole = write_explorer(entries, out, prompts=4)
    assert (whole.prompts, whole.side) == (4, 192)
    assert whole.bytes == out.stat().st_size
    first = out.read_bytes()
    write_explorer(entries, out, prompts=4)
    assert out.read_bytes() == first, "the same input gave other bytes"
    smaller = write_explorer(entries, out, prompts=4, limit=whole.bytes - 1)
    assert (smaller.prompts, smaller.side) == (4, 128)
    assert (
        config_of(out)["images"][0] | {"side": 128, "resolution": 256, "lossless": False}
        == config_of(out)["images"][0]
    )
    smallest = write_explorer(entries, out, prompts=4, limit=whole.bytes)
    while smallest.prompts == 4:
        smallest = write_explorer(entries, out, prompts=4, limit=smallest.bytes - 1)
    assert (smallest.prompts, smallest.side) == (3, 96), "no more are left out than must be"
    assert config_of(out)["reduced"] == 4
    assert len(config_of(out)["sets"][0]["prompts"]) == 3
    with pytest.raises(InputError, match="would have more than 1000 bytes with one prompt"):
        write_explorer(entries, tmp_path / "none.html", limit=1000)
    assert not (tmp_path / "none.html").exists()


def test_a_small_tile_is_the_image_bit_by_bit_and_a_large_one_is_shrunk() -> None:
    import io

    tiles = [picture(k, 16) for k in range(13)]
    with Image.open(io.BytesIO(encoded_sheet(tiles, lossless=True))) as file:
        sheet = np.asarray(file.convert("RGB"))
    assert sheet.shape == (32, 160, 3)
    for k, tile in enumerate(tiles):
        top, left = k // 10 * 16, k % 10 * 16
        np.testing.assert_array_equal(sheet[top : top + 16, left : left + 16], tile)
    assert shrunk(picture(0, 300), 192).shape == (192, 192, 3)
    assert shrunk(picture(0, 100), 192).shape == (100, 100, 3)


def test_a_link_escapes_names() -> None:
    found = view_fragment([("L_adv, 100% @home", 1), ("none", 4)], "parti", "clip_score")
    name = "L_adv%2C%20100%25%20%40home@1"
    assert found == f"#prompts=parti&systems={name},none@4&sort=clip_score&of={name}&order=low"
