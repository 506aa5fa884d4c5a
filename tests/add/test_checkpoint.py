"""Checkpoints: whole or not there, the two newest kept, optimisers restored to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from add.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_note,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    set_aside,
)


def test_round_trip_keeps_every_bit_and_the_note(tmp_path: Path):
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7)}
    save_checkpoint(tmp_path, 12, tensors, {"seed": 3})
    found, note = load_checkpoint(latest_checkpoint(tmp_path) or Path())
    assert note == {"seed": 3, "step": 12}
    assert all(torch.equal(found[k], v) for k, v in tensors.items())


def test_only_the_two_newest_are_kept_and_partial_files_are_ignored(tmp_path: Path):
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, {"a": torch.zeros(1)}, {})
    (tmp_path / ".step-0000099.partial").write_bytes(b"half")
    assert sorted(p.name for p in tmp_path.glob("step-*")) == [
        "step-0000002.safetensors",
        "step-0000010.safetensors",
    ]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-0000010.safetensors"


def test_no_checkpoint_is_none(tmp_path: Path):
    assert latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes):
    file = tmp_path / "step-0000001.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-0000001\.safetensors: not a checkpoint"):
        load_checkpoint(file)


def test_checkpoints_of_another_spec_are_set_aside_and_come_back_with_it(tmp_path: Path):
    directory = tmp_path / "checkpoints"
    for spec, step in (("first", 1), ("second", 2), ("first", 3)):
        set_aside(directory, spec)
        save_checkpoint(directory, step, {"a": torch.zeros(1)}, {"spec": spec})
    steps = {d.name: [load_note(f)["step"] for f in sorted(d.iterdir())] for d in tmp_path.iterdir()}
    assert steps == {"checkpoints": [1, 3], "checkpoints-second": [2]}


def test_an_earlier_set_of_checkpoints_is_never_overwritten(tmp_path: Path):
    directory = tmp_path / "checkpoints"
    (tmp_path / "checkpoints-first").mkdir()
    (tmp_path / "checkpoints-first" / "step-0000009.safetensors").write_bytes(b"a person's")
    save_checkpoint(directory, 1, {"a": torch.zeros(1)}, {"spec": "first"})
    assert set_aside(directory, "second") == tmp_path / "checkpoints-first-2"
    assert (tmp_path / "checkpoints-first" / "step-0000009.safetensors").read_bytes() == b"a person's"


def test_a_restored_optimiser_makes_the_same_next_step():
    def steps(count: int, parameter: torch.nn.Parameter, optimiser: torch.optim.Optimizer) -> None:
        for i in range(count):
            parameter.grad = torch.sin(torch.arange(4.0) + i) * parameter.detach()
            optimiser.step()

    first = torch.nn.Parameter(torch.arange(1.0, 5.0))
    optimiser = torch.optim.AdamW([first], lr=0.1, betas=(0.0, 0.99))
    steps(3, first, optimiser)
    second = torch.nn.Parameter(first.detach().clone())
    restored = torch.optim.AdamW([second], lr=0.1, betas=(0.0, 0.99))
    restore_optimiser(restored, optimiser_tensors(optimiser))
    steps(2, first, optimiser)
    steps(2, second, restored)
    assert torch.equal(first, second)
