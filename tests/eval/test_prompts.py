"""Which prompts are read, in which order; and that nothing odd gets through silently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from add.config.scale import RepeatedPromptsSpec
from add.errors import InputError
from eval.prompts import prompt_rule, read_coco, read_parti, read_prompts
from eval.sample import image_seed
from tests.support.evaluation import coco_file, parti_file, shared

CAPTIONS = {
    "b.png": ["second image", "again"],
    "a.png": ["one", "two", "three "],
    "c.png": ['a "quoted"\nline'],
}
ROWS = [
    ('a "quoted" word', "Animals", "Basic"),
    ('"unbalanced', "Animals", "Imagination"),
    ("trailing space ", "Food & Beverage", "Quantity"),
    ("four", "Arts", "Quantity"),
    ("five", "Arts", "Perspective"),
]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return coco_file(tmp_path / "captions_val.json", CAPTIONS)


@pytest.fixture
def parti(tmp_path: Path) -> Path:
    return parti_file(tmp_path / "PartiPrompts.tsv", ROWS)


def changed(file: Path, change) -> Path:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def test_first_is_the_lowest_annotation_id_and_order_is_by_image_id(coco: Path) -> None:
    changed(coco, lambda c: (c["images"].reverse(), c["annotations"].reverse()))
    prompts = read_coco(coco)
    assert [(p.prompt_id, p.prompt, p.file_name) for p in prompts] == [
        ("1", "second image", "b.png"),
        ("2", "one", "a.png"),
        ("3", 'a "quoted"\nline', "c.png"),
    ]


def test_random_captions_depend_on_seed_and_image_alone(coco: Path) -> None:
    by_seed = [tuple(p.prompt for p in read_coco(coco, "random", seed)) for seed in range(20)]
    assert by_seed[3] == tuple(p.prompt for p in read_coco(coco, "random", 3))
    assert {texts[1] for texts in by_seed} == set(CAPTIONS["a.png"]), "some caption is never drawn"
    assert [p.prompt for p in read_coco(coco, "random", 3, 2)] == list(by_seed[3][:2])


@pytest.mark.parametrize(
    ("change", "where", "reason"),
    [
        (lambda c: c.pop("annotations"), "annotations", "missing"),
        (lambda c: c["images"][1].pop("file_name"), "images[1].file_name", "missing"),
        (lambda c: c["images"][1].update(id="2"), "images[1].id", "int"),
        (lambda c: c["images"][1].update(id=1), "images[1].id", "twice"),
        (lambda c: c["images"][1].update(file_name="b.png"), "images[1].file_name", "twice"),
        (lambda c: c["annotations"][2].update(id=10), "annotations[2].id", "twice"),
        (lambda c: c["annotations"][2].update(image_id=9), "annotations[2].image_id", "9"),
        (lambda c: c["annotations"][2].update(caption=" "), "annotations[2].caption", "empty"),
        (lambda c: c["annotations"][2].update(caption="a\x00b"), "annotations[2].caption", r"U\+0000"),
        (lambda c: c["annotations"].pop(), "annotations", "image 3 has no caption"),
        (lambda c: c["annotations"].append(5), "annotations[6]", "object"),
    ],
)
def test_a_wrong_coco_file_is_refused_by_field(coco: Path, change, where: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_coco(changed(coco, change))
    assert str(caught.value).startswith(f"{coco}: {where}: ")


@pytest.mark.parametrize("read", [read_coco, read_parti])
def test_bytes_that_are_not_plain_utf8_are_refused_with_their_line(tmp_path: Path, read) -> None:
    file = tmp_path / "prompts"
    file.write_bytes(b"Prompt\n\nb\xe9b\n")
    with pytest.raises(InputError, match="0xe9 is not UTF-8") as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: line 3: ")
    file.write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(InputError, match="byte order mark"):
        read(file)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "absent")


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    file.write_text('{"images": [],\n "annotations": [}\n')
    with pytest.raises(InputError, match="not JSON") as caught:
        read_coco(file)
    assert str(caught.value).startswith(f"{file}: line 2: ")


def test_parti_keeps_quotes_and_trailing_spaces(parti: Path) -> None:
    prompts = read_parti(parti)
    assert [(p.prompt, p.category, p.challenge) for p in prompts] == ROWS
    assert [p.prompt_id for p in prompts] == [f"parti-{k:04d}" for k in range(1, 6)]


def test_parti_choice_is_seeded_nested_and_in_file_order(parti: Path) -> None:
    choices = {seed: [p.prompt_id for p in read_parti(parti, (), seed, 3)] for seed in range(12)}
    assert all(choice == sorted(choice) for choice in choices.values())
    assert len({tuple(choice) for choice in choices.values()}) > 3, "the seed changes nothing"
    for seed in choices:
        assert {p.prompt_id for p in read_parti(parti, (), seed, 2)} < set(choices[seed])
    left = read_parti(parti, ["Basic", "Quantity"])
    assert [p.prompt_id for p in left] == ["parti-0002", "parti-0005"]


def test_an_unknown_challenge_gets_the_nearest_name(parti: Path) -> None:
    with pytest.raises(InputError, match="no challenge is called 'basic'; the nearest is 'Basic'"):
        read_parti(parti, ["basic"])


@pytest.mark.parametrize(
    ("lines", "where", "reason"),
    [
        (["Prompt\tCategory\tNote", "a\tb\tc"], "line 1", "'Challenge' is missing"),
        (["Prompt\tCategory\tChallenge\tPrompt", "a\tb\tc\td"], "line 1", "'Prompt' is there twice"),
        (["Prompt\tCategory\tChallenge", "a\tb\tc", "a\tb"], "line 3", "2 tab-separated fields"),
        (["Prompt\tCategory\tChallenge", "a\tb\tc", "", "d\tb\tc"], "line 3", "0 tab-separated fields"),
        (["Prompt\tCategory\tChallenge", "a\tb\tc", "d\tb\tc", "a\te\tf"], "line 4", "already in line 2"),
        (["Prompt\tCategory\tChallenge", " \tb\tc"], "line 2", "Prompt is empty"),
        (["Prompt\tCategory\tChallenge", "a\tb\t"], "line 2", "Challenge is empty"),
        (["Prompt\tCategory\tChallenge"], None, "no prompts"),
        (["{" * 200_000], "line 1", "no row of a table: field larger than field limit"),  # JSON on one line
    ],
)
def test_a_wrong_tsv_is_refused_by_line(
    tmp_path: Path, lines: list[str], where: str | None, reason: str
) -> None:
    file = tmp_path / "p.tsv"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=reason) as caught:
        read_parti(file)
    assert str(caught.value).startswith(f"{file}: {where}: " if where else f"{file}: ")


@pytest.mark.parametrize("count", [0, 6])
def test_a_count_that_is_not_there_is_refused(coco: Path, parti: Path, count: int) -> None:
    with pytest.raises(InputError):
        read_parti(parti, (), 0, count)
    with pytest.raises(InputError):
        read_coco(coco, count=count)


def test_the_real_coco_captions() -> None:
    file = shared("coco/annotations/captions_val2017.json")
    first = read_coco(file)
    assert len(first) == 5000
    assert first[0].file_name == "000000000139.jpg"
    assert [p.image_id for p in first] == sorted(p.image_id or 0 for p in first)
    drawn = read_coco(file, "random", 0)
    different = sum(a.prompt != b.prompt for a, b in zip(first, drawn, strict=True))
    assert 0.75 < different / 5000 < 0.85, "about four of five captions should not be the first"


def test_the_real_parti_prompts() -> None:
    file = shared("PartiPrompts.tsv")
    every = read_parti(file)
    assert len(every) == 1632
    assert len({p.category for p in every}) == 12
    counts = Counter(p.challenge for p in every)
    assert len(counts) == 11
    assert counts["Basic"] == 272
    assert sum('"' in p.prompt for p in every) == 22
    assert any(p.prompt != p.prompt.strip() for p in every)
    assert len(read_parti(file, ["Basic"])) == 1360
    assert len(read_parti(file, ["Basic"], 0, 100)) == 100


def test_a_repeated_set_has_each_prompt_often_and_no_two_images_have_one_noise(coco: Path) -> None:
    one = {"kind": "coco", "annotations": str(coco), "caption_rule": "first", "rule_seed": 0, "count": 3}
    whole = RepeatedPromptsSpec.model_validate({"kind": "repeated", "images": 4, "of": one})
    found, once = read_prompts(whole), read_prompts(whole.of)
    assert [p.prompt for p in found] == [p.prompt for p in once for _ in range(4)]
    assert len(found) == whole.count == whole.at(4).count == 12
    seeds = {image_seed(prompt, 0) for prompt in (*found, *once)}
    assert len(seeds) == 15, "not one of them twice"
    assert prompt_rule(whole, "diversity", 3).sha256 == prompt_rule(whole.of, "coco", 3).sha256
    with pytest.raises(ValidationError, match="leave `count_more_steps` out"):
        RepeatedPromptsSpec.model_validate(
            {"kind": "repeated", "images": 4, "of": {**one, "count": 4, "count_more_steps": 3}}
        )
