"""What Snakemake compares: content and values decide whether a job runs again; places, ages and names do not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from add import digests
from add.config.scale import Scale
from add.identity import METHOD
from addbench.identity import (
    changed_contents,
    data_identity,
    files_identity,
    recorded_method,
    reference_identity,
    run_identity,
    settled,
    stage_identity,
    train_identity,
)
from addbench.workflow import plain
from eval.stage import RaterValues, RatingValues, SampleValues, ScoreValues
from tests.support.smoke import REPOSITORY
from tests.support.specs import changed_scale, put, table_of
from tests.support.training_data import png


@pytest.fixture
def here(smoke_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the smoke scale's data, as the working directory, and a memory of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_SETTLED", -1e9)
    shutil.copytree(smoke_directory / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "smoke"


def own_scale(**values: Any) -> Scale:
    """The smoke scale over data and networks that nobody makes."""
    return changed_scale("smoke", data__build=None, **values)[0]


def identities(scale: Scale) -> dict[str, Any]:
    """Of every stage, by name."""
    run = table_of(REPOSITORY, "smoke").runs["baseline"]
    if scale.data.build is None:
        networks = scale.networks.model_dump()
        values = run.model_dump()
        for kind in ("diffusion", "features"):
            values["networks"][kind] = {name: networks[kind][name] for name in values["networks"][kind]}
        values["networks"] |= {name: networks[name] for name in ("c_text", "c_img")}
        values["data"] = {"train": scale.data.train.model_dump()}
        run = type(run).model_validate(values)
    stages = {stage.__name__: stage_identity(stage, scale) for stage in (SampleValues, ScoreValues)}
    stages |= {stage.__name__: stage_identity(stage, scale) for stage in (RaterValues, RatingValues)}
    stages |= {"data": data_identity(scale), "reference": reference_identity(scale)}
    found: dict[str, Any] = {name: identity(None) for name, identity in stages.items()}
    return found | {"train": json.dumps(run_identity(scale, run), sort_keys=True)}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name, identity in before.items() if identity != after[name]}


def flip(file: Path) -> None:
    """Another last byte, at the same size and time of modification."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=times)


def other_image(file: Path) -> None:
    file.write_bytes(png("red", size=(32, 32)))
    os.utime(file, (1, 1))


def other_word(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(" on ", " in ", 1), encoding="utf-8")
    os.utime(file, (1, 1))


@pytest.mark.parametrize(
    ("file", "change", "stages"),
    [
        ("train/000000000001.png", other_image, {"train"}),
        ("reference/000000000001.png", other_image, {"reference", "ScoreValues", "RaterValues"}),
        ("val/000000000001.png", other_image, {"reference"}),
        ("networks/sd21/unet/diffusion_pytorch_model.safetensors", flip, {"train"}),
        ("networks/c_text/model.safetensors", flip, {"train"}),
        ("PartiPrompts.tsv", other_word, {"SampleValues", "ScoreValues", "RatingValues", "reference"}),
        ("scenes.json", other_word, {"reference", "ScoreValues", "RaterValues"}),
    ],
)
def test_content_changed_in_place_is_seen_by_the_stages_that_read_it(
    here: Path, file: str, change: Callable[[Path], None], stages: set[str]
):
    before = identities(own_scale())
    change(here / file)
    assert changed(before, identities(own_scale())) == stages


def test_age_place_and_foreign_files_are_seen_by_none(here: Path):
    before = identities(own_scale())
    for folder, _, names in os.walk(here):
        (Path(folder) / ".DS_Store").write_bytes(b"\0")
        for name in names:
            os.utime(Path(folder, name), (1, 1))
    assert identities(own_scale()) == before
    moved = here.with_name("moved")
    shutil.copytree(here, moved)
    shutil.rmtree(here)
    scale = own_scale()
    text = json.dumps(scale.model_dump(mode="json")).replace("data/smoke", "data/moved")
    assert identities(Scale.model_validate_json(text)) == before


def test_a_right_hash_and_housekeeping_are_seen_by_none(here: Path):
    from add.models.weights import weights_hash

    before = identities(own_scale())
    sha256 = weights_hash(here / "networks/sd21")
    extractor = weights_hash(Path(own_scale().evaluation.extractor.path))
    pinned = own_scale(networks__diffusion__sd21__sha256=sha256, evaluation__extractor__sha256=extractor)
    assert identities(pinned) == before


def test_what_the_data_stage_makes_is_not_read_before_it_is_made(here: Path):
    scale = changed_scale("smoke")[0]
    before = identities(scale)
    shutil.rmtree(here)
    assert identities(scale) == before


def test_a_plan_looks_at_the_training_data_once(here: Path, monkeypatch: pytest.MonkeyPatch):
    looks: list[Any] = []

    def look(train: Any) -> str:
        looks.append(train)
        return "digest"

    monkeypatch.setattr("addbench.identity.data_digest", look)
    identity = train_identity(own_scale(), table_of(REPOSITORY, "smoke"), "results/smoke")
    for run in ("baseline", "teacher_steps-2", "baseline"):
        for seed in (0, 1):
            assert json.loads(identity(SimpleNamespace(run=run, seed=seed)))["data"] == "digest"
    assert len(looks) == 1


def test_votes_count_by_their_bytes_in_any_order(tmp_path: Path):
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for file, text in zip(files, ("left", "right", "left"), strict=True):
        file.write_text(text)
    whole, part = files_identity(map(str, files)), files_identity(map(str, files[:2]))
    assert files_identity(map(str, reversed(files))) == whole != part
    files[2].write_text("tie!")
    os.utime(files[2], (1, 1))
    assert files_identity(map(str, files)) != whole


def record(folder: Path, scale: Scale, **facts: Any) -> dict[str, Any]:
    """A finished training in `folder`; returns its identity."""
    run = table_of(REPOSITORY, "smoke").runs["baseline"]
    now = run_identity(scale, run)
    (folder / "train").mkdir(parents=True)
    (folder / "spec.json").write_text(plain(run) + "\n")
    weights = {name: facts.get(name, "1" * 64) for name in now["networks"]}
    (folder / "train" / "train.json").write_text(json.dumps({"weights": weights, "method": METHOD}))
    return now


def test_results_of_an_older_method_are_made_again_and_explained(here: Path, tmp_path: Path):
    """Breaks when a finished run is taken for current although equal values now train another student."""
    folder = tmp_path / "seed0"
    now = record(folder, changed_scale("smoke")[0])
    assert settled(folder, now) == (folder / "spec.json").read_text().rstrip("\n")
    (folder / "train" / "train.json").write_text(
        json.dumps({"weights": dict.fromkeys(now["networks"], "1" * 64)})
    )
    assert settled(folder, now) == json.dumps(now, sort_keys=True)
    assert recorded_method(folder) == {"method": 1}


def test_results_stay_valid_until_something_that_decides_changes(here: Path, tmp_path: Path):
    scale = changed_scale("smoke")[0]
    folder = tmp_path / "seed0"
    now = record(folder, scale)
    text = (folder / "spec.json").read_text().rstrip("\n")
    assert settled(folder, now) == text
    later = json.loads(json.dumps(now))
    put(later, ["networks", "sd21"], {"sha256": "1" * 64, "configuration": "2" * 64})
    assert settled(folder, later) == text, (
        "a hash that came to be known, and it is the one it was trained with"
    )
    assert changed_contents(folder, later) == []
    put(later, ["networks", "sd21", "sha256"], "3" * 64)
    assert settled(folder, later) == json.dumps(later, sort_keys=True)
    assert changed_contents(folder, later) == [("sd21: sha256", "1" * 64, "3" * 64)]
    put(now, ["values", "training", "steps"], 7)
    assert settled(folder, now) == json.dumps(now, sort_keys=True)


def test_the_text_of_the_plan_stays_while_the_identity_does(here: Path, tmp_path: Path):
    folder = tmp_path / "seed0"
    now = record(folder, changed_scale("smoke")[0])
    (folder / "train" / "identity.json").write_text("as planned\n")
    assert settled(folder, now) == "as planned"


def test_a_training_that_did_not_finish_has_no_say(here: Path, tmp_path: Path):
    folder = tmp_path / "seed0"
    now = record(folder, changed_scale("smoke")[0])
    (folder / "train" / "train.json").unlink()
    assert settled(folder, now) == json.dumps(now, sort_keys=True)
