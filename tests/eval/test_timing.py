"""Timing a stub of known cost: exactly by a clock of its own, within 5% by the real one; and a real pipeline once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from add.config.load import load_scale
from add.config.scale import TimingSpec
from add.errors import REFUSED, InputError
from eval import timing
from eval.system import System
from eval.timing import TimedSystem, main, read_systems, read_timing, resident_peak, time_systems
from tests.support.tiny_pipelines import write_sd


class Stub(torch.nn.Module):
    """A denoiser whose call costs `cost` on a clock that `spend` moves."""

    def __init__(self, cost: float, spend: Any) -> None:
        super().__init__()
        self.cost, self.spend = cost, spend

    def forward(self, sample: torch.Tensor, timestep: int) -> torch.Tensor:
        self.spend(self.cost)
        return sample


def stub(spend: Any, fixed: float = 0.0, each: float = 0.0, call: float = 0.0, most: int = 10**6) -> System:
    """A pipeline that costs fixed + each * batch + call * steps, and whose memory holds `most` images."""
    unet = Stub(call, spend)
    noise = np.random.default_rng(0).random((1, 4, 4, 3))

    def pipeline(prompt: list[str], num_inference_steps: int, **_: Any) -> Any:
        if len(prompt) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for k in range(num_inference_steps):
            unet(torch.zeros(1), 999 - k)
        spend(fixed + each * len(prompt))
        return SimpleNamespace(images=np.repeat(noise, len(prompt), axis=0))

    pipeline.components = {"unet": unet}  # type: ignore[attr-defined]
    return System("stub", pipeline, {}, 1.0)


class Clock:
    """A clock that only `spend` moves."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds
        self.order.append(seconds)


def asked(label: str = "stub", steps: int = 4) -> TimedSystem:
    return TimedSystem(label=label, path="stub", steps=steps)


def how(*batches: int, warm_up: int = 0, repeats: int = 2, longest: float = 1e9) -> TimingSpec:
    return TimingSpec(batches=batches, warm_up=warm_up, repeats=repeats, longest=longest)


def test_a_stub_of_known_cost_is_timed_exactly_by_its_own_clock() -> None:
    clock = Clock()
    system = stub(clock.spend, fixed=0.5, each=0.25, call=0.125)
    (found,) = time_systems([(asked(), system)], "cpu", how(1, 2, 4, warm_up=1, repeats=3), clock)
    assert found.image.median == pytest.approx(0.5 + 0.25 + 4 * 0.125)
    assert found.denoiser is not None
    assert found.denoiser.median == pytest.approx(4 * 0.125), "the network alone"
    assert (found.network_calls, found.timesteps) == (4, (999.0, 998.0, 997.0, 996.0))
    assert [each.seconds.median for each in found.batches] == pytest.approx([1.25, 1.5, 2.0])
    assert found.best.batch == 4
    assert found.best.images_per_second == pytest.approx(4 / 2.0)
    assert found.out_of_memory is None


def test_a_stub_that_sleeps_is_timed_within_5_percent() -> None:
    """Against what the stub itself saw go by: a busy machine may wake it late."""
    slept: dict[float, list[float]] = {0.1: [], 0.2: []}

    def sleep(seconds: float) -> None:
        started = time.perf_counter()
        time.sleep(seconds)
        slept[seconds].append(time.perf_counter() - started)

    (found,) = time_systems(
        [(asked(steps=1), stub(sleep, fixed=0.2, call=0.1))], "cpu", how(1, warm_up=1, repeats=5)
    )
    # A repeat is two calls: the network is timed inside the first, the second is timed end to end.
    network, whole = slept[0.1][-10::2], np.add(slept[0.1], slept[0.2])[-9::2]
    assert found.denoiser is not None
    assert found.denoiser.median == pytest.approx(np.median(network), rel=0.05)
    assert found.image.median == pytest.approx(np.median(whole), rel=0.05)
    assert found.image.median > 0.3


def test_memory_errors_end_the_list_of_that_system_alone() -> None:
    clock = Clock()
    small, large = stub(clock.spend, each=1.0, most=2), stub(clock.spend, each=1.0)
    found = time_systems([(asked("a"), small), (asked("b"), large)], "cpu", how(1, 2, 4, 8), clock)
    assert [[each.batch for each in one.batches] for one in found] == [[1, 2], [1, 2, 4, 8]]
    assert [one.out_of_memory for one in found] == [4, None]
    with pytest.raises(InputError, match="a: one image does not fit"):
        time_systems([(asked("a"), stub(clock.spend, most=0))], "cpu", how(1), clock)


def test_a_call_that_should_take_too_long_ends_the_list_of_that_system_alone() -> None:
    clock = Clock()
    slow, fast = stub(clock.spend, each=1.0), stub(clock.spend, each=0.25)
    found = time_systems([(asked("a"), slow), (asked("b"), fast)], "cpu", how(1, 2, 4, 8, longest=2.0), clock)
    assert [[each.batch for each in one.batches] for one in found] == [[1, 2], [1, 2, 4, 8]]
    assert [(one.too_long, one.out_of_memory) for one in found] == [(4, None), (None, None)]
    (slow_alone,) = time_systems(
        [(asked(), stub(clock.spend, each=9.0))], "cpu", how(1, 2, longest=2.0), clock
    )
    assert [each.batch for each in slow_alone.batches] == [1], "one image is always timed"


def test_one_pipeline_by_several_numbers_of_steps_keeps_each_ones_calls() -> None:
    clock = Clock()
    system = stub(clock.spend, call=1.0)
    found = time_systems([(asked("a", 4), system), (asked("b", 1), system)], "cpu", how(1), clock)
    assert [(one.network_calls, one.image.median) for one in found] == [(4, 4.0), (1, 1.0)]


def test_systems_take_turns_so_that_drift_hits_all_alike() -> None:
    clock = Clock()
    one, two = stub(clock.spend, fixed=1.0), stub(clock.spend, fixed=2.0)
    time_systems([(asked("a"), one), (asked("b"), two)], "cpu", how(1, 2, repeats=3), clock)
    costs = [cost for cost in clock.order if cost]
    # at batch 1 each turn has two calls: one that is timed inside the network, one that is timed end to end
    assert costs == [1, 1, 2, 2] * 3 + [1, 2] * 3


def test_the_spread_is_quartiles_and_warm_up_does_not_count() -> None:
    clock = Clock()
    costs = iter([100.0, 100.0] + [cost for k in (1.0, 2.0, 3.0, 4.0, 5.0) for cost in (0.0, k)])
    system = stub(lambda _: clock.spend(next(costs)))
    system.pipeline.components["unet"].spend = lambda _: None
    (found,) = time_systems([(asked(), system)], "cpu", how(1, warm_up=1, repeats=5), clock)
    assert (found.image.lower, found.image.median, found.image.upper) == (2.0, 3.0, 4.0)


def test_another_error_than_of_memory_is_no_end_of_a_list() -> None:
    def broken(_: float) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        time_systems([(asked(), stub(broken))], "cpu", how(1))


@pytest.mark.slow
def test_the_resident_peak_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    """Breaks when it holds what this process has ever held, or is not in bytes."""
    write_sd(tmp_path / "sd")
    mine = np.ones(2 * 10**8)  # 1.6 GB
    found = resident_peak(TimedSystem(label="tiny", path=str(tmp_path / "sd"), steps=2))
    assert found is not None
    assert 2e8 < found < mine.nbytes


def test_the_command_times_a_pipeline_and_states_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "resident_peak", lambda asked: 1234)
    write_sd(tmp_path / "sd")
    systems = tmp_path / "systems.json"
    entry = {"label": "tiny", "path": str(tmp_path / "sd"), "steps": 2}
    systems.write_text(json.dumps([entry, {**entry, "label": "four", "steps": 4}]))
    out = tmp_path / "timing.json"
    line = ["--systems", str(systems), "--scale", "config/smoke.yaml", "--out", str(out), "--device", "cpu"]
    assert main(line) == 0
    found = read_timing(out)
    assert found.timing == load_scale("config/smoke.yaml").timing
    tiny, four = found.systems
    assert four.network_calls == tiny.network_calls + 2
    assert tiny.network_calls == len(tiny.timesteps) >= 2
    assert tiny.denoiser is not None
    assert tiny.denoiser.median > 0  # of other calls than the image's, so not below it on a busy machine
    assert tiny.image.median > 0
    assert "resident peak" in found.peak_memory
    assert tiny.peak_bytes == 1234
    out.write_text(out.read_text().replace('"repeats"', '"repeated"'))
    with pytest.raises(InputError, match="repeats: Field required; time the systems again"):
        read_timing(out)
    line[1] = json.dumps([entry | {"scheduler": "NoScheduler"}])
    assert main(line) == REFUSED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "lists no system"),
        ('[{"label": "a", "path": "b"}]', "0.steps: Field required"),
        ('[{"label": "a", "path": "b", "steps": 1, "step": 1}]', "0.step: Extra"),
        (
            '[{"label": "a", "path": "b", "steps": 1}, {"label": "a", "path": "c", "steps": 1}]',
            "two systems",
        ),
    ],
)
def test_a_list_of_systems_that_is_wrong_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "systems.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_systems(str(tmp_path / "systems.json"))
    with pytest.raises(InputError, match=reason):
        read_systems(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_systems(str(tmp_path / "absent.json"))
