"""How long does an image take, how many come a second, and in how much memory? Systems side by side in one run.

    python -m eval.timing --systems systems.json --scale config/mini.yaml --out timing.json

systems.json is a list of {label, steps, path, ...}: `path` is a directory or a hub id; `SystemSource` has the rest. The
scale's `timing` says how. All systems are loaded at once, each pipeline once, and take turns, call by call, so that
a machine that slows down slows all alike.

    image       one call at batch 1, end to end: from prompt and seed to 8-bit pixels
    denoiser    the part of such a call inside the denoising network (unet or transformer), all its calls together
    throughput  images a second at each batch of a stated list; a system's list ends where memory does not suffice, or
                where a call should take longer than is stated

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
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from add.config.scale import TimingSpec
from add.config.system import SystemSource
from add.config.types import Count, Frozen, Text
from add.device import add_device_option, open_device, synchronise
from add.errors import InputError, refuses
from add.files import write_json
from add.lock import only_writer
from eval.drawing import Timesteps, denoisers
from eval.result import commit, hardware, versions
from eval.stage import TimingValues, add_scale_option
from eval.system import System, open_system

PROMPT = "a dog"
"""Of every image; a pipeline pads prompts to one length, so that their words cost nothing."""
ON_GPU = "on the GPU at batch 1: the system's weights and what a call allocates beside them"
RESIDENT = "resident peak of a process that draws one image with this system alone, its libraries included"

Clock = Callable[[], float]


class TimedSystem(SystemSource):
    """What is timed: a pipeline or a student by `steps` steps, as a source says. label: its name in tables."""

    label: Text
    steps: Count

    @property
    def pipeline(self) -> SystemSource:
        """What is loaded: the same for all numbers of steps."""
        return SystemSource.model_validate_json(self.key)

    @property
    def key(self) -> str:
        """The same as JSON, to know it by."""
        return self.model_dump_json(include=set(SystemSource.model_fields))


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
    """One system. best: of `batches`, the one with the most images a second. out_of_memory, too_long: the batch that
    ended them, by which of both.

    timesteps: of the denoising network's calls, `network_calls` of them. denoiser: None for a pipeline without one.
    peak_bytes: None where the machine does not tell.
    """

    asked: TimedSystem
    timesteps: tuple[float | None, ...]
    network_calls: int
    image: SecondsSpread
    denoiser: SecondsSpread | None
    batches: tuple[BatchTiming, ...]
    best: BatchTiming
    out_of_memory: int | None
    too_long: int | None
    peak_bytes: int | None


class TimingResult(Frozen):
    """timing.json. peak_memory says which `peak_bytes` are. hardware, versions, commit: as in result.json."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    prompt: str
    timing: TimingSpec
    peak_memory: str
    systems: tuple[SystemTiming, ...]
    hardware: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None


@dataclass
class _Taken:
    """What was measured of one system so far; seconds by batch. called: the timesteps of a call."""

    called: Timesteps = ()
    seconds: dict[int, list[float]] = field(default_factory=dict)
    denoiser: list[float] = field(default_factory=list)
    peak: int | None = None
    out_of_memory: int | None = None
    too_long: int | None = None


def time_systems(
    systems: Sequence[tuple[TimedSystem, System]],
    device: str,
    how: TimingSpec,
    clock: Clock = time.perf_counter,
) -> tuple[SystemTiming, ...]:
    """Time loaded systems on `device`, in turns. Several may be one pipeline. `clock` gives seconds.

    peak_bytes is of a GPU; elsewhere None. Raises InputError where one image does not fit into memory, or is none.
    """
    taken = [_Taken() for _ in systems]
    for batch in how.batches:
        for own in taken:
            if own.out_of_memory is None and own.too_long is None and _expected(own, batch) > how.longest:
                own.too_long = batch
        _time_batch(systems, taken, device, batch, how, clock)
    return tuple(_timing(asked, own) for (asked, _), own in zip(systems, taken, strict=True))


def _expected(own: _Taken, batch: int) -> float:
    """Seconds of a call at a larger batch, if an image takes as long as at the last one; nought before the first."""
    if not own.seconds:
        return 0.0
    last = max(own.seconds)
    return float(np.median(own.seconds[last])) * batch / last


def _time_batch(
    systems: Sequence[tuple[TimedSystem, System]],
    taken: Sequence[_Taken],
    device: str,
    batch: int,
    how: TimingSpec,
    clock: Clock,
) -> None:
    for turn in range(how.warm_up + how.repeats):
        for (asked, system), own in zip(systems, taken, strict=True):
            if own.out_of_memory is not None or own.too_long is not None:
                continue
            try:
                if batch == 1:
                    with _inside(system.pipelines, device, clock) as inside:
                        peak = _gpu_peak(system, device, asked)
                    if turn >= how.warm_up and inside:
                        own.denoiser.append(sum(inside))
                    own.peak, own.called = peak, tuple(chain.from_iterable(system.called))
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
            if turn >= how.warm_up:
                own.seconds.setdefault(batch, []).append(seconds)


def _timing(asked: TimedSystem, own: _Taken) -> SystemTiming:
    spreads = {batch: SecondsSpread.of(seconds) for batch, seconds in own.seconds.items()}
    batches = tuple(
        BatchTiming(batch=batch, seconds=spread, images_per_second=batch / spread.median)
        for batch, spread in spreads.items()
    )
    return SystemTiming(
        asked=asked,
        timesteps=own.called,
        network_calls=len(own.called),
        image=spreads[1],
        denoiser=SecondsSpread.of(own.denoiser) if own.denoiser else None,
        batches=batches,
        best=max(batches, key=lambda each: each.images_per_second),
        out_of_memory=own.out_of_memory,
        too_long=own.too_long,
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
def _inside(pipelines: Sequence[Any], device: str, clock: Clock) -> Iterator[list[float]]:
    """Seconds of each call of the pipelines' denoising networks inside the block."""
    started: list[float] = []
    seconds: list[float] = []

    def begin(*_: Any) -> None:
        synchronise(device)
        started.append(clock())

    def end(*_: Any) -> None:
        synchronise(device)
        seconds.append(clock() - started.pop())

    networks = [network for pipeline in pipelines for network in denoisers(pipeline)]
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

    parts = [part for pipeline in system.pipelines for part in pipeline.components.values()]
    modules = [part for part in parts if isinstance(part, torch.nn.Module)]
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
    _draw(open_system(asked.pipeline, "cpu"), asked, 1)
    # getrusage's would begin at the peak of the process that started this one
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(found["VmHWM"].removesuffix("kB")) * 1024


def read_systems(text: str) -> tuple[TimedSystem, ...]:
    """The list of the option `--systems`: JSON, or a file of it. Raises InputError with every field that is wrong."""
    file = "--systems" if text.lstrip().startswith("[") else text
    try:
        content = text if file != text else Path(text).read_text("utf-8")
        found = TypeAdapter(tuple[TimedSystem, ...]).validate_json(content)
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
    text = "label, steps, path, ... of each system"
    parser.add_argument("--systems", required=True, metavar="FILE|JSON", help=text)
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="timing.json")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    asked, values = read_systems(options.systems), TimingValues.read(options.scale)
    asked = tuple(each.model_copy(update={"dtype": each.dtype or values.dtype}) for each in asked)
    device = open_device(options.device, values.device, values.threads)
    on_gpu = device.startswith("cuda")
    with only_writer(options.out):
        # An image in several steps needs no more memory than in one, so a pipeline is looked at once.
        firsts = {each.key: each for each in reversed(asked)}
        peaks = {key: None if on_gpu else resident_peak(each) for key, each in firsts.items()}
        opened = {key: open_system(each.pipeline, device) for key, each in firsts.items()}
        timings = time_systems([(each, opened[each.key]) for each in asked], device, values.timing)
        result = TimingResult(
            prompt=PROMPT,
            timing=values.timing,
            peak_memory=ON_GPU if on_gpu else RESIDENT,
            systems=tuple(
                timing if on_gpu else timing.model_copy(update={"peak_bytes": peaks[timing.asked.key]})
                for timing in timings
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
