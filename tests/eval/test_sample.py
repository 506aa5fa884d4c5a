"""Sampling: an image depends on (system, prompt, seed) alone, and needs nothing of this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from add.config.load import load_scale
from add.models.diffusion import sampling_timesteps
from add.train import train
from eval.images import read_samples
from eval.prompts import read_prompts
from eval.sample import image_seed, sample_set
from eval.system import load_system
from tests.support.smoke import REPOSITORY, smoke_run

OUTSIDER = """
import csv, json, sys
import numpy as np, torch
from diffusers import DiffusionPipeline
directory, samples, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
pipeline = DiffusionPipeline.from_pretrained(directory)
with open(samples + "/index.csv", newline="") as file:
    rows = list(csv.DictReader(file))
worst = 0
from PIL import Image
for row in rows[:3]:
    generator = torch.Generator().manual_seed(int(row["image_seed"]))
    image = pipeline(row["prompt"], num_inference_steps=steps, guidance_scale=1.0, generator=generator).images[0]
    theirs = np.asarray(Image.open(samples + "/" + row["file"])).astype(int)
    worst = max(worst, int(np.abs(np.asarray(image).astype(int) - theirs).max()))
ours = [m for m in sys.modules if m.split(".")[0] in ("add", "eval", "mini", "reports", "addbench")]
print(json.dumps({"worst": worst, "ours": ours}))
"""


@pytest.fixture(scope="module")
def student(smoke_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("student")
    before = Path.cwd()
    os.chdir(smoke_directory)
    try:
        train(smoke_run(steps=1), 0, out)
    finally:
        os.chdir(before)
    return out / "student"


def prompts_of_smoke():
    return read_prompts(load_scale(REPOSITORY / "config" / "smoke.yaml").sampling.prompts["coco"])


def sampled(student: Path, folder: Path, prompts, steps: int, batch: int) -> dict[str, np.ndarray]:
    sample_set(load_system(str(student)), prompts, steps, 0, batch, folder, folder.name)
    found = read_samples(folder, 32)
    pixels = np.concatenate(list(found.batches(4)))
    return {s.prompt_id: pixels[i].astype(int) for i, s in enumerate(found.samples)}


@pytest.mark.parametrize("steps", [1, 4])
def test_an_image_does_not_depend_on_its_neighbours_order_or_number(
    smoke: Path, student: Path, tmp_path: Path, steps: int
):
    prompts = prompts_of_smoke()
    whole = sampled(student, tmp_path / f"whole-{steps}step", prompts, steps, 3)
    backwards = sampled(student, tmp_path / f"backwards-{steps}step", prompts[::-1], steps, 3)
    alone = sampled(student, tmp_path / f"alone-{steps}step", prompts[4:5], steps, 3)
    for key, image in whole.items():
        np.testing.assert_array_equal(image, backwards[key])
    for key, image in alone.items():
        np.testing.assert_array_equal(image, whole[key])


@pytest.mark.parametrize("steps", [1, 4])
def test_another_batch_size_moves_no_value_by_more_than_its_last_bit(
    smoke: Path, student: Path, tmp_path: Path, steps: int
):
    # The noise is the image's own, so the batch size can only change how a matrix product is rounded. A value
    # that lay on the edge between two of 256 levels may then fall on the other side; nothing else may happen.
    sets = [
        sampled(student, tmp_path / f"batch{n}-{steps}step", prompts_of_smoke(), steps, n) for n in (1, 3, 8)
    ]
    for other in sets[1:]:
        difference = np.stack([np.abs(other[key] - image) for key, image in sets[0].items()])
        assert difference.max() <= 1
        assert (difference > 0).mean() < 2e-3


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_process_with_diffusers_but_without_this_project_gives_the_same_images(
    smoke: Path, student: Path, tmp_path: Path, steps: int
):
    folder = tmp_path / f"coco-{steps}step"
    sample_set(load_system(str(student)), prompts_of_smoke(), steps, 0, 1, folder, "student")
    result = subprocess.run(
        [sys.executable, "-c", OUTSIDER, str(student), str(folder), str(steps)],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    assert answer == {"worst": 0, "ours": []}


def test_seeds_differ_between_prompts_and_sampling_seeds_and_stay_the_same():
    prompts = prompts_of_smoke_static()
    seeds = {image_seed(p, s) for p in prompts for s in (0, 1)}
    assert len(seeds) == 2 * len(prompts)
    assert all(0 <= s < 2**63 for s in seeds)
    # A golden value: a change here changes every image that anyone has published.
    assert image_seed(prompts[0], 0) == 7882564655042679955


def prompts_of_smoke_static():
    from eval.prompts import Prompt

    return [Prompt(str(i), f"prompt {i}") for i in range(5)]


def test_sampling_timesteps_spread_from_the_last():
    assert sampling_timesteps([249, 499, 749, 999], 1) == [999]
    assert sampling_timesteps([249, 499, 749, 999], 2) == [999, 499]
    assert sampling_timesteps([699, 799, 899, 999], 4) == [999, 899, 799, 699]
    with pytest.raises(ValueError, match="5 sampling steps"):
        sampling_timesteps([249, 499, 749, 999], 5)


def test_a_student_at_other_timesteps_is_sampled_at_them(smoke: Path, tmp_path: Path):
    train(smoke_run(steps=1, student_timesteps=[699, 799, 899, 999]), 0, tmp_path)
    system = load_system(str(tmp_path / "student"))
    seen: list[int] = []
    system.pipeline.unet.register_forward_pre_hook(lambda _, given: seen.append(int(given[1])))
    system.images(["a small red circle on sand"], [1], 4)
    assert seen == [999, 899, 799, 699]


def test_an_unfinished_set_has_no_samples_json(smoke: Path, student: Path, tmp_path: Path):
    system, prompts = load_system(str(student)), prompts_of_smoke()
    folder = tmp_path / "coco-1step"
    sample_set(system, prompts, 1, 0, 4, folder, "student")
    assert Image.open(folder / "000000.png").mode == "RGB"
    broken = type(system)("broken", None, system.timesteps, 1.0)
    with pytest.raises(AttributeError):
        sample_set(broken, prompts, 1, 0, 4, folder, "student")
    assert not (folder / "samples.json").exists()
