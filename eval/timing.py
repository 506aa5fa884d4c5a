"""How long does an image take, how many come a second, and in how much memory? Systems side by side in one run.

    python -m eval.timing --systems systems.json --scale config/mini.yaml --out timing.json

systems.json is a list of {label, system, steps, guidance, timesteps}; `system` is a directory or a hub id. All systems
are loaded at once and take turns, call by call, so that a machine that slows down slows all alike.

    image       one call at batch 1, end to end: from prompt and seed to 8-bit pixels
    denoiser    the part of such a call inside the denoising network (unet or transformer), all its calls together
    throughput  images a second at each batch of a stated list; where memory does not suffice, a system's list ends

Each is the median of `repeats` calls after `warm_up` ones, with quartiles. A call of the network with guidance serves
both prompts and counts once. Times inside the network are taken in calls of their own, which wait for the device before
and after each of its calls; the calls that are timed end to end do not.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from add.config.types import Count, Frozen, Text
from add.device import add_device_option, open_device, synchronise
from add.errors import InputError, refuses
from add.files import write_json
from add.lock import only_writer
from eval.drawing import denoisers
from eval.result import commit, hardware, versions
from eval.sample import System, load_system
from eval.stage import SampleValues, add_scale_option

BATCHES = (1, 2, 4, 8, 16, 32, 64)
PROMPT = "a photograph of an astronaut riding a horse"
"""Of every image; a pipeline pads prompts to one length, so that their words cost nothing."""
ON_GPU = "on the GPU at batch 1: the system's weights and what a call allocates beside them"
RESIDENT = "resident peak of a process that draws one image with this system alone, its libraries included"

Clock = Callable[[], float]


class TimedSystem(Frozen):
    """What is timed: `system` is a directory or hub id; guidance and timesteps are for pipelines, not for students."""

    label: Text
    system: Text
    steps: Count
    guidance: float = 1.0
    timesteps: tuple[int, ...] = ()

    def load(self, device: str) -> System:
        """The system itself. Raises as `load_system` does."""
        return load_system(self.system, self.guidance, device, self.timesteps)


class SecondsSpread(Frozen):
    """Seconds of one call: the median, and the quartiles below and above it."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> SecondsSpread:
        """From one call or more."""
        lower, median, upper = map(float, np.quantile(seconds, [0.25, 0.5, 0.75]))
        return cls(median=median, lower=lower, upper=upper)


class BatchTiming(Frozen):
    """Calls that draw `batch` images at once."""

    batch: Count
    seconds: SecondsSpread
    images_per_second: float


class SystemTiming(Frozen):
    """One system. best: of `batches`, the one with the most images a second. out_of_memory: the batch that ended them.

    timesteps: of the denoising network's calls, `network_calls` of them. denoiser: None for a pipeline without one.
    peak_bytes: None where the machine does not tell.
    """

    asked: TimedSystem
    timesteps: tuple[float, ...]
    network_calls: int
    image: SecondsSpread
    denoiser: SecondsSpread | None
    batches: tuple[BatchTiming, ...]
    best: BatchTiming
    out_of_memory: int | None
    peak_bytes: int | None


class TimingResult(Frozen):
    """timing.json. peak_memory says which `peak_bytes` are. hardware, versions, commit: as in result.json."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    prompt: str
    batches: tuple[int, ...]
    warm_up: int
    repeats: int
    peak_memory: str
    systems: tuple[SystemTiming, ...]
    hardware: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None


@dataclass
class _Taken:
    """What was measured of one system so far; seconds by batch."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    denoiser: list[float] = field(default_factory=list)
    peak: int | None = None
    out_of_memory: int | None = None


def time_systems(
    systems: Sequence[tuple[TimedSystem, System]],
    device: str,
    batches: Sequence[int] = BATCHES,
    warm_up: int = 2,
    repeats: int = 7,
    clock: Clock = time.perf_counter,
) -> tuple[SystemTiming, ...]:
    """Time loaded systems on `device`, in turns. `batches` increase from 1; `clock` gives seconds.

    peak_bytes is of a GPU; elsewhere None. Raises InputError where one image does not fit into memory, or is none.
    """
    taken = [_Taken() for _ in systems]
    for batch in batches:
        _time_batch(systems, taken, device, batch, warm_up, repeats, clock)
    return tuple(_timing(asked, system, own) for (asked, system), own in zip(systems, taken, strict=True))


def _time_batch(
    systems: Sequence[tuple[TimedSystem, System]],
    taken: Sequence[_Taken],
    device: str,
    batch: int,
    warm_up: int,
    repeats: int,
    clock: Clock,
) -> None:
    for turn in range(warm_up + repeats):
        for (asked, system), own in zip(systems, taken, strict=True):
            if own.out_of_memory is not None:
                continue
            try:
                if batch == 1:
                    with _inside(system.pipeline, device, clock) as inside:
                        peak = _gpu_peak(system, device, asked)
                    if turn >= warm_up and inside:
                        own.denoiser.append(sum(inside))
                    own.peak = peak
                seconds = _seconds(system, asked, batch, device, clock)
            except (MemoryError, RuntimeError) as error:
                if not _is_memory(error):
                    raise
                if batch == 1:
                    raise InputError(asked.label, f"one image does not fit into memory: {error}") from error
                own.out_of_memory = batch
                own.seconds.pop(batch, None)
                _free(device)
                continue
            if turn >= warm_up:
                own.seconds.setdefault(batch, []).append(seconds)


def _timing(asked: TimedSystem, system: System, own: _Taken) -> SystemTiming:
    spreads = {batch: SecondsSpread.of(seconds) for batch, seconds in own.seconds.items()}
    batches = tuple(
        BatchTiming(batch=batch, seconds=spread, images_per_second=batch / spread.median)
        for batch, spread in spreads.items()
    )
    return SystemTiming(
        asked=asked,
        timesteps=tuple(system.called),
        network_calls=len(system.called),
        image=spreads[1],
        denoiser=SecondsSpread.of(own.denoiser) if own.denoiser else None,
        batches=batches,
        best=max(batches, key=lambda each: each.images_per_second),
        out_of_memory=own.out_of_memory,
        peak_bytes=own.peak,
    )


def _draw(system: System, asked: TimedSystem, batch: int) -> None:
    system.images([PROMPT] * batch, range(batch), asked.steps)


def _seconds(system: System, asked: TimedSystem, batch: int, device: str, clock: Clock) -> float:
    synchronise(device)
    started = clock()
    _draw(system, asked, batch)
    synchronise(device)
    return clock() - started


@contextmanager
def _inside(pipeline: Any, device: str, clock: Clock) -> Iterator[list[float]]:
    """Seconds of each call of the pipeline's denoising network inside the block."""
    started: list[float] = []
    seconds: list[float] = []

    def begin(*_: Any) -> None:
        synchronise(device)
        started.append(clock())

    def end(*_: Any) -> None:
        synchronise(device)
        seconds.append(clock() - started.pop())

    networks = denoisers(pipeline)
    hooks = [network.register_forward_pre_hook(begin) for network in networks]
    hooks += [network.register_forward_hook(end) for network in networks]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def _gpu_peak(system: System, device: str, asked: TimedSystem) -> int | None:
    """Draw one image; the bytes that the system alone would need for it on a GPU, elsewhere None."""
    if not device.startswith("cuda"):
        _draw(system, asked, 1)
        return None
    import torch

    modules = [part for part in system.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [each for part in modules for each in (*part.parameters(), *part.buffers())]
    weights = sum(each.nbytes for each in {id(each): each for each in tensors}.values())
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _draw(system, asked, 1)
    return weights + torch.cuda.max_memory_allocated(device) - before


def _is_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)


def _free(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def resident_peak(asked: TimedSystem) -> int | None:
    """The most bytes resident in a process of its own that draws one image on the CPU; None where there is no /proc."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_resident_peak, (asked,))


def _resident_peak(asked: TimedSystem) -> int | None:
    _draw(asked.load("cpu"), asked, 1)
    # getrusage's would begin at the peak of the process that started this one
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(found["VmHWM"].removesuffix("kB")) * 1024


def read_systems(file: Path) -> tuple[TimedSystem, ...]:
    """The list in a JSON file. Raises InputError with the file and every field that is wrong."""
    try:
        found = TypeAdapter(tuple[TimedSystem, ...]).validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(file, f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = ((".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
        raise InputError.of(f"{file}: {place}: {message}" for place, message in problems) from error
    labels = [each.label for each in found]
    if doubled := sorted({label for label in labels if labels.count(label) > 1}):
        raise InputError(file, f"two systems are called {', '.join(doubled)}; give each its own label")
    if not found:
        raise InputError(file, "lists no system")
    return found


def read_timing(file: Path) -> TimingResult:
    """One timing.json. Raises InputError with the file and every field that is wrong."""
    try:
        return TimingResult.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(file, f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = ((".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
        raise InputError.of(
            f"{file}: {place}: {message}; time the systems again with `python -m eval.timing`"
            for place, message in problems
        ) from error


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 3 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.timing", description="Time systems side by side.")
    parser.add_argument("--systems", type=Path, required=True, help="JSON list of label, system, steps, ...")
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="timing.json")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="increasing, the first is 1")
    parser.add_argument("--warm-up", type=int, default=2, help="calls that do not count, a system and batch")
    parser.add_argument("--repeats", type=int, default=7, help="calls that count")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    batches: tuple[int, ...] = tuple(options.batches)
    if batches[0] != 1 or list(batches) != sorted(set(batches)):
        raise InputError("--batches", f"should increase from 1, not be {' '.join(map(str, batches))}")
    if options.repeats < 1 or options.warm_up < 0:
        raise InputError("--repeats, --warm-up", "should be at least 1 and 0")
    asked, values = read_systems(options.systems), SampleValues.read(options.scale)
    device = open_device(options.device, values.device, values.threads)
    on_gpu = device.startswith("cuda")
    with only_writer(options.out):
        peaks = [None if on_gpu else resident_peak(each) for each in asked]
        systems = [(each, each.load(device)) for each in asked]
        timings = time_systems(systems, device, batches, options.warm_up, options.repeats)
        result = TimingResult(
            prompt=PROMPT,
            batches=batches,
            warm_up=options.warm_up,
            repeats=options.repeats,
            peak_memory=ON_GPU if on_gpu else RESIDENT,
            systems=tuple(
                timing if peak is None else timing.model_copy(update={"peak_bytes": peak})
                for timing, peak in zip(timings, peaks, strict=True)
            ),
            hardware=hardware(device),
            versions=versions(),
            commit=commit(),
        )
        write_json(options.out, result.model_dump(mode="json", by_alias=True))
    for each in result.systems:
        best = f"{each.best.images_per_second:.3g} images/s at batch {each.best.batch}"
        print(f"{each.asked.label}: {each.image.median:.4g} s an image, {best}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
