"""Pipeline directories: a diffusion network is loaded from one, a student is saved as one.

A Stable Diffusion or SDXL pipeline as diffusers saves it. Its parts are loaded one by one, so that a hub id, a
mirror and a local directory are the same thing here. Each part's folder holds its config.json and its weights as
safetensors, in one file or in shards with their index; where there are only files of the variant `fp16` these are
loaded. Every network is float32 here whatever its files are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from add.networks import DiffusionNetwork, downsampling, native_resolution
from add.noise import NoiseSchedule
from add.text import TOKENIZERS, TextEncoders, encoder_names, zero_null
from add.weights import check_complete, local_directory, weight_variant

STUDENT_FILE = "student.json"
_EXACT_LCM_SCALING = 1e6  # large enough that LCM's boundary terms c_skip, c_out are 0 and 1 in float32


def load_diffusion(path: str, device: str = "cpu", resolution: int | None = None) -> DiffusionNetwork:
    """Load the pipeline at `path` (directory or hub id) in float32, frozen, in eval mode.

    resolution: pixels of the images that it is run at; None for those that its UNet's `sample_size` means.
    float32 holds for the VAE in particular: SDXL's overflows in float16 (its config's `force_upcast`).

    Raises WeightsError or OSError where a part or some of its weights are missing, ValueError for a pipeline of
    another kind, parts that do not belong together, and a scheduler config that cannot be used.
    """
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    directory = local_directory(path)
    index = DiffusionPipeline.load_config(directory)
    names = encoder_names(index, path)

    def part(kind: Any, name: str, **options: Any) -> Any:
        module, report = kind.from_pretrained(
            directory,
            subfolder=name,
            use_safetensors=True,
            variant=weight_variant(directory / name),
            output_loading_info=True,
            **options,
        )
        check_complete(report["missing_keys"], f"{path}/{name}")
        return module.eval().requires_grad_(False).to(device)

    unet = part(UNet2DConditionModel, "unet", torch_dtype=torch.float32)
    vae = part(AutoencoderKL, "vae", torch_dtype=torch.float32)
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    encoders = [part(kind, name, dtype=torch.float32) for kind, name in zip(kinds, names, strict=False)]
    tokenizers = [CLIPTokenizer.from_pretrained(directory, subfolder=t) for t in TOKENIZERS[: len(names)]]
    scheduler = scheduler_config(directory)
    try:
        return DiffusionNetwork(
            unet=unet,
            vae=vae,
            text=TextEncoders(tuple(encoders), tuple(tokenizers), zero_null(index)),
            schedule=NoiseSchedule.from_scheduler(scheduler).to(device),
            scheduler_config=scheduler,
            resolution=resolution or native_resolution(unet.config, vae.config),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def scheduler_config(directory: Path) -> dict[str, Any]:
    """The scheduler's configuration in a pipeline directory, whichever scheduler it names."""
    from diffusers import DDIMScheduler

    config, _ = DDIMScheduler.load_config(directory, subfolder="scheduler", return_unused_kwargs=True)
    return dict(config)


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
    from diffusers import LCMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

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
    # What a pipeline samples by default is what the student was trained at.
    unet.register_to_config(sample_size=network.resolution // downsampling(network.vae.config))
    (encoder, *second), (tokenizer, *other) = network.text.encoders, network.text.tokenizers
    parts = {
        "vae": network.vae,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": scheduler,
        "feature_extractor": None,
    }
    pipeline: Any
    if second:
        parts |= {"text_encoder_2": second[0], "tokenizer_2": other[0]}
        zeros = network.text.zero_null
        pipeline = StableDiffusionXLPipeline(
            **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
        )
    else:
        pipeline = StableDiffusionPipeline(**parts, safety_checker=None, requires_safety_checker=False)
    pipeline.save_pretrained(out)
    chosen = {str(k): sampling_timesteps(timesteps, k) for k in (1, 2, 4) if k <= len(timesteps)}
    (out / STUDENT_FILE).write_text(json.dumps({"timesteps": chosen, "guidance_scale": 1.0}, indent=2) + "\n")
