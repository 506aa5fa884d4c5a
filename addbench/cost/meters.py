"""What is allocated and computed while some code runs? Counted at each operation, on any device or without one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

_FLOAT32 = (F.group_norm, F.layer_norm)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is active and that are still alive.

    most: the most bytes that were alive at a time. Tensors from outside, and views of them, are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._know(tensor, 0)
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            self._know(tensor, tensor.untyped_storage().nbytes())
        return out

    def _know(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class Flops(TorchDispatchMode):
    """Counts floating-point operations of matrix products, convolutions and attention, by torch's own formulas.

    FlopCounterMode has these formulas, but also follows the modules, which fails in R1's gradient of a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class CudaAutocast(TorchFunctionMode):
    """Norms in float32, as under CUDA's autocast and not the CPU's: their inputs and outputs are larger there.

    It covers a forward pass only: a backward pass drops the mode, also for what checkpointing computes again in it.
    `norms_as_on_cuda` covers both.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FLOAT32:
            args, kwargs = tree_map(_float32, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def norms_as_on_cuda(module: nn.Module) -> None:
    """Change `module` in place so that its norms always run under CudaAutocast."""
    for part in module.modules():
        if isinstance(part, nn.GroupNorm | nn.LayerNorm):
            part.forward = _under_cuda_autocast(part.forward)  # type: ignore[method-assign]


def _under_cuda_autocast(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with CudaAutocast():
            return forward(*args, **kwargs)

    return run


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _float32(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if half else value
