"""The miniature's VAEs: AutoencoderKL, 32x32 pixels to 8x8x4 latents of zero mean and unit variance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from add.batch import to_tensor
from mini.pretrain.loop import Recipe, fit, gaussian_blur, photographs, write_card


def build(channels: tuple[int, int, int] = (16, 32, 64), groups: int = 8) -> Any:
    """An untrained AutoencoderKL that downsamples by four; 0.68M parameters with the miniature's channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=groups,
        sample_size=32,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def train(recipe: Recipe) -> None:
    """Train a VAE (MSE + 0.09 L1 + 2e-5 KL) and save it with its card."""
    torch.manual_seed(recipe.seed)

    def error(x: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
        return difference.square().mean() + 0.09 * difference.abs().mean()

    network = "AutoencoderKL, channels 16-32-64, 4x8x8 latents normalised per channel"
    _fit(recipe, build(), error, 2e-5, "MSE + 0.09 L1 + 2e-5 KL", network=network)


def refine(recipe: Recipe, start: Path, emphasis: float = 12.0) -> None:
    """Continue the training of the VAE at `start` with errors weighted by `object_weights`.

    The mean squared error alone spends the latents on the background's texture: one small cross in twenty came back
    as a diamond.
    """
    from diffusers import AutoencoderKL

    torch.manual_seed(recipe.seed)
    earlier = json.loads((start / "CARD.json").read_text(encoding="utf-8"))
    vae = AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32)

    def error(x: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
        return (object_weights(x, emphasis) * (difference.square() + 0.09 * difference.abs())).mean()

    terms = f"MSE + 0.09 L1, both weighted towards objects by {emphasis:g}, + 5e-6 KL"
    _fit(recipe, vae, error, 5e-6, terms, {"start": start}, network=earlier["network"], start=earlier)


def _fit(
    recipe: Recipe,
    vae: Any,
    error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    kl_weight: float,
    terms: str,
    networks: Mapping[str, Path] | None = None,
    **card: Any,
) -> None:
    """Minimise `error(images, reconstructions - images)` plus weighted KL; save the VAE as float16 with its card."""
    images = to_tensor(photographs("train", recipe.n)[2])
    held_out = to_tensor(photographs("val", 1000)[2])
    vae = vae.to(memory_format=torch.channels_last)

    def loss(index: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        x = images[index].contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        difference = vae.decode(posterior.sample(generator)).sample - x
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return error(x, difference) + kl_weight * kl

    def report() -> None:
        print(f"\n{recipe.out}: {psnr(vae, held_out[:200]):.2f} dB", flush=True)

    seconds = fit(recipe, [vae], loss, decay=0.995, every_thousand=report, networks=networks)
    vae.eval().requires_grad_(False)
    fold_normalisation(vae, encode(vae, images[:4000])[0])
    quality = {"psnr_db": round(psnr(vae, held_out), 2), "images": len(held_out)}
    vae.half().to(memory_format=torch.contiguous_format).save_pretrained(recipe.out)
    how = f"{recipe}, {terms}, moving average .995, seed {recipe.seed}"
    data = f"{recipe.n} photographs of the world's train split"
    write_card(recipe.out, recipe, seconds, how=how, data=data, quality=quality, **card)


def object_weights(images: torch.Tensor, emphasis: float) -> torch.Tensor:
    """Weights (N, 1, H, W) of mean one that are large where the objects of images (N, 3, H, W) are.

    A pixel counts 1 + emphasis * (its contrast with its surroundings / the picture's largest contrast), so a small
    pale object counts as much as a large bright one.
    """
    n = len(images)
    contrast = (images - gaussian_blur(images, torch.full((n,), 3.0))).abs().mean(1, keepdim=True)
    contrast = gaussian_blur(contrast, torch.ones(n))
    weights = 1 + emphasis * contrast / contrast.amax((2, 3), keepdim=True)
    return weights / weights.mean((1, 2, 3), keepdim=True)


@torch.no_grad()
def encode(vae: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents of `images` (N, 3, H, W), each (N, 4, h, w)."""
    parts = [vae.encode(part).latent_dist for part in images.split(200)]
    return torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])


@torch.no_grad()
def reconstruct(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """`images` (N, 3, H, W) in [-1, 1], encoded to the mean of their latents and decoded."""
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in images.split(200)]
    return torch.cat(parts).clamp_(-1, 1)


def psnr(vae: Any, images: torch.Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of the reconstructions of `images` (N, 3, H, W) in [-1, 1]."""
    error = (reconstruct(vae, images) - images).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


@torch.no_grad()
def fold_normalisation(vae: Any, latents: torch.Tensor) -> None:
    """Make the latents of `vae` zero-mean and unit-variance per channel, exactly, by its 1x1 convolutions.

    `latents` (N, C, h, w) is a sample of the latents so far. Every pipeline then works with a scaling factor of one,
    although the channels' raw deviations differ several times over.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= std[None, :, None, None]
