"""Checkpoints of training: one safetensors file each, whole or not there, exact to the bit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from add.distributed import placed

_KEEP = 2


def save_checkpoint(
    directory: Path, step: int, tensors: Mapping[str, Tensor], note: Mapping[str, Any]
) -> None:
    """Write `directory`/step-<step>.safetensors atomically and drop all but the two newest.

    `note` (JSON) is stored in the file. A process killed at any point leaves the older checkpoints whole.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".step-{step:07d}.partial"
    save_file(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()},
        partial,
        metadata={"note": json.dumps({**note, "step": step})},
    )
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(directory / f"step-{step:07d}.safetensors")
    for old in sorted(directory.glob("step-*.safetensors"))[:-_KEEP]:
        old.unlink()


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    files = sorted(directory.glob("step-*.safetensors"))
    return files[-1] if files else None


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of a checkpoint. Raises ValueError where the file is not one of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            note = json.loads((opened.metadata() or {})["note"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, note  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file}: not a checkpoint of this project ({error}); delete it to start earlier"
        ) from None


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of the optimiser's state as tensors named '<parameter index>.<field>'."""
    return {
        f"{i}.{field}": torch.as_tensor(value).clone()
        for i, fields in enumerate(optimiser.state.get(p, {}) for p in _parameters(optimiser))
        for field, value in fields.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave; the parameter groups' settings stay as they are."""
    state: dict[int, dict[str, Any]] = {}
    parameters = _parameters(optimiser)
    for name, tensor in tensors.items():
        index, field = name.split(".", 1)
        like = parameters[int(index)]
        value: Any = placed(tensor, like) if tensor.shape == like.shape else tensor
        if tensor.ndim == 0 and not tensor.is_floating_point():  # 8-bit optimisers count steps in an int
            value = int(tensor)
        state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def check_identity(file: Path, note: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ValueError where a checkpoint was made by another spec, seed or number of processes."""
    for key, value in identity.items():
        if note.get(key, 1 if key == "processes" else None) != value:
            raise ValueError(
                f"{file}: belongs to {key} {note.get(key)!r}, this run has {value!r}; "
                f"remove {file.parent} to train anew"
            )


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under names that begin with `prefix` and a slash."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: those of `tensors` that have the prefix, without it."""
    start = len(prefix) + 1
    return {name[start:]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}
