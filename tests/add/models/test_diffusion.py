"""Pipeline directories: which formats load, and what a saved student is to someone without this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from add.models.diffusion import load_diffusion, save_student, trainable_unet
from add.models.weights import WeightsError, loaded_weights, weights_hash
from eval.sample import sample_set
from eval.system import load_system
from tests.eval.test_sample import OUTSIDER, prompts_of_smoke_static
from tests.support.tiny_pipelines import write_sd, write_xl


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


def values(network: Any) -> dict[str, torch.Tensor]:
    modules = {"unet": network.unet, "vae": network.vae}
    modules |= {f"text{i}": encoder for i, encoder in enumerate(network.text.encoders)}
    return {f"{n}.{k}": v for n, module in modules.items() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("write", [write_sd, write_xl])
@pytest.mark.parametrize(
    "saving",
    [{"variant": "fp16"}, {"max_shard_size": "40KB"}, {"variant": "fp16", "max_shard_size": "40KB"}],
    ids=["fp16", "shards", "fp16 shards"],
)
def test_half_precision_variants_and_shards_load_the_same_network(
    write: Any, saving: dict[str, str], tmp_path: Path
):
    """Breaks when a published layout is not found, or is computed in half precision (SDXL's VAE overflows)."""
    whole = values(load_diffusion(str(write(tmp_path / "whole"))))
    directory = write(tmp_path / "other", **saving)
    assert not (directory / "unet" / "diffusion_pytorch_model.safetensors").exists()
    other = values(load_diffusion(str(directory)))
    assert set(whole) == set(other)
    for name, tensor in whole.items():
        assert other[name].dtype == tensor.dtype
        assert torch.equal(other[name], tensor), name


def test_plain_weights_win_over_their_half_precision_copies(xl: Path, tmp_path: Path):
    """Breaks when the hub's layout, which has both, is trained from the rounded copy, or hashed with it."""
    directory = write_xl(tmp_path / "both")
    lone = weights_hash(directory)
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        for parameter in module.parameters():
            parameter.data.zero_()
    pipeline.save_pretrained(directory, variant="fp16")
    save_file({"x": torch.zeros(1)}, directory / "sd_xl_base_1.0.safetensors")
    found, expected = values(load_diffusion(str(directory))), values(load_diffusion(str(xl)))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert weights_hash(directory) == lone


def test_only_the_weights_that_are_loaded_are_hashed_and_fetched():
    names = [
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "vae_1_0/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.fp16-00001-of-00001.safetensors", "sd_xl_base_1.0.safetensors", "unet/config.json",
    ]  # fmt: skip
    parts = [names[4], names[5], names[0], names[2]]
    assert loaded_weights([*names, "model_index.json"]) == parts
    assert loaded_weights(["a.safetensors", "b/c.safetensors", "b/c.fp16.safetensors"]) == [
        "a.safetensors",
        "b/c.safetensors",
    ]


def rewrite(file: Path, change: Any) -> None:
    save_file({k: v for key, v in load_file(file).items() if (k := change(key))}, file)


def test_names_of_older_files_are_understood(tmp_path: Path):
    """Breaks when a library no longer maps the names in the files that SD2.1 was published with."""
    directory = write_sd(tmp_path / "sd")
    expected = values(load_diffusion(str(directory)))
    attention = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def old(name: str) -> str:
        for new, before in attention.items():
            name = name.replace(new, before) if "attentions" in name else name
        return name

    rewrite(directory / "vae" / "diffusion_pytorch_model.safetensors", old)
    text = directory / "text_encoder" / "model.safetensors"
    rewrite(text, lambda name: f"text_model.{name.removeprefix('text_model.')}")
    assert any("proj_attn" in k for k in load_file(directory / "vae" / "diffusion_pytorch_model.safetensors"))
    found = values(load_diffusion(str(directory)))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("part", ["unet", "text_encoder_2", "vae"])
def test_weights_that_are_not_there_are_refused(part: str, tmp_path: Path):
    """Breaks when a library's warning lets random numbers pass for pretrained weights."""
    directory = write_xl(tmp_path / "xl")
    (file,) = (directory / part).glob("*.safetensors")
    dropped = sorted(load_file(file))[0]
    rewrite(file, lambda name: "" if name == dropped else name)
    with pytest.raises(WeightsError, match=rf"xl/{part}: the files lack 1 of the network's weights"):
        load_diffusion(str(directory))
    file.unlink()
    with pytest.raises(WeightsError, match=rf"{part}: holds no .safetensors"):
        load_diffusion(str(directory))


def test_parts_that_do_not_fit_and_impossible_sizes_are_refused(xl: Path, tmp_path: Path):
    other = write_sd(tmp_path / "sd")
    index = json.loads((xl / "model_index.json").read_text())
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for part in (*xl.iterdir(), other / "unet"):
        if part.name != "model_index.json":
            target = mixed / part.name
            target.unlink(missing_ok=True)
            target.symlink_to(part)
    (mixed / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"mixed: the text encoders' width is 40, .*but there are 2 text"):
        load_diffusion(str(mixed))
    with pytest.raises(ValueError, match="resolution 30 is not a multiple of the VAE's factor 4"):
        load_diffusion(str(xl), resolution=30)


@pytest.mark.parametrize(("prediction", "steps"), [("epsilon", 1), ("v_prediction", 4)])
def test_an_sdxl_student_is_sampled_alike_with_and_without_this_project(
    tmp_path: Path, prediction: str, steps: int
):
    """Breaks when a saved student needs this project, or is sampled at another size than it was trained at."""
    network = load_diffusion(str(write_xl(tmp_path / "xl", prediction)), resolution=32)
    student = tmp_path / "student"
    save_student(network, trainable_unet(network, "pretrained", 0), [249, 499, 749, 999], student)
    index = json.loads((student / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert index["force_zeros_for_empty_prompt"] is True
    assert json.loads((student / "vae" / "config.json").read_text())["force_upcast"] is True
    folder = tmp_path / f"set-{steps}step"
    system = load_system(str(student))
    assert system.images(["a cat"], [0], steps).shape == (1, 32, 32, 3)
    sample_set(system, prompts_of_smoke_static(), steps, 0, 1, folder, "student")
    result = subprocess.run(
        [sys.executable, "-c", OUTSIDER, str(student), str(folder), str(steps)],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(result.stdout.strip().splitlines()[-1]) == {"worst": 0, "ours": []}
    again = load_diffusion(str(student))
    assert again.resolution == 32
    assert network.unet.config.sample_size == 16, "saving changed the frozen network"


def test_one_step_of_a_saved_student_is_its_x0_prediction(tmp_path: Path):
    """Breaks when the scheduler does anything but decode the UNet's output at the last timestep."""
    from add.models.diffusion import student_x0

    network = load_diffusion(str(write_xl(tmp_path / "xl")), resolution=32)
    unet = trainable_unet(network, "pretrained", 0)
    save_student(network, unet, [249, 499, 749, 999], tmp_path / "student")
    pipeline = load_system(str(tmp_path / "student")).pipeline
    noise = torch.randn(1, *network.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        text = network.embed(["a red cat"])
        s = torch.tensor([999])
        expected = student_x0(network, unet, torch.zeros_like(noise), noise, s, text)
    found = pipeline(
        "a red cat", num_inference_steps=1, guidance_scale=1.0, latents=noise, output_type="latent"
    ).images
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
