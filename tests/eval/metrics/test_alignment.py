"""Alignment: the oracle's answers against the scenes behind the prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from add.config.scale import OracleSpec as OracleSpec
from add.errors import InputError
from add.models.weights import WeightsError
from eval.metrics.alignment import alignment, load_oracle, read_scenes, scenes_of, wilson
from eval.metrics.features import ImageBatch
from tests.support.evaluation import GROUPS, picture, save_classifier, scene

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_classifier(tmp_path_factory.mktemp("oracle") / "model")
    (directory / "scenes.txt").write_text(json.dumps({"prompts": {"a": scene(0)}}))
    return directory


def spec(directory: Path) -> OracleSpec:
    return OracleSpec(
        path=str(directory), image_size=32, mean=HALF, std=HALF, scenes=str(directory / "scenes.txt")
    )


def groups() -> dict[str, dict[str, int]]:
    names = [(group, value) for group, values in GROUPS.items() for value in values]
    return {group: {v: k for k, (g, v) in enumerate(names) if g == group} for group in GROUPS}


def test_the_answer_is_the_highest_output_within_each_group(directory: Path) -> None:
    from transformers import ResNetForImageClassification

    oracle = load_oracle(spec(directory))
    assert oracle.groups == groups()
    assert (oracle.scenes, oracle.source.count) == ({"a": scene(0)}, 1)
    images = np.stack([picture(k, 32) for k in range(5)])
    model = ResNetForImageClassification.from_pretrained(directory).eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        logits = model(pixels).logits.numpy()
    expected = [
        {g: values[int(np.argmax([row[groups()[g][v]] for v in values]))] for g, values in GROUPS.items()}
        for row in logits
    ]
    assert oracle.answers(ImageBatch(images)) == expected


def test_outputs_that_are_not_groups_are_refused(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["0"] = "LABEL_0"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="'LABEL_0', not 'group:value'"):
        load_oracle(spec(tmp_path))


def test_all_right_is_stricter_than_any_group() -> None:
    truth = [scene(k) for k in range(4)]
    answers = [dict(one) for one in truth]
    answers[0]["layout"] = "row" if truth[0]["layout"] == "single" else "single"
    answers[1]["shape_0"] = next(v for v in GROUPS["shape_0"] if v != truth[1]["shape_0"])
    found = alignment(answers, truth)  # type: ignore[arg-type]
    assert found.value == 0.5
    assert found.groups == {"layout": 0.75, "shape_0": 0.75, "shape_1": 1.0}
    assert found.interval == wilson(2, 4)


def test_what_a_prompt_leaves_open_is_not_asked() -> None:
    truth = [
        {"layout": "row", "shape_0": None, "shape_1": None},
        {"layout": "row", "shape_0": "ring", "shape_1": None},
    ]
    answers = [{"layout": "row", "shape_0": "ring", "shape_1": "none"}] * 2
    assert alignment(answers, truth).value == 1
    wrong = [{**answers[0], "shape_0": "square"}, {**answers[1], "shape_0": "square"}]
    found = alignment(wrong, truth)
    assert found.value == 0.5
    assert found.groups == {"layout": 1.0, "shape_0": 0.0}, "a group's share is of the images that state it"
    with pytest.raises(ValueError, match="do not pair up"):
        alignment(answers[:1], truth)


def test_scenes_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "scenes.json"

    def write(value: object) -> None:
        file.write_text(json.dumps(value))

    write({"prompts": {"a": scene(0)}})
    assert read_scenes(file, groups()) == {"a": scene(0)}
    changes: list[tuple[dict[str, str | None], str]] = [
        ({"layout": "column"}, r"prompts\['a'\]\.layout: the oracle knows no 'column', only single, row"),
        ({"colour": "red"}, "the groups are"),
        (dict.fromkeys(GROUPS), "states nothing"),
    ]
    for change, reason in changes:
        write({"prompts": {"a": scene(0) | change}})
        with pytest.raises(InputError, match=reason):
            read_scenes(file, groups())
    write({"prompts": {"a": {"layout": "row"}}})
    with pytest.raises(InputError, match="the groups are"):
        read_scenes(file, groups())
    write([])
    with pytest.raises(InputError, match="holds no JSON object"):
        read_scenes(file, groups())
    write({"prompts": ["a"]})
    with pytest.raises(InputError, match="field 'prompts'"):
        read_scenes(file, groups())
    with pytest.raises(InputError, match="cannot be read"):
        read_scenes(tmp_path / "absent.json", groups())


def test_a_set_of_another_world_has_no_alignment_and_half_a_set_is_an_error() -> None:
    scenes = {"a": scene(0), "b": scene(1)}
    assert scenes_of(["b", "a"], scenes, Path("s.json")) == [scene(1), scene(0)]
    assert scenes_of(["a photograph", "of a dog"], scenes, Path("s.json")) is None
    with pytest.raises(InputError, match="1 of 2 prompts have no scene, the first is 'c'"):
        scenes_of(["a", "c"], scenes, Path("s.json"))


def test_wilson_against_published_values() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81/263, 15/148, 0/20 and 1/29."""
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_its_share_and_is_symmetric(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    other_low, other_high = wilson(trials - successes, trials)
    assert (other_low, other_high) == pytest.approx((1 - high, 1 - low), abs=1e-12)
