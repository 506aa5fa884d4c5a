"""No broken picture becomes pixels: what is not finite, of one colour or blacked out is refused by prompt and seed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor

from add.errors import REFUSED, InputError
from add.log import TrainLog
from add.models.weights import WeightsError
from eval.drawing import eight_bit
from eval.images import read_samples
from eval.metrics.alignment import load_clip
from eval.metrics.features import ImageBatch, load_extractor
from eval.sample import main
from eval.system import load_system
from tests.support.evaluation import make_world, picture
from tests.support.tiny_pipelines import write_sd, write_xl

PROMPTS, SEEDS = ["a cat", "a red dog"], [11, 12]


def spoilt(out: Path, what: str) -> Path:
    """A pipeline whose VAE's last bias is NaN, infinite in one channel only, or whose output is one colour."""
    pipeline = StableDiffusionPipeline.from_pretrained(write_sd(out), safety_checker=None)
    last = pipeline.vae.decoder.conv_out
    with torch.no_grad():
        if what == "constant":
            last.weight.zero_()
        else:
            last.bias[0] = float(what)
    pipeline.save_pretrained(out)
    return out


@pytest.mark.parametrize("what", ["nan", "inf", "-inf", "constant"])
def test_broken_images_are_refused_by_prompt_and_seed(tmp_path: Path, what: str) -> None:
    system = load_system(str(spoilt(tmp_path / "sd", what)))
    reason = "one colour" if what == "constant" else "not finite"
    with pytest.raises(InputError, match=reason) as caught:
        system.images(PROMPTS, SEEDS, 1)
    assert len(caught.value.problems) == 2
    for prompt, seed, problem in zip(PROMPTS, SEEDS, caught.value.problems, strict=True):
        assert f"{prompt!r}, image seed {seed}" in problem


def test_a_broken_vae_ends_the_command_and_leaves_no_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.stage import SampleValues

    values = SampleValues.of(make_world(tmp_path / "world")).model_dump_json()
    system = spoilt(tmp_path / "sd", "nan")
    command = ["sample", "--system", str(system), "--scale", values, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "1", "--device", "cpu"])
    assert main() == REFUSED
    assert "'a scene called a', image seed" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("samples.json"))


def test_latents_that_overflow_are_refused(tmp_path: Path) -> None:
    system = load_system(str(write_xl(tmp_path / "xl")))
    with torch.no_grad():
        system.pipeline.unet.conv_out.bias.fill_(1e38)  # overflows once the step and the VAE have scaled it
    with pytest.raises(InputError, match="not finite"):
        system.images(PROMPTS, SEEDS, 2)


def test_what_a_pipeline_blacks_out_is_refused_by_name() -> None:
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    with pytest.raises(InputError, match="second: the pipeline's safety checker blacked it out") as caught:
        eight_bit(images, [], [False, True], ["first", "second"])
    assert len(caught.value.problems) == 1


def test_whole_images_become_the_pixels_that_diffusers_makes() -> None:
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    theirs = np.stack([np.asarray(image) for image in VaeImageProcessor.numpy_to_pil(images)])
    assert np.array_equal(eight_bit(images, [], [False] * 3, "abc"), theirs)


def test_one_colour_in_a_sample_set_is_not_scored(tmp_path: Path) -> None:
    from PIL import Image

    from tests.support.evaluation import write_samples

    folder = write_samples(tmp_path / "set", [("1", "a"), ("2", "b")], 1)
    Image.new("RGB", (16, 16)).save(folder / "000001.png")
    with pytest.raises(InputError, match=r"000001\.png: is one colour"):
        list(read_samples(folder, 16).batches(2))


def test_networks_that_measure_must_be_finite(tmp_path: Path) -> None:
    """An oracle's argmax over NaN would answer with its first value, and a CLIP score would be NaN."""
    evaluation = make_world(tmp_path).evaluation
    images = np.stack([picture(k) for k in range(3)])
    extractor = load_extractor(evaluation.extractor)
    broken = type(extractor)(
        extractor.network,
        32,
        lambda x: extractor.forward(x) * torch.tensor([1, float("inf"), 1])[:, None],
        "cpu",
    )
    with pytest.raises(WeightsError, match=r"extractor: its output is not finite for 1 of 3 .* number 2"):
        broken(ImageBatch(images))
    clip = load_clip(evaluation.clip)
    with torch.no_grad():
        clip.model.visual.proj.zero_()  # a zero vector has no direction
    with pytest.raises(WeightsError, match="not finite for 3 of 3"):
        clip.cosines(images, ["a", "b", "c"])


def test_training_pictures_must_be_finite(tmp_path: Path) -> None:
    good, bad = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), float("nan"))
    with (
        TrainLog(tmp_path, 0) as log,
        pytest.raises(FloatingPointError, match="step 3: pictures not finite: student"),
    ):
        log.pictures(3, {"real": good, "student": bad})
