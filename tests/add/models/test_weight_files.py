"""A hub's snapshot holds more than is loaded; only what is loaded names a network, and it must be whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from add.config.load import load_scale
from add.config.scale import NetworkSpec
from add.models.weights import (
    TensorInfo,
    WeightsError,
    check_weights,
    missing_shards,
    read_header,
    weight_names,
    weights_hash,
)
from tests.support.specs import ROOT


def test_the_miniatures_hashes_are_of_all_their_files_as_ever() -> None:
    # Were one left out, every hash in config/mini.yaml would change, and with it every result.
    scale = load_scale(ROOT / "config/mini.yaml")
    for network in (*scale.networks.diffusion.values(), *scale.networks.features.values()):
        directory = ROOT / network.path
        everything = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*.safetensors"))
        assert weight_names(directory) == everything
        assert weights_hash(directory) == network.sha256


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline in files alone: two parts, a variant, and a checkpoint beside them."""
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        file = tmp_path / f"{name}.safetensors"
        file.parent.mkdir()
        file.write_bytes(name.encode())
    (tmp_path / "model_index.json").write_text("{}")
    return tmp_path


def test_a_variant_beside_the_weights_changes_nothing(pipeline: Path) -> None:
    before = weights_hash(pipeline)
    (pipeline / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    (pipeline / "v2-1_512-ema-pruned.safetensors").write_bytes(b"all in one")
    assert weights_hash(pipeline) == before
    (pipeline / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert weights_hash(pipeline) != before


def test_each_file_is_held_to_its_own_hash(pipeline: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    right = hashlib.sha256((pipeline / name).read_bytes()).hexdigest()
    alone = hashlib.sha256(name.encode() + (pipeline / name).read_bytes()).hexdigest()
    assert check_weights(pipeline, None, {name: right}) == alone, "only the files named count"
    assert check_weights(pipeline, alone, {name: None}) == alone
    with pytest.raises(WeightsError, match=rf"unet/diffusion_pytorch_model.*{right}.*{'0' * 64}"):
        check_weights(pipeline, None, {name: "0" * 64})
    with pytest.raises(WeightsError, match=r"lacks unet/other\.safetensors"):
        check_weights(pipeline, None, {"unet/other.safetensors": None})


def test_an_optional_setting_that_is_null_is_no_value() -> None:
    # Else every result of every scale would be made again.
    assert NetworkSpec(path="a/b", revision=None).model_dump() == {"path": "a/b"}
    stated = NetworkSpec(path="a/b", files={"model.safetensors": None})
    assert stated.model_dump(mode="json")["files"] == {"model.safetensors": None}
    for wrong in ("/etc/passwd", "../x.safetensors", "unet//x.safetensors"):
        with pytest.raises(ValueError, match="files"):
            NetworkSpec(path="a/b", files={wrong: None})


def test_a_header_says_shapes_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, file)
    assert read_header(file) == {"a": TensorInfo("F32", (3, 4)), "b": TensorInfo("F16", (5,))}
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors: is not a whole safetensors file"):
        read_header(file)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="not a whole"):
        read_header(file)


def test_a_shard_that_the_index_lists_and_the_disk_has_not_is_named(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    first, second = (f"diffusion_pytorch_model-0000{k}-of-00002.safetensors" for k in (1, 2))
    (tmp_path / "unet" / first).write_bytes(b"")
    index = tmp_path / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first, "b": second}}))
    assert missing_shards(tmp_path, [f"unet/{first}"]) == [f"unet/{second}"]
    (tmp_path / "unet" / second).write_bytes(b"")
    assert missing_shards(tmp_path, [f"unet/{first}", f"unet/{second}"]) == []
