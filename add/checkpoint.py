"""Checkpoints of training: one safetensors file each, whole or not there, exact to the bit."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from add.distributed import Rank, check_equal, from_first, placed, whole_tensors
from add.errors import InputError
from add.files import whole_file

_KEEP = 2


@dataclass(frozen=True)
class TrainingState:
    """All tensors that an update reads: modules' parameters and buffers, a moving average, optimisers' moments.

    modules, optimisers: by names of which no two are equal, also between both. average: of the trained parameters.
    """

    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    average: Sequence[Tensor]

    def save(self, directory: Path, step: int, rank: Rank, note: Mapping[str, Any]) -> None:
        """Write a checkpoint. Every process must call this; the first one writes.

        Raises RuntimeError where the processes' copies have drifted apart.
        """
        tensors = {f"average/{i}": p for i, p in enumerate(self.average)}
        for name, module in self.modules.items():
            check_equal(rank, module, name)
            tensors |= _prefixed(name, module.state_dict())
        for name, optimiser in self.optimisers.items():
            tensors |= _prefixed(name, optimiser_tensors(optimiser))
        tensors = whole_tensors(tensors, keep=rank.first)
        if rank.first:
            save_checkpoint(directory, step, tensors, note)

    def resume(self, directory: Path, rank: Rank, identity: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Restore the newest checkpoint, if there is one; returns its step and its note, or 0 and an empty note.

        Checkpoints of another spec are set aside. Raises InputError where the spec is the same and something else
        that decides bits is not: the content of networks or data, the number of processes.
        """
        newest = from_first(rank, lambda: _latest_of(directory, identity))
        if newest is None:
            return 0, {}
        tensors, note = load_checkpoint(newest)
        check_identity(newest, note, identity)
        for i, mean in enumerate(self.average):
            mean.copy_(placed(tensors[f"average/{i}"], mean))
        for name, module in self.modules.items():
            like, saved = module.state_dict(), _with_prefix(name, tensors)
            module.load_state_dict({key: placed(value, like[key]) for key, value in saved.items()})
        for name, optimiser in self.optimisers.items():
            restore_optimiser(optimiser, _with_prefix(name, tensors))
        return int(note["step"]), note


def save_checkpoint(
    directory: Path, step: int, tensors: Mapping[str, Tensor], note: Mapping[str, Any]
) -> None:
    """Write `directory`/step-<step>.safetensors, whole and durable, and drop all but the two newest.

    `note` (JSON) is stored in the file. A process killed at any point leaves the older checkpoints whole.
    """
    from safetensors.torch import save_file

    contents = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    for unfinished in directory.glob(".step-*.partial"):  # of a process that was killed
        unfinished.unlink()
    with whole_file(directory / f"step-{step:07d}.safetensors", durable=True) as partial:
        save_file(contents, partial, metadata={"note": json.dumps({**note, "step": step})})
    for old in sorted(directory.glob("step-*.safetensors"))[:-_KEEP]:
        old.unlink()


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    files = sorted(directory.glob("step-*.safetensors"))
    return files[-1] if files else None


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of a checkpoint. Raises InputError where the file is not one of ours."""
    with _opened(file) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, _note(opened)  # noqa: SIM118


def load_note(file: Path) -> dict[str, Any]:
    """The note alone. Raises InputError likewise."""
    with _opened(file) as opened:
        return _note(opened)


def _note(opened: Any) -> dict[str, Any]:
    return dict(json.loads((opened.metadata() or {})["note"]))


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{file}: not a checkpoint of this project ({error}); "
            f"move it out of {file.parent} to go on from an earlier one"
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
    """Raise InputError, naming all that changed, where a checkpoint was made with other data, networks or processes."""
    changed = [
        f"{file}: was made with {name} {old}, now it is {new}"
        for key, value in identity.items()
        for name, old, new in _changes(key, note.get(key), value)
    ]
    if changed:
        remedy = f"restore what changed, or train anew after `mv {file.parent} {file.parent}-old`"
        raise InputError.of([*changed, remedy])


def set_aside(directory: Path, spec: str) -> Path | None:
    """Move checkpoints of another spec to `directory`-<their spec>, and bring back those of `spec`, if there are any.

    Returns where the former are now, or None. Nothing is deleted.
    """
    moved = None
    newest = latest_checkpoint(directory)
    if newest is not None and (other := str(load_note(newest).get("spec"))) != spec:
        moved = _free(directory.with_name(f"{directory.name}-{other}"))
        directory.rename(moved)
    earlier = directory.with_name(f"{directory.name}-{spec}")
    if earlier.is_dir() and latest_checkpoint(directory) is None:
        shutil.rmtree(directory, ignore_errors=True)  # at most the rest of a checkpoint that was never whole
        earlier.rename(directory)
    return moved


def _latest_of(directory: Path, identity: Mapping[str, Any]) -> Path | None:
    """The newest checkpoint of this spec."""
    if moved := set_aside(directory, str(identity["spec"])):
        print(f"the settings changed: earlier checkpoints are kept in {moved}, and training starts anew")
    return latest_checkpoint(directory)


def _free(path: Path) -> Path:
    """`path`, or where that exists with a number behind it, one that does not."""
    more = (path.with_name(f"{path.name}-{k}") for k in itertools.count(2))
    return next(name for name in itertools.chain([path], more) if not name.exists())


def _changes(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs, by name: networks are compared one by one."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from _changes(f"{key} of {name}", old.get(name), new.get(name))
    elif old != new:
        yield key, old, new


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `_prefixed` gave this prefix, by their old names."""
    return {
        name.removeprefix(f"{prefix}/"): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}/")
    }
