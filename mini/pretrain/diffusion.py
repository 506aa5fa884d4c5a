"""The miniature's diffusion models: a text encoder and a UNet trained together, saved as a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mini.pretrain.loop import Average, batches, fit, photographs, to_tensor, write_card
from mini.pretrain.tokens import build_tokenizer
from mini.world import Scenes, captions

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def build_unet(channels: tuple[int, int], text_width: int) -> Any:
    """An untrained UNet2DConditionModel on 4x8x8 latents, attention at both resolutions."""
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


def build_text_encoder(width: int, layers: int, vocabulary: int, length: int) -> Any:
    """An untrained CLIPTextModel whose special tokens are the last two of the vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=length,
        projection_dim=width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def caption_tokens(tokenizer: Any, scenes: Scenes) -> tuple[torch.Tensor, np.ndarray]:
    """Token ids of both captions of every scene, (N, 2, length) int64, and the number of captions, (N,)."""
    texts = [captions(scenes, i) for i in range(len(scenes))]
    flat = [t for pair in texts for t in (pair[0], pair[-1])]
    ids = tokenizer(flat, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.reshape(len(scenes), 2, -1), np.array([len(t) for t in texts])


@torch.no_grad()
def encode(vae: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents of `images` (N, 3, H, W), each (N, 4, h, w)."""
    parts = [vae.encode(part).latent_dist for part in images.split(200)]
    return torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])


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
    out: Path,
    *,
    seed: int,
    channels: tuple[int, int],
    text: tuple[int, int],
    steps: int,
    batch: int,
    lr: float,
    paraphrases: bool = False,
    start: Path | None = None,
    n: int = 30000,
) -> None:
    """Train UNet and text encoder (width, layers) on the latents of `out`/vae; save the pipeline to `out`.

    AdamW at `lr` with cosine decay, from nothing or from the pipeline at `start` (which may be `out`);
    `paraphrases` draws between a scene's two captions, otherwise each scene has its first.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    earlier = (
        {} if start is None else {"start": json.loads((start / "CARD.json").read_text(encoding="utf-8"))}
    )
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    # One that is built anew may number a pair of tokens the other way round: its training breaks ties by chance.
    tokenizer = (
        build_tokenizer() if start is None else CLIPTokenizer.from_pretrained(start, subfolder="tokenizer")
    )
    moments, tokens, counts = [], [], []
    for shot in (0, 1):
        scenes, _, pictures = photographs("train", n, shot)
        moments.append(encode(vae, to_tensor(pictures)))
        ids, count = caption_tokens(tokenizer, scenes)
        tokens.append(ids)
        counts.append(count)
    mean, std = (torch.cat(parts) for parts in zip(*moments, strict=True))
    ids, count = torch.cat(tokens), np.concatenate(counts)
    null = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    if start is None:
        text_encoder = build_text_encoder(*text, vocabulary=len(tokenizer), length=tokenizer.model_max_length)
        unet = build_unet(channels, text[0])
    else:
        text_encoder = CLIPTextModel.from_pretrained(start, subfolder="text_encoder", dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32)
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=True, steps_offset=1)
    alphas, sigmas = scheduler.alphas_cumprod.sqrt(), (1 - scheduler.alphas_cumprod).sqrt()
    average = Average(unet, text_encoder)
    order = batches(len(mean), batch, steps, seed)
    generator = torch.Generator().manual_seed(seed)
    choice = np.random.default_rng(seed).random((steps, batch))

    def loss(step: int) -> torch.Tensor:
        index = order[step]
        latents = mean[index] + std[index] * torch.randn(mean[index].shape, generator=generator)
        other = paraphrases & (choice[step] >= 0.5) & (count[index] > 1)
        prompt = ids[index, torch.from_numpy(other.astype(np.int64))]
        dropped = torch.rand(batch, generator=generator) < 0.1
        prompt = torch.where(dropped[:, None], null, prompt)
        t, noised, target = velocity_batch(alphas, sigmas, latents, generator)
        states = text_encoder(prompt).last_hidden_state
        return F.mse_loss(unet(noised, t, states).sample, target)

    def after(step: int) -> None:
        average.update(step)
        if (step + 1) % 1000 == 0:
            average.swap()
            save_pipeline(out, vae, text_encoder, tokenizer, unet, scheduler)
            average.swap()

    parameters = [*unet.parameters(), *text_encoder.parameters()]
    seconds = fit(parameters, loss, steps, lr, name=str(out), after=after)
    average.swap()
    for module in (vae, unet, text_encoder):
        module.half()
    save_pipeline(out, vae, text_encoder, tokenizer, unet, scheduler)
    size = sum(p.numel() for p in unet.parameters()), sum(p.numel() for p in text_encoder.parameters())
    write_card(
        out,
        {
            "network": f"StableDiffusionPipeline: UNet {channels} of {size[0]}, text encoder of {size[1]} parameters",
            "recipe": "v-prediction, zero terminal SNR, AdamW with cosine decay, captions dropped 10%, "
            f"moving average .999, UNet and text encoder trained together, seed {seed}",
            "data": f"2 photographs of each of {n} scenes of the world's train split",
            "steps": f"{steps} of batch {batch} at {lr}{' with paraphrases' * paraphrases}",
            "cpu_seconds": round(seconds),
            "quality": {},
            **earlier,
        },
    )


def save_pipeline(
    out: Path, vae: Any, text_encoder: nn.Module, tokenizer: Any, unet: nn.Module, scheduler: Any
) -> None:
    """Save the parts as a StableDiffusionPipeline directory."""
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)
