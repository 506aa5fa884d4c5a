"""Text conditioning of one and of two encoders, beside what diffusers' own pipelines compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from add.models.diffusion import load_diffusion
from add.models.text import TextConditioning, encoder_names, incompatibilities, zero_null
from tests.support.tiny_pipelines import LENGTH, WIDTHS, text_config, tiny_unet, tiny_vae, write_sd, write_xl

PROMPTS = ["a red cat", "", "a caption that is far longer than the twelve tokens that there are"]


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def reference(xl: Path) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(xl)


def test_prompts_are_embedded_as_by_the_sdxl_pipeline(xl: Path, reference: StableDiffusionXLPipeline):
    """Breaks when another hidden state is taken, the encoders change places, or a tokenizer pads otherwise."""
    found = load_diffusion(str(xl), resolution=32).embed(PROMPTS)
    embeddings, _, pooled, _ = reference.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    assert found.embeddings.shape == (3, LENGTH, sum(WIDTHS))
    assert torch.equal(found.embeddings, embeddings)
    assert found.pooled is not None
    assert torch.equal(found.pooled, pooled)
    assert not torch.equal(found.pooled[0], found.pooled[2]), "a pooled embedding that no prompt changes"


def test_image_sizes_are_those_of_the_sdxl_pipeline(xl: Path, reference: StableDiffusionXLPipeline):
    """Breaks when the size is the UNet's own instead of the run's, or the six numbers change places."""
    network = load_diffusion(str(xl), resolution=32)
    sizes = reference._get_add_time_ids((32, 32), (0, 0), (32, 32), torch.float32, WIDTHS[1])
    found = network.embed(PROMPTS)
    assert found.added is not None
    assert torch.equal(found.added["time_ids"], sizes.expand(3, 6))
    assert load_diffusion(str(xl)).resolution == 64, "without a resolution it is what sample_size means"


@pytest.mark.parametrize("zeros", [True, False])
def test_null_and_negative_prompts_are_those_of_the_sdxl_pipeline(
    tmp_path: Path, reference: StableDiffusionXLPipeline, zeros: bool
):
    """Breaks when force_zeros_for_empty_prompt is not honoured, or is for prompts that are given."""
    reference.register_to_config(force_zeros_for_empty_prompt=zeros)
    reference.save_pretrained(tmp_path)
    network = load_diffusion(str(tmp_path), resolution=32)
    null = network.null()
    _, embeddings, _, pooled = reference.encode_prompt("a cat", negative_prompt=None)
    assert null.pooled is not None
    assert torch.equal(null.embeddings, embeddings)
    assert torch.equal(null.pooled, pooled)
    assert bool((null.embeddings == 0).all()) == zeros
    negative = network.embed(["blurry"])
    _, embeddings, _, pooled = reference.encode_prompt("a cat", negative_prompt="blurry")
    assert torch.equal(negative.embeddings, embeddings)
    assert negative.pooled is not None
    assert torch.equal(negative.pooled, pooled)


def test_one_encoder_gives_what_the_stable_diffusion_pipeline_does(sd: Path):
    """Breaks when SD2.1 would be given the penultimate states, or added conditioning that it does not take."""
    found = load_diffusion(str(sd), resolution=32).embed(PROMPTS)
    pipeline = StableDiffusionPipeline.from_pretrained(sd)
    assert torch.equal(found.embeddings, pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0])
    assert found.added is None
    null = load_diffusion(str(sd)).null()
    assert torch.equal(null.embeddings, pipeline.encode_prompt("x", "cpu", 1, True)[1])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_unet_is_called_as_the_sdxl_pipeline_calls_it(
    tmp_path: Path, prediction: str, monkeypatch: pytest.MonkeyPatch
):
    """Breaks when the UNet is given other conditioning than it is sampled with."""
    directory = write_xl(tmp_path / "xl", prediction)
    network = load_diffusion(str(directory), resolution=32)
    assert network.schedule.prediction == prediction
    pipeline = StableDiffusionXLPipeline.from_pretrained(directory)
    calls: list[tuple[Any, Any, Any, torch.Tensor]] = []
    original = pipeline.unet.forward

    def record(sample: Any, timestep: Any, **options: Any) -> Any:
        output = original(sample, timestep, **options)
        calls.append((sample, timestep, options, output[0]))
        return output

    monkeypatch.setattr(pipeline.unet, "forward", record)
    generator = torch.Generator().manual_seed(0)
    pipeline(
        PROMPTS[0], height=32, width=32, num_inference_steps=1, guidance_scale=1.0, generator=generator,
        output_type="latent",
    )  # fmt: skip
    sample, timestep, options, output = calls[0]
    text = network.embed(PROMPTS[:1])
    assert torch.equal(text.embeddings, options["encoder_hidden_states"])
    t = timestep.expand(1).long()
    with torch.no_grad():
        assert torch.equal(network.predict(sample, t, text), output)
        other = TextConditioning(text.embeddings, text.pooled, text.time_ids.flip(1) * 2)  # type: ignore[union-attr]
        assert not torch.equal(network.predict(sample, t, other), output), "the UNet ignores the image sizes"


def test_one_prompt_is_expanded_to_a_batch(xl: Path):
    one = load_diffusion(str(xl), resolution=32).null()
    many = one.expand(3)
    assert many.added is not None
    shapes = (many.embeddings.shape, many.added["text_embeds"].shape, many.added["time_ids"].shape)
    assert shapes == ((3, LENGTH, sum(WIDTHS)), (3, WIDTHS[1]), (3, 6))
    assert TextConditioning(one.embeddings).expand(2).added is None


def test_what_a_pipeline_is_its_index_says():
    clip, projected = ["transformers", "CLIPTextModel"], ["transformers", "CLIPTextModelWithProjection"]
    assert encoder_names({"text_encoder": clip}, "x") == ("text_encoder",)
    both = {"text_encoder": clip, "text_encoder_2": projected}
    assert encoder_names(both, "x") == ("text_encoder", "text_encoder_2")
    assert zero_null(both)
    assert not zero_null(both | {"force_zeros_for_empty_prompt": False})
    assert not zero_null({"text_encoder": clip})
    with pytest.raises(ValueError, match=r"x: model_index.json lists the text encoders \['text_encoder_2'\]"):
        encoder_names({"text_encoder": [None, None], "text_encoder_2": projected}, "x")
    with pytest.raises(ValueError, match="text_encoder is a T5EncoderModel, not a CLIPTextModel"):
        encoder_names({"text_encoder": ["transformers", "T5EncoderModel"]}, "x")


def test_parts_that_do_not_belong_together_are_named():
    """Breaks when a wrong text encoder or VAE is found only by a shape error in the middle of a run."""
    first, second, vae = text_config(16, 1), text_config(24, 1), dict(tiny_vae(1.0).config)
    plain = dict(tiny_unet(cross_attention_dim=16).config)
    added: dict[str, Any] = plain | {"cross_attention_dim": 40, "addition_embed_type": "text_time"}
    added |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 72}
    assert incompatibilities(plain, [first], vae) == []
    assert incompatibilities(added, [first, second], vae) == []
    for unet, encoders, its_vae, message in (
        (plain, [second], vae, "text encoders' width is 24, the UNet's cross_attention_dim 16"),
        (plain | {"cross_attention_dim": 40}, [first, second], vae, "is None, but there are 2 text encoders"),
        (added | {"cross_attention_dim": 16}, [first], vae, "is text_time, but there are 1 text encoders"),
        (added, [first, text_config(24, 1, projection_dim=8)], vae, "make 56, the UNet's projection_class"),
        (plain | {"addition_embed_type": "image"}, [first], vae, "addition_embed_type 'image' is not"),
        (plain, [first], vae | {"latents_mean": [0.1]}, "the VAE states latents_mean"),
        (plain, [first], vae | {"shift_factor": 0.5}, "the VAE states shift_factor"),
        (plain | {"time_cond_proj_dim": 8}, [first], vae, "the UNet takes time_cond_proj_dim"),
        (plain, [first], vae | {"latent_channels": 16}, r"are (4, 4), the VAE's latent_channels 16"),
    ):
        (found,) = incompatibilities(unet, encoders, its_vae)
        assert message in found
