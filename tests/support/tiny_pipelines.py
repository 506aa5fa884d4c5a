"""Tiny pipelines in the published format: two text encoders, vocabulary files, Euler or PNDM scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from add.config.run import Run
from tests.support.smoke import smoke_run

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WIDTHS = (16, 24)
LENGTH = 12
SAMPLE_SIZE = 16
"""The UNets' size in latents, which is 64 pixels. Runs are at 32, as SDXL's are at 512 though it was made for 1024."""


def write_tokenizer(folder: Path, pad_token: str) -> CLIPTokenizer:
    """Write the tokenizer files that the hub has, without a tokenizer.json."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["re", "red</w>"]
    tokens = [*letters, *(f"{x}</w>" for x in letters), *words, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad_token}
    (folder / "special_tokens_map.json").write_text(json.dumps(special | {"unk_token": "<|endoftext|>"}))
    config = special | {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


def text_config(width: int, layers: int, **changes: Any) -> CLIPTextConfig:
    """A config with the published token ids: eos 2 makes transformers pool at the highest id."""
    return CLIPTextConfig(
        vocab_size=516,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        **({"projection_dim": width} | changes),
    )


def tiny_vae(scaling_factor: float) -> AutoencoderKL:
    """An AutoencoderKL with 4 pixels per latent."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scaling_factor,
    )


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    """A UNet of two levels, of which the second has attention, as SDXL's first two."""
    settings: dict[str, Any] = {
        "sample_size": SAMPLE_SIZE,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "norm_num_groups": 8,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**(settings | changes))


def write_sd(out: Path, prediction: str = "epsilon", **saving: Any) -> Path:
    """A tiny StableDiffusionPipeline, untrained."""
    torch.manual_seed(1)
    StableDiffusionPipeline(
        vae=tiny_vae(0.18215),
        text_encoder=CLIPTextModel(text_config(WIDTHS[0], 2)),
        tokenizer=write_tokenizer(out.with_name(f"{out.name}-tokenizer"), "<|endoftext|>"),
        unet=tiny_unet(cross_attention_dim=WIDTHS[0]),
        scheduler=PNDMScheduler(**BETAS, prediction_type=prediction, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out, **saving)
    return out


def xl_pipeline(folder: Path, prediction: str = "epsilon", **unet: Any) -> StableDiffusionXLPipeline:
    """A tiny StableDiffusionXLPipeline, untrained; its tokenizers are written to `folder`."""
    torch.manual_seed(2)
    return StableDiffusionXLPipeline(
        vae=tiny_vae(0.13025),
        text_encoder=CLIPTextModel(text_config(WIDTHS[0], 2, hidden_act="quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(text_config(WIDTHS[1], 3, hidden_act="gelu")),
        tokenizer=write_tokenizer(folder / "first", "<|endoftext|>"),
        tokenizer_2=write_tokenizer(folder / "second", "!"),
        unet=tiny_unet(
            **{
                "cross_attention_dim": sum(WIDTHS),
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 6 * 8 + WIDTHS[1],
                "transformer_layers_per_block": (1, 2),
                **unet,
            }
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, prediction_type=prediction, steps_offset=1),
        add_watermarker=False,
    )


def write_xl(out: Path, prediction: str = "epsilon", **saving: Any) -> Path:
    """A tiny StableDiffusionXLPipeline saved to `out`."""
    xl_pipeline(out.with_name(f"{out.name}-tokenizers"), prediction).save_pretrained(out, **saving)
    return out


def tiny_run(student: Path, teacher: Path, space: str = "pixel", **training: Any) -> Run:
    """A run of the smoke scale with these networks, at 32 pixels unless `resolution` says otherwise."""
    run = smoke_run(**({"resolution": 32, "steps": 2, "log_every": 1} | training))
    values = run.model_dump()
    names = {"student": student, "teacher": teacher}
    values["networks"]["diffusion"] = {
        key: {"path": str(path), "family": key, "latents": path.name} for key, path in names.items()
    }
    if student == teacher:
        del values["networks"]["diffusion"]["teacher"]
    values["variant"] |= {"student": "student", "teacher": "student" if student == teacher else "teacher"}
    values["variant"]["loss"]["space"] = space
    return Run.model_validate_json(json.dumps(values))
