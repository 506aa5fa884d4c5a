"""Weights are named by a hash; the wrong ones, and none, are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from add.models.hub import local_directory
from add.models.weights import WeightsError, check_weights, weights_hash


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/b.safetensors").write_bytes(b"bytes of b")
    (tmp_path / "a.safetensors").write_bytes(b"bytes of a")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_the_hash_is_of_names_and_bytes_in_order(directory: Path) -> None:
    expected = hashlib.sha256(b"a.safetensorsbytes of aunet/b.safetensorsbytes of b").hexdigest()
    assert weights_hash(directory) == expected
    (directory / "config.json").write_text('{"changed": 1}')
    assert weights_hash(directory) == expected, "a configuration is not weights"
    (directory / "unet/b.safetensors").rename(directory / "unet/c.safetensors")
    assert weights_hash(directory) != expected


def test_a_files_hash_is_the_plain_one(directory: Path) -> None:
    assert weights_hash(directory / "a.safetensors") == hashlib.sha256(b"bytes of a").hexdigest()


def test_other_weights_are_refused_and_unknown_ones_recorded(directory: Path, tmp_path: Path) -> None:
    found = weights_hash(directory)
    assert check_weights(directory, None) == check_weights(directory, found) == found
    with pytest.raises(WeightsError, match=found):
        check_weights(directory, "0" * 64)
    with pytest.raises(WeightsError, match="no such file or directory"):
        weights_hash(directory / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        weights_hash(tmp_path / "empty")


def test_an_address_that_leads_nowhere_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    assert local_directory(str(directory)) == directory
    with pytest.raises(WeightsError, match=r"owner/name \(revision main\).*no connection"):
        local_directory("owner/name", "main")
    for path in ("mini/weights/absent", "./absent", "absent"):
        with pytest.raises(WeightsError, match="no such directory"):
            local_directory(path)
