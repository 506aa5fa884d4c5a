"""Automatic raters: right answers from known numbers, records that read back, the same bytes twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from add.config.load import load_scale
from add.errors import REFUSED, InputError
from eval.preferences.raters.automatic import Answers, attributes_right, main, rate_automatically, votes_of
from eval.preferences.reader import read_votes, write_votes
from eval.preferences.study.sources import ComparedSystem, read_sources
from eval.prompts import read_prompts
from eval.reference import make_reference
from eval.stage import MeasureValues, RaterValues
from tests.support.evaluation import write_pictures, write_samples
from tests.support.smoke import REPOSITORY

PROMPTS = [("p1", "a circle"), ("p2", 'a "square"'), ("p3", "two rings, large")]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[ComparedSystem, ...]:
    entries = []
    for k, name in enumerate(("one", "two", "three")):
        folder = write_samples(tmp_path / name / "parti-1step", PROMPTS, 1, first=100 * k)
        entries.append({"name": name, "samples": str(folder)})
    (tmp_path / "systems.json").write_text(json.dumps(entries))
    return read_sources(tmp_path / "systems.json")


def answers(**scores: list[float]) -> Answers:
    return Answers("quality", "realism", "oracle", {k: np.array(v) for k, v in scores.items()})


def winners(votes) -> dict[tuple[str, str, str], str]:
    names = {"a": lambda v: v.system_a, "b": lambda v: v.system_b, "tie": lambda v: "tie"}
    return {(v.prompt_id, v.system_a, v.system_b): names[v.winner](v) for v in votes}


def test_the_higher_number_wins_and_equal_numbers_tie_on_every_prompt_and_pair(
    sources: tuple[ComparedSystem, ...],
):
    given = answers(one=[1.0, -2.0, 0.5], two=[2.0, -3.0, 0.5], three=[1.5, -2.0, 0.0])
    votes = list(votes_of(given, sources, "s"))
    assert winners(votes) == {
        ("p1", "one", "two"): "two",
        ("p1", "one", "three"): "three",
        ("p1", "two", "three"): "two",
        ("p2", "one", "two"): "one",
        ("p2", "one", "three"): "tie",
        ("p2", "two", "three"): "three",
        ("p3", "one", "two"): "tie",
        ("p3", "one", "three"): "one",
        ("p3", "two", "three"): "two",
    }


def test_numbers_that_differ_in_the_last_bits_alone_tie(sources: tuple[ComparedSystem, ...]):
    given = answers(one=[1.0, 1.0, 1.0], two=[1.0 + 1e-9, 1.0001, 1.0], three=[0.0, 0.0, 0.0])
    found = winners(votes_of(given, sources, "s"))
    assert (found["p1", "one", "two"], found["p2", "one", "two"]) == ("tie", "two")


def test_a_number_that_is_none_is_refused(sources: tuple[ComparedSystem, ...]):
    given = answers(one=[1.0, float("nan"), 1.0], two=[1.0, 1.0, 1.0], three=[0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"realism: .*'p2' is not finite"):
        list(votes_of(given, sources, "s"))


def test_the_records_say_what_the_rater_is_and_read_back_as_they_were(
    sources: tuple[ComparedSystem, ...], tmp_path: Path
):
    given = answers(one=[1.0, 2.0, 3.0], two=[1.0, 1.0, 4.0], three=[0.0, 5.0, 0.0])
    votes = tuple(votes_of(given, sources, "mini-automatic"))
    write_votes(tmp_path / "votes.csv", votes)
    back = read_votes(tmp_path / "votes.csv", ("one", "two", "three"))
    assert [(v.winner, v.system_a, v.image_b, v.prompt) for v in back] == [
        (v.winner, v.system_a, v.image_b, v.prompt) for v in votes
    ]
    assert {(v.rater, v.rater_kind, v.shown_left, v.attention_check, v.time) for v in back} == {
        ("realism", "oracle", "none", "no", "unknown")
    }
    assert back[0].image_a == "one/000000.png"


def test_attributes_are_counted_only_where_the_prompt_states_them():
    seen = [
        {"shape": "circle", "colour": "red", "size": "small"},
        {"shape": "ring", "colour": "red", "size": "small"},
    ]
    scenes = [
        {"shape": "circle", "colour": "blue", "size": None},
        {"shape": "ring", "colour": "red", "size": "small"},
    ]
    assert attributes_right(seen, scenes).tolist() == [1.0, 3.0]


@pytest.fixture(scope="module")
def rated_smoke(smoke_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two systems on the smoke scale's prompts and the scale's reference."""
    folder = tmp_path_factory.mktemp("rated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(smoke_directory)
        scale = load_scale(REPOSITORY / "config" / "smoke.yaml")
        prompts = [(p.prompt_id, p.prompt) for p in read_prompts(scale.sampling.prompts["parti"])]
        make_reference(MeasureValues.of(scale), folder / "reference")
    entries = []
    for k, name in enumerate(("first", "second")):
        samples = write_samples(folder / name / "parti-1step", prompts, 1, first=50 * k)
        write_pictures(samples, range(50 * k, 50 * k + len(prompts)), side=32)
        entries.append({"name": name, "samples": str(samples)})
    (folder / "systems.json").write_text(json.dumps(entries))
    return folder


def test_the_smoke_scales_oracles_vote_on_every_prompt_the_same_twice(smoke: Path, rated_smoke: Path):
    arguments = ["--systems", str(rated_smoke / "systems.json")]
    arguments += ["--scale", str(REPOSITORY / "config" / "smoke.yaml")]
    arguments += ["--reference", str(rated_smoke / "reference")]
    for name in ("a.csv", "b.csv"):
        assert main([*arguments, "--out", str(rated_smoke / name)]) == 0
    assert (rated_smoke / "a.csv").read_bytes() == (rated_smoke / "b.csv").read_bytes()
    votes = read_votes(rated_smoke / "a.csv", ("first", "second"))
    count = load_scale(REPOSITORY / "config" / "smoke.yaml").sampling.prompts["parti"].count
    for rater, question in (("scene-graph", "alignment"), ("realism", "quality")):
        assert len({v.prompt_id for v in votes if (v.rater, v.question) == (rater, question)}) == count
    assert len(votes) == 2 * count


def test_prompts_without_a_scene_are_refused(smoke: Path, rated_smoke: Path, tmp_path: Path):
    values = RaterValues.of(load_scale(REPOSITORY / "config" / "smoke.yaml"))
    entries = []
    for name in ("first", "second"):
        folder = write_samples(tmp_path / name, [("p1", "a dog")], 1)
        write_pictures(folder, range(1), side=32)
        entries.append({"name": name, "samples": str(folder)})
    (tmp_path / "systems.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"scenes\.json: has a scene for none of the study's 1 prompts"):
        rate_automatically(values, read_sources(tmp_path / "systems.json"), rated_smoke / "reference")


def test_systems_with_other_prompts_are_refused_before_any_network_is_loaded(
    smoke: Path, rated_smoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    entries = json.loads((rated_smoke / "systems.json").read_text())
    other = write_samples(tmp_path / "other", [("p9", "another")], 1)
    (tmp_path / "systems.json").write_text(json.dumps([entries[0], {"name": "x", "samples": str(other)}]))
    with pytest.raises(InputError):
        read_sources(tmp_path / "systems.json")
    arguments = ["--systems", str(tmp_path / "systems.json"), "--out", str(tmp_path / "out.csv")]
    arguments += ["--scale", str(REPOSITORY / "config" / "smoke.yaml"), "--reference", str(tmp_path)]
    assert main(arguments) == REFUSED
    assert "has no image for" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
