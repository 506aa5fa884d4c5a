"""Tensors on disk by key: whole, by several processes at once, gone without harm, refused where they do not belong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from add.errors import InputError
from add.models.tensor_store import KEY_BYTES, TensorStore
from tests.support.smoke import REPOSITORY

WHAT = {"encoder": "abc", "torch": "1"}


def keys(*numbers: int) -> list[bytes]:
    return [n.to_bytes(8, "big") + bytes(KEY_BYTES - 8) for n in numbers]


def rows(*numbers: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Distinct values, odd bit patterns among them."""
    base = torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1, 1) / 3
    return {
        "a": (base + torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))).to(dtype),
        "b": base[:, 0],
    }


def same(first: dict[str, torch.Tensor] | None, second: dict[str, torch.Tensor]) -> bool:
    return first is not None and all(
        torch.equal(first[k], second[k]) and first[k].dtype == second[k].dtype for k in second
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_put_comes_back_bit_for_bit_before_and_after_it_is_written(
    tmp_path: Path, dtype: torch.dtype
):
    store = TensorStore(tmp_path / "c", WHAT)
    assert store.get(keys(1)) is None
    store.put(keys(1, 2, 3), rows(1, 2, 3, dtype=dtype))
    assert same(store.get(keys(3, 1)), rows(3, 1, dtype=dtype))
    store.flush()
    assert same(store.get(keys(3, 1)), rows(3, 1, dtype=dtype))
    store.put(keys(4), rows(4, dtype=dtype))
    for reader in (store, TensorStore(tmp_path / "c", WHAT)):
        assert (reader.get(keys(2, 4)) is not None) == (reader is store)
        assert same(reader.get(keys(2, 2)), rows(2, 2, dtype=dtype))


def test_a_memory_format_survives(tmp_path: Path):
    # Which kernel runs, and so which bits come out, depends on it.
    store = TensorStore(tmp_path, WHAT)
    made = torch.rand(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    store.put(keys(1, 2), {"x": made})
    store.flush()
    found = store.get(keys(1, 2))
    assert found is not None
    assert torch.equal(found["x"], made)
    assert found["x"].stride() == made.stride()


def test_what_another_writer_wrote_is_found_without_opening_again(tmp_path: Path):
    first, second = TensorStore(tmp_path, WHAT), TensorStore(tmp_path, WHAT)
    first.put(keys(7), rows(7))
    assert second.get(keys(7)) is None
    first.flush()
    assert same(second.get(keys(7)), rows(7))


def test_a_deleted_cache_is_empty_and_can_be_written_again(tmp_path: Path):
    store = TensorStore(tmp_path / "c", WHAT)
    store.put(keys(1), rows(1))
    store.flush()
    shutil.rmtree(tmp_path / "c")
    assert store.get(keys(1)) is None
    store.put(keys(2), rows(2))
    store.flush()
    assert same(store.get(keys(2)), rows(2))
    assert TensorStore(tmp_path / "c", WHAT).get(keys(1)) is None


def test_a_segment_of_another_encoder_is_refused_naming_what_differs(tmp_path: Path):
    other = TensorStore(tmp_path / "other", {**WHAT, "encoder": "another VAE"})
    other.put(keys(1), rows(1))
    other.flush()
    store = TensorStore(tmp_path / "mine", WHAT)
    shutil.copytree(tmp_path / "other", tmp_path / "mine")
    with pytest.raises(
        InputError, match=r"does not belong here, it was made with encoder 'another VAE' \(here 'abc'\)"
    ):
        store.get(keys(1))
    with pytest.raises(InputError, match="delete it"):
        TensorStore(tmp_path / "mine", WHAT)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: b"", lambda raw: b"no safetensors at all"]
)
def test_a_damaged_segment_is_refused_by_name(tmp_path: Path, damage):
    store = TensorStore(tmp_path, WHAT)
    store.put(keys(1), rows(1))
    store.flush()
    (file,) = tmp_path.glob("segment-*")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=rf"{file.name}: not a whole cache file .*delete it"):
        TensorStore(tmp_path, WHAT)


def test_a_killed_writers_half_file_is_not_an_entry(tmp_path: Path):
    (tmp_path / ".segment-0.safetensors.1.partial").write_bytes(b"half")
    assert TensorStore(tmp_path, WHAT).get(keys(1)) is None


WRITER = """
import sys, torch
from pathlib import Path
from add.models.tensor_store import TensorStore
from tests.add.models.test_tensor_store import WHAT, keys, rows, same
torch.set_num_threads(1)
store, start = TensorStore(Path(sys.argv[1]), WHAT), int(sys.argv[2])
for k in range(60):
    here = [start + k, start + k + 1, start + k + 2]
    found = store.get(keys(*here))
    assert found is None or same(found, rows(*here)), here
    store.put(keys(*here), rows(*here))
    if k % 3 == 0:
        store.flush()
store.flush()
"""


def test_processes_that_write_and_read_the_same_entries_at_once_agree(tmp_path: Path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(10 * i)], cwd=REPOSITORY) for i in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    store = TensorStore(tmp_path, WHAT)
    for start in range(0, 80, 7):
        assert same(store.get(keys(start, start + 1)), rows(start, start + 1))
    assert not list(tmp_path.glob(".*")), "a partial file was left behind"
