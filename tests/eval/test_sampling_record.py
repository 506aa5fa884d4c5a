"""samples.json says how the images were drawn: scheduler, timesteps, network calls, guidance, dtype, checker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler, PNDMScheduler

from add.errors import InputError
from eval.images import read_samples
from eval.prompts import Prompt
from eval.sample import sample_set
from eval.system import load_system
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


def test_a_scheduler_and_a_spacing_can_be_given_and_are_recorded(tmp_path: Path) -> None:
    write_sd(tmp_path / "sd")
    system = load_system(
        str(tmp_path / "sd"), guidance=2.0, scheduler="EulerDiscreteScheduler", spacing="leading"
    )
    sample_set(system, PROMPTS, 1, 0, 2, tmp_path / "parti", "sd")
    facts = json.loads((tmp_path / "parti" / "samples.json").read_text())["sampler"]
    assert (facts["scheduler"], facts["timestep_spacing"]) == ("EulerDiscreteScheduler", "leading")
    assert "first timestep is" in facts["note"], "one step spaced `leading` begins near the end of the noise"


def test_pndm_by_25_steps_is_26_calls(tmp_path: Path) -> None:
    assert drawn(tmp_path, PNDMScheduler, 25, "leading")["sampler"]["network_calls"] == 26


def test_a_scheduler_that_diffusers_lacks_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write_sd(tmp_path / "sd")
    with pytest.raises(InputError, match="did you mean 'EulerDiscreteScheduler'"):
        load_system(str(tmp_path / "sd"), scheduler="EulerDiscretScheduler")


def test_larger_images_are_downsampled_and_smaller_ones_refused(tmp_path: Path) -> None:
    write_sd(tmp_path / "sd")
    system = load_system(str(tmp_path / "sd"))
    side = system.images(["a cat"], [0], 1).shape[1]
    sample_set(system, PROMPTS, 1, 0, 2, tmp_path / "parti", "sd", side // 2)
    assert len(list(read_samples(tmp_path / "parti", side // 2).batches(2))) == 1
    facts = json.loads((tmp_path / "parti" / "samples.json").read_text())["sampler"]
    assert (facts["drawn_resolution"], facts["downsampled"].split(",")[0]) == (side, f"to {side // 2}")
    with pytest.raises(
        InputError, match=f"draws {side}x{side} images, and {2 * side}x{2 * side} are measured"
    ):
        sample_set(system, PROMPTS, 1, 0, 2, tmp_path / "parti", "sd", 2 * side)
