"""Student, teacher, VAE, text encoder: load them from pipeline directories, run them, save the student.

A diffusion network is a Stable Diffusion pipeline as diffusers saves it. Its parts are loaded one by one, so
that a hub id, a mirror and a local directory are the same thing here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from add.noise import NoiseSchedule, student_input, x0_from

STUDENT_FILE = "student.json"
_EXACT_LCM_SCALING = 1e6  # large enough that LCM's boundary terms c_skip, c_out are 0 and 1 in float32


@dataclass(frozen=True)
class DiffusionNetwork:
    """One pipeline's parts. `unet` alone is ever trained; the rest is frozen."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    schedule: NoiseSchedule
    scheduler_config: dict[str, Any]

    def predict(self, x_t: Tensor, t: Tensor, embeddings: Tensor) -> Tensor:
        """The UNet's raw output (B, C, h, w) at x_t (B, C, h, w), t long (B,), embeddings (B, L, D)."""
        return self.unet(x_t, t, embeddings).sample.to(x_t.dtype)

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (B, L, D) of prompts, padded and truncated to the tokenizer's length."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.no_grad():
            return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state

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
    def device(self) -> torch.device:
        """The device that the network lives on. The VAE's: an unused UNet may have been released."""
        return next(self.vae.parameters()).device


def load_diffusion(path: str, revision: str | None = None, device: str = "cpu") -> DiffusionNetwork:
    """Load the pipeline at `path` (directory or hub id) in float32, frozen, in eval mode.

    Raises OSError where a part is missing, ValueError where the scheduler's config cannot be used.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    where = {"revision": revision} if revision else {}

    def part(kind: Any, name: str, **options: Any) -> Any:
        module = kind.from_pretrained(path, subfolder=name, use_safetensors=True, **options, **where)
        return module.eval().requires_grad_(False).to(device)

    unet = part(UNet2DConditionModel, "unet", torch_dtype=torch.float32)
    config = _scheduler_config(path, revision)
    return DiffusionNetwork(
        unet=unet,
        vae=part(AutoencoderKL, "vae", torch_dtype=torch.float32),
        text_encoder=part(CLIPTextModel, "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **where),
        schedule=NoiseSchedule.from_scheduler(config).to(device),
        scheduler_config=config,
    )


def _scheduler_config(path: str, revision: str | None) -> dict[str, Any]:
    from diffusers import DDIMScheduler

    where = {"revision": revision} if revision else {}
    config, _ = DDIMScheduler.load_config(path, subfolder="scheduler", return_unused_kwargs=True, **where)
    return dict(config)


def trainable_unet(network: DiffusionNetwork, init: str, seed: int) -> Any:
    """A trainable float32 copy of the network's UNet: its weights (`pretrained`) or drawn anew (`random`)."""
    torch.manual_seed(seed)
    unet = type(network.unet).from_config(network.unet.config).to(network.device)
    if init == "pretrained":
        unet.load_state_dict(network.unet.state_dict())
    elif init != "random":
        raise ValueError(f"student_init {init!r} is neither 'pretrained' nor 'random'")
    # Diffusion UNets have no dropout here; eval mode states that a student's output is a function of its input.
    return unet.eval().requires_grad_(True)


def student_x0(
    network: DiffusionNetwork, unet: nn.Module, x0: Tensor, noise: Tensor, s: Tensor, text: Tensor
) -> Tensor:
    """The student's x_0 prediction (B, C, h, w) from x_s = alpha_s x_0 + sigma_s eps, s long (B,) (section 3).

    x0: latents of *real* images; at the last timestep the input is pure noise.
    """
    x_s = student_input(network.schedule, x0, noise, s)
    output = unet(x_s, s, text).sample.to(x_s.dtype)
    return x0_from(network.schedule, output, x_s, s)


def sampling_timesteps(student_timesteps: Sequence[int], steps: int) -> list[int]:
    """Which of the student's timesteps a `steps`-step sample visits, descending: evenly spread from the last.

    249/499/749/999 give 999 for one step, 999, 499 for two and all for four. Raises ValueError for more steps
    than timesteps.
    """
    descending = sorted(student_timesteps, reverse=True)
    if not 1 <= steps <= len(descending):
        raise ValueError(
            f"{steps} sampling steps, but the student was trained at {len(descending)} timesteps"
        )
    return [descending[(i * len(descending)) // steps] for i in range(steps)]


def save_student(network: DiffusionNetwork, unet: Any, timesteps: Sequence[int], out: Path) -> None:
    """Save a diffusers pipeline directory that anyone samples in 1 to N steps, without this project.

    The scheduler is diffusers' LCMScheduler with its boundary terms switched off: predict x_0, re-noise to the
    next timestep, predict again, which is ADD's sampling (section 3). `student.json` names the timesteps for
    each number of steps; where they are evenly spaced the scheduler picks them by itself.
    """
    from diffusers import LCMScheduler, StableDiffusionPipeline

    keep = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
    keep |= {"prediction_type", "rescale_betas_zero_snr"}
    config = {key: value for key, value in network.scheduler_config.items() if key in keep}
    scheduler = LCMScheduler(
        **config,
        original_inference_steps=len(timesteps),
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_scaling=_EXACT_LCM_SCALING,
    )
    pipeline = StableDiffusionPipeline(
        vae=network.vae,
        text_encoder=network.text_encoder,
        tokenizer=network.tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out)
    chosen = {str(k): sampling_timesteps(timesteps, k) for k in (1, 2, 4) if k <= len(timesteps)}
    (out / STUDENT_FILE).write_text(json.dumps({"timesteps": chosen, "guidance_scale": 1.0}, indent=2) + "\n")
