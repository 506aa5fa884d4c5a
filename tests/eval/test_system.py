"""A pipeline's parts: another UNet, a LoRA, pipelines that follow; and those that are called otherwise than most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AmusedPipeline,
    AmusedScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    IFPipeline,
    IFSuperResolutionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UVit2DModel,
    VQModel,
)
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

from add.config.system import StageSpec, SystemSource
from add.errors import InputError
from add.models.weights import WeightsError, weights_hash
from eval.flow import RectifiedFlowScheduler
from eval.system import System, load_system, open_system
from tests.support.tiny_pipelines import WIDTHS, text_config, tiny_unet, write_sd, write_tokenizer

PROMPTS, SEEDS = ["a cat", "a red dog"], [11, 12]


def drawn(system: System, steps: int = 2) -> np.ndarray:
    return system.images(PROMPTS, SEEDS, steps)


def by_hand(pipeline: Any, **options: Any) -> np.ndarray:
    """The same by a pipeline's own call."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = pipeline(PROMPTS, generator=generators, output_type="np", **options).images
    pixels: np.ndarray = (images * 255).round().astype(np.uint8)
    return pixels


def own(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


# what judges images


def with_checker(folder: Path, weights: bool) -> Path:
    """A pipeline whose model_index.json names a safety checker, as Stable Diffusion 1.5's does."""
    write_sd(folder)
    index = folder / "model_index.json"
    stated = json.loads(index.read_text()) | {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "requires_safety_checker": True,
    }
    index.write_text(json.dumps(stated))
    (folder / "safety_checker").mkdir()
    if weights:
        (folder / "safety_checker" / "model.safetensors").write_bytes(b"not even read")
    return folder


@pytest.mark.parametrize("weights", [True, False])
def test_a_safety_checker_is_left_out_whether_its_weights_are_there_or_not(
    tmp_path: Path, weights: bool
) -> None:
    system = load_system(str(with_checker(tmp_path / "sd", weights)))
    assert np.array_equal(
        drawn(system), by_hand(own(tmp_path / "sd"), num_inference_steps=2, guidance_scale=1.0)
    )
    assert system.sampler_facts["safety_checker"] is False


# another UNet, an adapter


def other_unet(folder: Path) -> Path:
    torch.manual_seed(7)
    tiny_unet(cross_attention_dim=WIDTHS[0]).save_pretrained(folder)
    return folder


def lora(folder: Path, base: Path) -> Path:
    """A LoRA of a pipeline's UNet with weights that are not nought, as the hub has them."""
    torch.manual_seed(8)
    unet = own(base).unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    for name, value in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    StableDiffusionPipeline.save_lora_weights(folder, get_peft_model_state_dict(unet))
    return folder


def test_another_unet_stands_in_the_pipelines_place(tmp_path: Path) -> None:
    base, unet = write_sd(tmp_path / "sd"), other_unet(tmp_path / "unet")
    system = open_system(SystemSource.model_validate({"path": str(base), "unet": {"path": str(unet)}}))
    pipeline = own(base)
    pipeline.unet = type(pipeline.unet).from_pretrained(unet)
    assert np.array_equal(drawn(system), by_hand(pipeline, num_inference_steps=2, guidance_scale=1.0))
    assert not np.array_equal(drawn(system), drawn(load_system(str(base))))


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    base = write_sd(tmp_path / "sd")
    adapter = lora(tmp_path / "lora", base)
    system = open_system(SystemSource.model_validate({"path": str(base), "adapter": {"path": str(adapter)}}))
    pipeline = own(base)
    pipeline.load_lora_weights(adapter)
    theirs = by_hand(pipeline, num_inference_steps=2, guidance_scale=1.0)
    assert np.abs(drawn(system).astype(int) - theirs).max() <= 1, "merged, a product rounds otherwise"
    assert np.abs(drawn(system).astype(int) - drawn(load_system(str(base)))).max() > 10
    assert not any("lora" in name for name, _ in system.pipeline.unet.named_parameters()), "nothing is left"


def test_an_adapter_of_another_network_is_refused(tmp_path: Path) -> None:
    base = write_sd(tmp_path / "sd")
    adapter = lora(tmp_path / "lora", base)
    larger = own(base)
    larger.unet = tiny_unet(cross_attention_dim=WIDTHS[0], block_out_channels=(16, 32))
    larger.save_pretrained(tmp_path / "larger")
    with pytest.raises(InputError, match=f"{adapter}: is no LoRA of this StableDiffusionPipeline"):
        load_system(str(tmp_path / "larger"), adapter=adapter)
    with pytest.raises(InputError, match="is no LoRA"):
        load_system(str(base), adapter=other_unet(tmp_path / "unet"))


def test_parts_have_the_weights_that_the_settings_state(tmp_path: Path) -> None:
    base, unet = write_sd(tmp_path / "sd"), other_unet(tmp_path / "unet")
    right = {"path": str(unet), "sha256": weights_hash(unet)}
    assert drawn(open_system(SystemSource.model_validate({"path": str(base), "unet": right}))).any()
    wrong = right | {"sha256": "0" * 64}
    with pytest.raises(WeightsError, match="these are other weights"):
        open_system(SystemSource.model_validate({"path": str(base), "unet": wrong}))


# pipelines that follow


def test_a_pipeline_draws_over_the_images_of_the_one_before(tmp_path: Path) -> None:
    base = write_sd(tmp_path / "sd")
    refiner = StableDiffusionImg2ImgPipeline(**own(base).components, requires_safety_checker=False)
    refiner.save_pretrained(tmp_path / "refiner")
    stage = StageSpec(path=str(tmp_path / "refiner"), steps=4, guidance=3.0, strength=0.5)
    system = open_system(SystemSource(path=str(base), then=(stage,)))
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    first = own(base)
    first.set_progress_bar_config(disable=True)
    refiner.set_progress_bar_config(disable=True)
    pictures = first(PROMPTS, num_inference_steps=2, guidance_scale=1.0, generator=generators).images
    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0, "strength": 0.5}
    theirs = refiner(PROMPTS, image=pictures, generator=generators, **settings).images
    assert np.array_equal(drawn(system), np.stack([np.asarray(image) for image in theirs]))
    facts = system.sampler_facts
    assert len(facts["timesteps"]) == 3, "PNDM by two steps is three calls"
    (then,) = facts["then"]
    assert (then["pipeline"], then["guidance"]) == ("StableDiffusionImg2ImgPipeline", 3.0)
    assert facts["network_calls"] == 3 + len(then["timesteps"]) == 3 + 3
    assert "note" not in then, "a refiner begins at less than pure noise"


def test_a_pipeline_that_takes_no_images_cannot_follow(tmp_path: Path) -> None:
    base = write_sd(tmp_path / "sd")
    stage = StageSpec(path=str(base), steps=2, guidance=1.0)
    with pytest.raises(InputError, match="a StableDiffusionPipeline takes no `image`"):
        open_system(SystemSource(path=str(base), then=(stage,)))


def write_if(folder: Path, kind: Callable[..., Any], in_channels: int, size: int, **unet: Any) -> Path:
    """A tiny stage of DeepFloyd IF, untrained: pixels, a T5 encoder, a scheduler that learns its variance."""
    torch.manual_seed(3)
    t5 = T5Config(vocab_size=516, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    more = {} if kind is IFPipeline else {"image_noising_scheduler": DDPMScheduler()}
    kind(
        tokenizer=write_tokenizer(folder.with_name(f"{folder.name}-tokenizer"), "<|endoftext|>"),
        text_encoder=T5EncoderModel(t5),
        unet=tiny_unet(
            in_channels=in_channels, out_channels=6, cross_attention_dim=16, sample_size=size, **unet
        ),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
        **more,
    ).save_pretrained(folder)
    return folder


def test_a_cascade_of_pixels_draws_each_image_alone(tmp_path: Path) -> None:
    first = write_if(tmp_path / "first", IFPipeline, 3, 16)
    second = write_if(tmp_path / "second", IFSuperResolutionPipeline, 6, 32, class_embed_type="timestep")
    stage = StageSpec(path=str(second), steps=3, guidance=4.0, noise_level=100)
    system = open_system(SystemSource(path=str(first), guidance=7.0, then=(stage,)))
    images = drawn(system)
    assert images.shape == (2, 32, 32, 3)
    alone = system.images(PROMPTS[1:], SEEDS[1:], 2)
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1, "another batch rounds a product otherwise"
    assert system.sampler_facts["network_calls"] == 2 + 3
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    one, two = (DiffusionPipeline.from_pretrained(each) for each in (first, second))
    one.set_progress_bar_config(disable=True)
    two.set_progress_bar_config(disable=True)
    small = one(
        PROMPTS, num_inference_steps=2, guidance_scale=7.0, generator=generators, output_type="np"
    ).images
    pictures = [Image.fromarray((image * 255).round().astype(np.uint8)) for image in small]
    theirs = two(
        PROMPTS, image=pictures, num_inference_steps=3, guidance_scale=4.0, noise_level=100,
        generator=generators, output_type="np",
    ).images  # fmt: skip
    assert np.array_equal(images, (theirs * 255).round().astype(np.uint8))


# one generator for a batch


def write_amused(folder: Path) -> Path:
    """A tiny aMUSEd, untrained: tokens of a VQ model, filled in by a transformer that is not told the time."""
    torch.manual_seed(4)
    AmusedPipeline(
        vqvae=VQModel(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=8,
            num_vq_embeddings=32,
            mid_block_add_attention=False,
            lookup_from_codebook=True,
        ),
        tokenizer=write_tokenizer(folder.with_name("tokenizer"), "<|endoftext|>"),
        text_encoder=CLIPTextModelWithProjection(text_config(WIDTHS[0], 2)),
        transformer=UVit2DModel(
            hidden_size=16,
            cond_embed_dim=WIDTHS[0],
            micro_cond_encode_dim=2,
            micro_cond_embed_dim=10,
            encoder_hidden_size=WIDTHS[0],
            vocab_size=33,
            codebook_size=32,
            in_channels=8,
            block_out_channels=8,
            num_res_blocks=1,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            block_num_heads=2,
            sample_size=8,
        ),
        scheduler=AmusedScheduler(mask_token_id=32),
    ).save_pretrained(folder)
    return folder


def test_a_pipeline_of_one_generator_draws_each_image_by_its_own(tmp_path: Path) -> None:
    system = load_system(str(write_amused(tmp_path / "amused")), guidance=3.0)
    images = drawn(system, 4)
    assert np.array_equal(images, drawn(system, 4))
    assert np.array_equal(system.images(PROMPTS[1:], SEEDS[1:], 4)[0], images[1]), "no neighbour moves it"
    assert not np.array_equal(images[0], images[1])
    facts = system.sampler_facts
    assert (facts["timesteps"], facts["network_calls"]) == ([None] * 4, 4)
    assert "note" not in facts


# rectified flow


@pytest.mark.parametrize("steps", [1, 4])
def test_rectified_flow_goes_straight_along_a_constant_velocity(steps: int) -> None:
    scheduler = RectifiedFlowScheduler()
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == [1000 * (steps - k) / steps for k in range(steps)]
    noise, image = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    sample = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        sample = scheduler.step(
            image - noise, timestep, scheduler.scale_model_input(sample, timestep)
        ).prev_sample
    torch.testing.assert_close(sample, image)


def of_class(folder: Path, name: str) -> Path:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": name}))
    return folder


def test_a_pipeline_of_a_class_that_diffusers_lacks_is_refused(tmp_path: Path) -> None:
    base = of_class(write_sd(tmp_path / "sd"), "PrivatePipeline")
    with pytest.raises(
        InputError, match=r"model_index\.json: _class_name: diffusers .* has no PrivatePipeline"
    ):
        load_system(str(base))


def test_a_pipeline_is_sampled_as_a_rectified_flow(tmp_path: Path) -> None:
    base = of_class(write_sd(tmp_path / "sd"), "RectifiedFlowPipeline")
    system = load_system(str(base), scheduler="RectifiedFlowScheduler")
    seen: list[Any] = []
    system.pipeline.unet.register_forward_hook(lambda _, given, out: seen.append((given[0], out[0])))
    images = drawn(system, 1)
    assert system.called == [(1000.0,)]
    facts = system.sampler_facts
    assert (facts["scheduler"], "note" in facts) == ("RectifiedFlowScheduler", False)
    ((noise, velocity),) = seen
    vae = system.pipeline.vae
    with torch.no_grad():
        theirs = vae.decode((noise + velocity) / vae.config.scaling_factor).sample
    theirs = (theirs / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, (theirs * 255).round().astype(np.uint8)), "one step is noise + velocity"
