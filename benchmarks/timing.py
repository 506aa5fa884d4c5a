"""What is a device's time worth? Its matrix rate, the time of a step, the memory at its peak."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def device_name(device: str) -> str:
    """What to call the device in a result."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def free(device: str) -> None:
    """Give back what was timed before, and what was compiled for it."""
    gc.collect()
    torch._dynamo.reset()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def matrix_rate(device: str, side: int, repeats: int = 20) -> float:
    """bf16 FLOP/s of a product of two side x side matrices: the best of `repeats` after a warm-up."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for repeat in range(repeats + 3):
        synchronise(device)
        started = time.perf_counter()
        a @ b
        synchronise(device)
        if repeat >= 3:
            best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def time_steps(step: Callable[[], None], device: str, warm_up: int, repeats: int) -> tuple[float, int | None]:
    """Median seconds of `step`, and the bytes that the device's allocator had given out at its peak (GPU only)."""
    for _ in range(warm_up):
        step()
    synchronise(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    return statistics.median(seconds), peak
