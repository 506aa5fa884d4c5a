"""The miniature's diffusion models: a tokenizer, and a text encoder and a UNet trained together, as a pipeline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from add.batch import to_tensor
from mini.pretrain.loop import Recipe, fit, photographs, write_card
from mini.pretrain.vae import encode
from mini.world import Scenes, captions, draw_scenes

MAX_LENGTH = 16  # the longest caption has 13 words, and two tokens enclose it
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in order, after which each of `words` (ASCII) is one token that ends in `</w>`.

    The most frequent pair of neighbours is merged next, the alphabetically first one among equals. (The `tokenizers`
    trainer breaks such ties at random, so two builds could number two words in opposite order.)
    """
    parts = [[*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in parts for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        parts = [_merged(word, best) for word in parts]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for token in word:
        # A token merged just now is longer than the pair's first half, so it is not merged again.
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def build_tokenizer() -> Any:
    """A CLIPTokenizer (byte-level BPE): each word of the world is one token, any other text splits into bytes."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    scenes = draw_scenes("train", 4000)
    merges = learn_merges(word for i in range(len(scenes)) for c in captions(scenes, i) for word in c.split())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(tokens), _BOS, _EOS])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def caption_tokens(tokenizer: Any, scenes: Scenes) -> torch.Tensor:
    """Token ids of the caption and the paraphrase of each scene, (N, 2, length) int64; equal if it has only one."""
    texts = [captions(scenes, i) for i in range(len(scenes))]
    flat = [t for pair in texts for t in (pair[0], pair[-1])]
    ids = tokenizer(flat, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.reshape(len(scenes), 2, -1)


def text_settings(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """Arguments of a CLIPTextConfig whose special tokens are the last two of the vocabulary."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "projection_dim": width,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def build_text_encoder(width: int, layers: int, vocabulary: int) -> Any:
    """An untrained CLIPTextModel."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**text_settings(width, layers, vocabulary)))


def build_unet(channels: tuple[int, int], text_width: int) -> Any:
    """An untrained UNet2DConditionModel on 4x8x8 latents, with attention at both resolutions."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_scheduler() -> Any:
    """The DDIMScheduler of all pipelines: v-prediction, zero terminal SNR."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def save_pipeline(out: Path, vae: Any, text_encoder: nn.Module, tokenizer: Any, unet: nn.Module) -> None:
    """Save the parts, with the scheduler, as a StableDiffusionPipeline directory."""
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)


def velocity_batch(
    alphas: torch.Tensor, sigmas: torch.Tensor, latents: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stratified timesteps, noised latents and the v target (alpha eps - sigma x_0) of one batch."""
    n = len(latents)
    u = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
    t = (u * len(alphas)).long()[torch.randperm(n, generator=generator)]
    a, s = alphas[t].view(-1, 1, 1, 1), sigmas[t].view(-1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    return t, a * latents + s * noise, a * noise - s * latents


def train(
    recipe: Recipe,
    *,
    channels: tuple[int, int],
    text: tuple[int, int],
    paraphrases: bool = False,
    resume: bool = False,
) -> None:
    """Train a UNet and a text encoder (width, layers) on the latents of recipe.out/vae; save the pipeline.

    resume: start from the pipeline at recipe.out instead of from nothing. paraphrases: draw one of a scene's two
    captions instead of taking the first.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    out = recipe.out
    torch.manual_seed(recipe.seed)
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    if resume:
        earlier = {"start": json.loads((out / "CARD.json").read_text(encoding="utf-8"))}
        # A tokenizer built anew may number two tokens differently from the one that this text encoder learnt with.
        tokenizer = CLIPTokenizer.from_pretrained(out, subfolder="tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(out, subfolder="text_encoder", dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(out, subfolder="unet", torch_dtype=torch.float32)
    else:
        earlier, tokenizer = {}, build_tokenizer()
        text_encoder, unet = build_text_encoder(*text, len(tokenizer)), build_unet(channels, text[0])
    shots = [photographs("train", recipe.n, shot) for shot in (0, 1)]
    ids = caption_tokens(tokenizer, shots[0][0])  # both photographs of a scene have its captions
    null = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    moments = [encode(vae, to_tensor(pictures)) for _, _, pictures in shots]
    mean, std = (torch.cat(parts) for parts in zip(*moments, strict=True))
    alphas_cumprod = build_scheduler().alphas_cumprod
    alphas, sigmas = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()

    def loss(index: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        latents = mean[index] + std[index] * torch.randn(mean[index].shape, generator=generator)
        other = (torch.rand(recipe.batch, generator=generator) >= 0.5).long() * paraphrases
        prompt = ids[index % recipe.n, other]
        dropped = torch.rand(recipe.batch, generator=generator) < 0.1
        prompt = torch.where(dropped[:, None], null, prompt)
        t, noised, target = velocity_batch(alphas, sigmas, latents, generator)
        states = text_encoder(prompt).last_hidden_state
        return F.mse_loss(unet(noised, t, states).sample, target)

    def save() -> None:
        save_pipeline(out, vae, text_encoder, tokenizer, unet)

    seconds = fit(recipe, [unet, text_encoder], loss, images=len(mean), decay=0.999, every_thousand=save)
    for module in (vae, unet, text_encoder):
        module.half()
    save()
    size = [sum(p.numel() for p in module.parameters()) for module in (unet, text_encoder)]
    write_card(
        out,
        recipe,
        seconds,
        network=f"StableDiffusionPipeline: UNet {channels} of {size[0]}, text encoder of {size[1]} parameters",
        how="v-prediction, zero terminal SNR, AdamW with cosine decay, captions dropped 10%, "
        f"moving average .999, UNet and text encoder trained together, seed {recipe.seed}",
        data=f"2 photographs of each of {recipe.n} scenes of the world's train split",
        steps=f"{recipe.steps} of batch {recipe.batch} at {recipe.lr}{' with paraphrases' * paraphrases}",
        quality={},
        **earlier,
    )
