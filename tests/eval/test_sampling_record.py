"""samples.json says how the images were drawn: scheduler, timesteps, network calls, guidance, dtype, checker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler, PNDMScheduler

from add.config.study import StudySystemSpec
from add.errors import InputError
from eval.images import read_samples
from eval.prompts import Prompt
from eval.sample import load_system, sample_set
from tests.support.tiny_pipelines import write_sd

PROMPTS = (Prompt("1", "a cat"), Prompt("2", " ".join(["a red dog"] * 40)))


def drawn(
    folder: Path, scheduler: Any, steps: int, spacing: str = "trailing", timesteps: tuple[int, ...] = ()
) -> dict[str, Any]:
    """samples.json of a tiny pipeline with this scheduler."""
    write_sd(folder / "sd")
    pipeline = DiffusionPipeline.from_pretrained(folder / "sd", safety_checker=None)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, timestep_spacing=spacing)
    pipeline.save_pretrained(folder / "sd")
    system = load_system(str(folder / "sd"), guidance=2.0, timesteps=timesteps)
    sample_set(system, PROMPTS, steps, 0, 2, folder / "parti", "sd")
    facts: dict[str, Any] = json.loads((folder / "parti" / "samples.json").read_text())
    assert read_samples(folder / "parti", 32).how["sampler"] == facts["sampler"]
    return facts


@pytest.mark.parametrize(("scheduler", "calls"), [(DDIMScheduler, 25), (PNDMScheduler, 26)])
def test_calls_of_the_network_are_counted_and_not_assumed(tmp_path: Path, scheduler: Any, calls: int) -> None:
    sampler = drawn(tmp_path, scheduler, 25)["sampler"]
    assert sampler["network_calls"] == len(sampler["timesteps"]) == calls
    assert (sampler["scheduler"], sampler["guidance"]) == (scheduler.__name__, 2.0)
    assert (sampler["dtype"], sampler["safety_checker"]) == ("float32", False)


@pytest.mark.parametrize(("steps", "first"), [(1, 1), (2, 501), (4, 751)])
def test_a_schedule_that_begins_far_from_noise_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int, first: int
) -> None:
    sampler = drawn(tmp_path, DDIMScheduler, steps, "leading")["sampler"]
    assert max(sampler["timesteps"]) in (first, first - 1)
    assert "'leading'" in sampler["note"]
    assert "its first timestep is" in capsys.readouterr().err


def test_a_schedule_that_begins_at_noise_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampler = drawn(tmp_path, DDIMScheduler, 1, "trailing")["sampler"]
    assert sampler["timesteps"] == [999]
    assert "note" not in sampler
    assert "warning" not in capsys.readouterr().err


def test_timesteps_can_be_given_and_are_recorded(tmp_path: Path) -> None:
    assert drawn(tmp_path, EulerDiscreteScheduler, 1, timesteps=(399,))["sampler"]["timesteps"] == [399]


def test_a_scheduler_that_takes_no_timesteps_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="timestep"):
        drawn(tmp_path, PNDMScheduler, 1, timesteps=(399,))


def test_prompts_that_the_text_encoder_cuts_off_are_counted(tmp_path: Path) -> None:
    assert drawn(tmp_path, DDIMScheduler, 1)["truncated_prompts"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pipeline": "sdxl", "guidance": 1.0, "steps": 2, "timesteps": (399,)}, "lists 1, but `steps` is 2"),
        ({"run": "baseline", "seed": 0, "steps": 1, "timesteps": (399,)}, "has its own timesteps"),
    ],
)
def test_timesteps_that_do_not_fit_a_system_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudySystemSpec(label="a", **values)
