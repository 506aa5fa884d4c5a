"""Student, teacher, VAE, text encoders: what a diffusion network is, and how it is run.

`add.pipelines` loads one from a pipeline directory and saves a student as one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from add.noise import NoiseSchedule, student_input, x0_from
from add.text import TextConditioning, TextEncoders, misfits


@dataclass(frozen=True)
class DiffusionNetwork:
    """One pipeline's parts. `unet` alone is ever trained; the rest is frozen.

    resolution: pixels of the square images that it is run at, a property of the run; a network may have been
    trained at another (SDXL at 1024, as a student at 512).

    Raises ValueError where the parts do not belong together, or the VAE's latents cannot have that resolution.
    """

    unet: Any
    vae: Any
    text: TextEncoders
    schedule: NoiseSchedule
    scheduler_config: dict[str, Any]
    resolution: int

    def __post_init__(self) -> None:
        encoders = [encoder.config for encoder in self.text.encoders]
        wrong = misfits(dict(self.unet.config), encoders, dict(self.vae.config))
        factor = downsampling(self.vae.config)
        if self.resolution % factor:
            wrong.append(f"resolution {self.resolution} is not a multiple of the VAE's factor {factor}")
        if wrong:
            raise ValueError("; ".join(wrong))

    def predict(self, x_t: Tensor, t: Tensor, text: TextConditioning) -> Tensor:
        """The UNet's raw output (B, C, h, w) at x_t (B, C, h, w), t long (B,), with the prompts' conditioning."""
        return unet_output(self.unet, x_t, t, text)

    def embed(self, prompts: Sequence[str]) -> TextConditioning:
        """The conditioning of B prompts, padded and truncated to the tokenizers' length."""
        return self.text.embed(prompts, self.resolution)

    def null(self) -> TextConditioning:
        """The null conditioning of classifier-free guidance, for one image."""
        return self.text.null(self.resolution)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]; the mean, or with `noise` a sample."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return (latents - self.shift) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] and not clipped, of scaled latents; differentiable."""
        return self.vae.decode(latents / self.vae.config.scaling_factor + self.shift).sample

    @property
    def shift(self) -> float:
        """The VAE's latent shift, zero for those of Stable Diffusion."""
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of an image's latents at `resolution`."""
        side = self.resolution // downsampling(self.vae.config)
        return int(self.vae.config.latent_channels), side, side

    @property
    def device(self) -> torch.device:
        """The device that the network lives on. The VAE's: an unused UNet may have been released."""
        return next(self.vae.parameters()).device


def downsampling(vae: Mapping[str, Any]) -> int:
    """How many pixels, along a side, a latent of a VAE of this configuration stands for."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def native_resolution(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Pixels of the images that a UNet of this configuration was made for, by its `sample_size`."""
    return int(unet["sample_size"]) * downsampling(vae)


def check_one_vae(first: DiffusionNetwork, second: DiffusionNetwork) -> None:
    """Raise ValueError where two networks that are said to share their latents encode images differently."""
    one, other = first.vae, second.vae
    keys = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "block_out_channels")
    differ = [key for key in keys if one.config.get(key) != other.config.get(key)]
    state, others = one.state_dict(), other.state_dict()
    # Decoders may differ: they are refined without moving the latents.
    encoder = [name for name in state if name.startswith(("encoder.", "quant_conv."))]
    if not differ and any(name not in others or not state[name].equal(others[name]) for name in encoder):
        differ = ["the encoder's weights"]
    if differ:
        raise ValueError(
            "student and teacher have equal `latents` in the scale, but the VAEs differ in"
            f" {', '.join(differ)}: their latents do not compare; give them different names"
        )


def unet_output(unet: nn.Module, x_t: Tensor, t: Tensor, text: TextConditioning) -> Tensor:
    """A UNet's raw output (B, C, h, w) at x_t (B, C, h, w), t long (B,), in the dtype of x_t."""
    return unet(x_t, t, text.embeddings, added_cond_kwargs=text.added).sample.to(x_t.dtype)


def trainable_unet(network: DiffusionNetwork, init: str, seed: int) -> Any:
    """A trainable float32 copy of the network's UNet: its weights (`pretrained`) or drawn anew (`random`)."""
    if init == "pretrained":
        unet = copy.deepcopy(network.unet)
    elif init == "random":
        torch.manual_seed(seed)
        unet = type(network.unet).from_config(network.unet.config).to(network.device)
    else:
        raise ValueError(f"student_init {init!r} is neither 'pretrained' nor 'random'")
    # Diffusion UNets have no dropout here; eval mode states that a student's output is a function of its input.
    return unet.eval().requires_grad_(True)


def student_x0(
    network: DiffusionNetwork, unet: nn.Module, x0: Tensor, noise: Tensor, s: Tensor, text: TextConditioning
) -> Tensor:
    """The student's x_0 prediction (B, C, h, w) from x_s = alpha_s x_0 + sigma_s eps, s long (B,) (section 3).

    x0: latents of *real* images; at the last timestep the input is pure noise.
    """
    x_s = student_input(network.schedule, x0, noise, s)
    return x0_from(network.schedule, unet_output(unet, x_s, s, text), x_s, s)
