"""Single networks before training: layers and patches that they have, and hashes that are taken once."""

from __future__ import annotations

from pathlib import Path

from add.config.load import load_scale
from addbench.preflight import Findings, Place, Wanted
from addbench.preflight.directories import block_count, read_encoder
from addbench.preflight.networks import HashStore, check_hashes
from tests.support.header_networks import change, save, write_features
from tests.support.specs import ROOT

LOC = ("networks", "features", "vit_s_dinov2")


def test_layers_and_patches_that_a_feature_network_has_not(tmp_path: Path) -> None:
    directory = write_features(tmp_path / "dino")
    network = load_scale(ROOT / "config/paper.yaml").networks.features["vit_s_dinov2"]
    wrong = network.model_copy(update={"layers": (0, 6, 13), "image_size": 230})
    wanted = Wanted(("networks", "features", "vit_s_dinov2"), "features", "x", network=wrong)
    found = Findings()
    read_encoder(found, Place(wanted, directory, "local"), "paper.yaml:1")
    texts = found.problems
    assert any(
        "has 12 blocks, but layers [13] are asked for; let the layers be in 0 .. 12" in t for t in texts
    )
    assert any("230 is not a multiple of the patch size 14" in t for t in texts)
    change(directory, model_type="swin")
    found = Findings()
    read_encoder(found, Place(wanted, directory, "local"), "paper.yaml:1")
    assert "type 'swin' give no features" in found.problems[0]


def test_blocks_are_counted_of_transformers_and_convolutional_networks() -> None:
    assert block_count({"num_hidden_layers": 12}) == 12
    assert block_count({"depths": [3, 4, 6, 3]}) == 4


def test_hashing_stops_at_its_time_and_says_what_is_left(tmp_path: Path) -> None:
    directory = write_features(tmp_path / "dino")
    place = Place(Wanted(LOC, "features", str(directory)), directory, "local")
    names = ["model.safetensors"]

    store = HashStore(tmp_path / "hashes.json")
    found = Findings()
    hashes = check_hashes(found, [(place, names)], store, 0.0)
    assert not hashes
    assert "`addbench check --hash` takes them" in found.left[-1]
    hashes = check_hashes(Findings(), [(place, names)], store, 60.0)
    known = Findings()
    again = check_hashes(known, [(place, names)], HashStore(store.file), 0.0)
    assert again == hashes, "what was hashed once is not hashed again"
    assert not known.left
    save(directory / "model.safetensors", {"embeddings.cls_token": (1, 1, 9)})
    assert not check_hashes(Findings(), [(place, names)], HashStore(store.file), 0.0), "another file is"
