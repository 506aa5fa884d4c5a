"""The miniature's VAEs: AutoencoderKL, 32x32 pixels to 8x8x4 latents of zero mean and unit variance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mini.pretrain.loop import Average, batches, fit, gaussian_blur, photographs, to_tensor, write_card


def build(channels: tuple[int, int, int] = (16, 32, 64), groups: int = 8) -> Any:
    """An untrained AutoencoderKL, down-sampling by four; 0.68M parameters with the channels of the miniature."""
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


@torch.no_grad()
def fold_normalisation(vae: Any, latents: torch.Tensor) -> None:
    """Make the latents of `vae` zero-mean and unit-variance per channel, exactly, by its 1x1 convolutions.

    `latents` (N, C, h, w) is a sample of the present ones. Every pipeline then works with a scaling factor
    of one, though the channels' raw deviations differ several times over.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= std[None, :, None, None]


@torch.no_grad()
def psnr(vae: Any, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the reconstructed `images` (N, 3, H, W) in [-1, 1], mean of images."""
    error = []
    for part in images.split(100):
        out = vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        error.append((out - part).square().mean((1, 2, 3)))
    return float((10 * torch.log10(4 / torch.cat(error))).mean())


def _save(out: Path, vae: Any, images: torch.Tensor, held_out: torch.Tensor) -> dict[str, Any]:
    """Normalise the latents by those of `images`, save as float16; returns the quality on `held_out`."""
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        latents = torch.cat([vae.encode(p).latent_dist.mode() for p in images[:4000].split(200)])
    fold_normalisation(vae, latents)
    quality = {"psnr_db": round(psnr(vae, held_out), 2), "images": len(held_out)}
    vae.half().to(memory_format=torch.contiguous_format).save_pretrained(out)
    return quality


def train(
    out: Path, *, seed: int, steps: int = 6000, batch: int = 32, lr: float = 2e-3, n: int = 30000
) -> None:
    """Train one VAE (MSE + 0.09 L1 + 2e-5 KL) and save it to `out` with its card."""
    torch.manual_seed(seed)
    images = to_tensor(photographs("train", n)[2])
    held_out = to_tensor(photographs("val", 1000)[2])
    vae = build().to(memory_format=torch.channels_last)
    average = Average(vae, decay=0.995)
    order = batches(n, batch, steps, seed)

    def loss(step: int) -> torch.Tensor:
        x = images[order[step]].contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        difference = vae.decode(posterior.sample()).sample - x
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return difference.square().mean() + 0.09 * difference.abs().mean() + 2e-5 * kl

    def after(step: int) -> None:
        average.update(step)
        if (step + 1) % 1000 == 0:
            print(f"\n{out} step {step + 1}: {psnr(vae, held_out[:200]):.2f} dB", flush=True)

    seconds = fit(vae.parameters(), loss, steps, lr, name=str(out), after=after)
    average.swap()
    quality = _save(out, vae, images, held_out)
    recipe = f"AdamW {lr} cosine, batch {batch}, MSE + 0.09 L1 + 2e-5 KL, moving average .995, seed {seed}"
    write_card(
        out,
        {
            "network": "AutoencoderKL, channels 16-32-64, 4x8x8 latents normalised per channel",
            "recipe": recipe,
            "data": f"{n} photographs of the world's train split",
            "steps": steps,
            "cpu_seconds": round(seconds),
            "quality": quality,
        },
    )
    print(f"{out}: {quality}", flush=True)


def object_weights(images: torch.Tensor, emphasis: float) -> torch.Tensor:
    """Where a picture's objects are: weights (N, 1, H, W) of mean one for images (N, 3, H, W).

    A pixel counts 1 + emphasis * (its contrast with its surroundings, over the picture's largest), so that a small
    pale object counts as much as a large bright one.
    """
    n = len(images)
    contrast = (images - gaussian_blur(images, torch.full((n,), 3.0))).abs().mean(1, keepdim=True)
    contrast = gaussian_blur(contrast, torch.ones(n))
    weights = 1 + emphasis * contrast / contrast.amax((2, 3), keepdim=True)
    return weights / weights.mean((1, 2, 3), keepdim=True)


def refine(
    out: Path,
    *,
    seed: int,
    steps: int = 2600,
    batch: int = 32,
    lr: float = 1.2e-3,
    emphasis: float = 12.0,
    n: int = 30000,
) -> None:
    """Train the VAE at `out` on, with errors weighted by `object_weights`, and save it in its place with its card.

    The mean squared error alone spends the latents on the background's texture: one small cross in twenty came
    back as a diamond.
    """
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    earlier = json.loads((out / "CARD.json").read_text(encoding="utf-8"))
    vae = AutoencoderKL.from_pretrained(out, torch_dtype=torch.float32).to(memory_format=torch.channels_last)
    images = to_tensor(photographs("train", n)[2])
    held_out = to_tensor(photographs("val", 1000)[2])
    average = Average(vae, decay=0.995)
    order = batches(n, batch, steps, seed)

    def loss(step: int) -> torch.Tensor:
        x = images[order[step]].contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        difference = vae.decode(posterior.sample()).sample - x
        weights = object_weights(x, emphasis)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return (weights * (difference.square() + 0.09 * difference.abs())).mean() + 5e-6 * kl

    seconds = fit(vae.parameters(), loss, steps, lr, name=str(out), after=average.update)
    average.swap()
    quality = _save(out, vae, images, held_out)
    write_card(
        out,
        {
            "network": earlier["network"],
            "recipe": f"AdamW {lr} cosine, batch {batch}, MSE + 0.09 L1, both weighted towards objects by "
            f"{emphasis:g}, + 5e-6 KL, moving average .995, seed {seed}",
            "data": f"{n} photographs of the world's train split",
            "steps": steps,
            "cpu_seconds": round(seconds),
            "quality": quality,
            "start": earlier,
        },
    )
    print(f"{out}: {quality}", flush=True)
