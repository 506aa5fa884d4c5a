"""What decides a run's bits is its identity, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from add.config.run import Run
from add.config.scale import NetworkSpec
from add.identity import network_content, networks_of, spec_hash
from add.models.weights import WeightsError, weights_hash
from tests.support.smoke import smoke_run
from tests.support.specs import put


def changed(key: str, value: Any, run: Run | None = None) -> Run:
    values = (run or smoke_run()).model_dump(mode="json")
    put(values, key.split("."), value)
    return Run.model_validate_json(json.dumps(values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("training.checkpoint_every", 7),
        ("training.log_every", 7),
        ("training.pictures_every", 7),
        ("networks.diffusion.sd21.path", "elsewhere/sd21"),
        ("networks.diffusion.sd21.revision", "a" * 40),
        ("networks.diffusion.sd21.sha256", "0" * 64),
        ("networks.diffusion.sd21.family", "Stable Diffusion 2.1"),
        ("networks.features.vit_s_dinov2.files", {"model.safetensors": None}),
        ("networks.c_text.path", "elsewhere"),
        ("data.train.images", "elsewhere"),
        ("data.train.annotations", "elsewhere.json"),
    ],
)
def test_addresses_and_housekeeping_are_no_identity(key: str, value: Any):
    assert spec_hash(changed(key, value)) == spec_hash(smoke_run())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.steps", 7),
        ("training.threads", 2),
        ("training.student_optimiser.lr", 1e-5),
        ("variant.teacher_steps", 4),
        ("networks.features.vit_s_dinov2.layers", [1, 2]),
        ("networks.c_img.mean", [0.1, 0.5, 0.5]),
        ("data.train.resize", {"crop": "none", "filter": "box"}),
    ],
)
def test_values_that_reach_the_arithmetic_are(key: str, value: Any):
    assert spec_hash(changed(key, value)) != spec_hash(smoke_run())


@pytest.fixture
def network(smoke_directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(smoke_directory / "data/smoke/networks/sd21", tmp_path / "sd21")


def test_the_right_hash_another_place_and_notes_of_origin_change_no_content(network: Path):
    unpinned = network_content(NetworkSpec(path=str(network)))
    assert network_content(NetworkSpec(path=str(network), sha256=weights_hash(network))) == unpinned
    copy = shutil.copytree(network, network.with_name("copy"))
    file = copy / "unet" / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"_name_or_path": "x", "_diffusers_version": "9"})
    )
    (copy / "CARD.json").write_text('{"quality": {}}')
    (copy / "LICENSE.txt").write_text("yours")
    assert network_content(NetworkSpec(path=str(copy))) == unpinned
    (copy / "tokenizer" / "merges.txt").write_text("a b")
    assert network_content(NetworkSpec(path=str(copy))) != unpinned


def test_other_weights_and_another_schedule_in_place_are_another_network(network: Path):
    found = [network_content(NetworkSpec(path=str(network)))]
    schedule = network / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps(json.loads(schedule.read_text()) | {"prediction_type": "sample"}))
    found.append(network_content(NetworkSpec(path=str(network))))
    weights = next((network / "unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found.append(network_content(NetworkSpec(path=str(network))))
    assert found[0] != found[1]
    assert found[1]["sha256"] != found[2]["sha256"]
    assert found[0]["sha256"] == found[1]["sha256"]


def test_a_network_elsewhere_is_known_by_its_hashes_or_else_by_its_address():
    hub = {"path": "owner/name", "revision": "main"}
    assert network_content(NetworkSpec(**hub)) == hub
    assert network_content(NetworkSpec(**hub, sha256="0" * 64)) == {"sha256": "0" * 64}
    files: dict[str, str | None] = {"a.safetensors": "1" * 64}
    assert network_content(NetworkSpec(**hub, files=files)) == {"files": files}


def test_a_directory_without_weights_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"holds no \.safetensors"):
        network_content(NetworkSpec(path=str(tmp_path)))


def test_the_networks_of_a_run_are_those_that_it_loads():
    assert set(networks_of(smoke_run())) == {"sd21", "vit_s_dinov2", "c_text", "c_img"}
    assert set(networks_of(smoke_run("loss_terms-l-distill"))) == {"sd21"}
