"""Where does a program compute? The one place that decides it: as asked, as the settings state, else on a free GPU."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from add.errors import InputError
from add.lock import holder, try_lock

_GIVEN = "ADD_GPU_GIVEN"
"""Set in the environment of a process that holds a GPU, and so of its children, which share it."""
_PAUSE = 0.5
"""Seconds between two looks for a free GPU."""


def add_device_option(parser: argparse._ActionsContainer) -> None:
    """The option `--device` of a program, for `open_device`."""
    where = "cpu, cuda, or a certain GPU as cuda:1 (default: what the settings state, else a GPU where there is one)"
    parser.add_argument("--device", metavar="DEVICE", help=where)


def machine_gpus() -> tuple[str, ...]:
    """The GPUs that this process may see, each as CUDA_VISIBLE_DEVICES would name it. Does not import torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name for part in visible.split(",") if (name := part.strip()) not in ("", "-1"))
    if cards := list(Path("/dev").glob("nvidia[0-9]*")):
        return tuple(map(str, range(len(cards))))
    # AMD's, and NVIDIA's under Windows' subsystem for Linux, have one file for all cards.
    return ("0",) if any(Path(file).exists() for file in ("/dev/kfd", "/dev/dxg")) else ()


def open_device(asked: str | None, stated: str | None, threads: int) -> str:
    """Decide on a device, set it up for this process, and return torch's name of it.

    asked: `--device`. stated: the settings' `training.device`. threads: of the process, on a CPU. Where neither names
    a certain GPU, the process sees one GPU alone from here on, and holds it until it ends: several at a time
    take different ones, and wait where there are no more. Call it before anything else asks torch for a GPU.
    Raises InputError for another device than these, and where a GPU is wanted and torch finds none.
    """
    device, gpus = asked or stated or "", machine_gpus()
    what = "--device" if asked else "training.device"
    if not re.fullmatch(r"(cpu|cuda(:\d+)?)?", device):
        raise InputError(what, f"{device}: should be cpu, cuda, or a certain GPU as cuda:1")
    if device in ("", "cuda") and not _is_given(gpus):
        _hold_one(gpus)
    import torch

    torch.set_num_threads(threads)
    usable = device != "cpu" and torch.cuda.is_available()
    if device.startswith("cuda") and not usable:
        raise InputError(
            what, f"{device}: torch finds no GPU here; say cpu, or leave it out to take what there is"
        )
    if not device:
        device = "cuda" if usable else "cpu"
        if gpus and not usable:
            print("torch finds no GPU that it can use here: computing on the CPU", file=sys.stderr)
    if usable:
        make_deterministic(device)
    return device


def make_deterministic(device: str) -> None:
    """Let the same run give the same bits on the same machine and device.

    On a GPU strictly: an operation that has no deterministic kernel there raises RuntimeError, and float32 is float32
    and not TF32. On the CPU, where torch only warns, the operations used here are deterministic.
    """
    import torch

    gpu = torch.device(device).type == "cuda"
    if gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=not gpu)
    # Nothing here reads memory before it is written; filling every new tensor costs 3 to 5% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def synchronise(device: str) -> None:
    """Wait until the device has finished its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _is_given(gpus: Sequence[str]) -> bool:
    """Whether there is nothing to choose: no GPU, one that the caller or a scheduler chose, or a launcher's ranks."""
    chosen = "CUDA_VISIBLE_DEVICES" in os.environ and len(gpus) == 1
    ranks = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return not gpus or chosen or ranks or bool({_GIVEN, "SLURM_JOB_ID"} & set(os.environ))


def _hold_one(gpus: Sequence[str]) -> None:
    """Wait for a GPU that no process of this user holds, and let this process see it alone."""
    folder = Path(tempfile.gettempdir()) / f"add-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    locks = {name: folder / f"gpu-{name.replace('/', '-')}.lock" for name in gpus}
    said = False
    while True:
        for name, file in locks.items():
            if try_lock(file) is not None:  # is never unlocked: the kernel does it when the process ends
                os.environ |= {"CUDA_VISIBLE_DEVICES": name, _GIVEN: name}
                return
        if not said:
            at = ", ".join((holder(file) or ("?",))[0] for file in locks.values())
            print(
                f"waiting for a GPU: in use by process {at} (to share one: --device cuda:0)", file=sys.stderr
            )
        said = True
        time.sleep(_PAUSE)
