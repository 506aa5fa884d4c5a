"""What is a diffusion network, how is it run, and how is it loaded from and saved as a pipeline directory?

Directories are Stable Diffusion or SDXL pipelines as diffusers saves them. Each part's folder holds its config.json
and its weights as safetensors, in one file or in shards with their index; where there are only files of the variant
`fp16` these are loaded. Parts are loaded one by one, so that a hub id, a mirror and a local directory are the same
thing here. Every network is float32 here whatever its files are.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from add.errors import InputError
from add.models.hub import local_directory
from add.models.text import (
    TOKENIZERS,
    TextConditioning,
    TextEncoders,
    encoder_names,
    incompatibilities,
    zero_null,
)
from add.models.weights import check_complete, weight_variant
from add.noise import NoiseSchedule, student_input, x0_from


@dataclass(frozen=True)
class DiffusionNetwork:
    """One pipeline's parts. `unet` alone is ever trained; the rest is frozen.

    resolution: pixels of the square images that it is run at, a property of the run; a network may have been
    trained at another (SDXL at 1024, as a student at 512). original_size, target_size: what SDXL is told of its
    images, in pixels; None for the resolution.

    Raises InputError where the parts do not belong together, where the VAE cannot have latents for that resolution,
    and for sizes of a network that takes none.
    """

    unet: Any
    vae: Any
    text: TextEncoders
    schedule: NoiseSchedule
    scheduler_config: dict[str, Any]
    resolution: int
    original_size: int | None = None
    target_size: int | None = None

    def __post_init__(self) -> None:
        keep_output_in_float32(self.unet)
        encoders = [encoder.config for encoder in self.text.encoders]
        wrong = incompatibilities(dict(self.unet.config), encoders, dict(self.vae.config))
        factor = downsampling(self.vae.config)
        if self.resolution % factor:
            wrong.append(f"resolution {self.resolution} is not a multiple of the VAE's factor {factor}")
        if len(encoders) == 1 and (self.original_size or self.target_size):
            wrong.append("original_size and target_size are told to SDXL alone; leave them out")
        if wrong:
            raise InputError("; ".join(wrong))

    def predict(self, x_t: Tensor, t: Tensor, text: TextConditioning) -> Tensor:
        """The UNet's raw output (B, C, h, w) at x_t (B, C, h, w), t long (B,), with the prompts' conditioning."""
        return unet_output(self.unet, x_t, t, text)

    def embed(self, prompts: Sequence[str]) -> TextConditioning:
        """The conditioning of B prompts, padded and truncated to the tokenizers' length."""
        return self.text.embed(prompts, *self.sizes)

    def null(self) -> TextConditioning:
        """The null conditioning of classifier-free guidance, for one image."""
        return self.text.null(*self.sizes)

    @property
    def sizes(self) -> tuple[int, int]:
        """Original and target size in pixels that SDXL is told."""
        return self.original_size or self.resolution, self.target_size or self.resolution

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]; the mean, or with `noise` a sample."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return latents * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] and not clipped, of scaled latents; differentiable."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of an image's latents at `resolution`."""
        side = self.resolution // downsampling(self.vae.config)
        return int(self.vae.config.latent_channels), side, side

    @property
    def device(self) -> torch.device:
        """The device that the network lives on. The VAE's: an unused UNet may have been released."""
        return next(self.vae.parameters()).device


class Float32Convolution(nn.Conv2d):
    """A convolution that computes in float32 under autocast too.

    A UNet's last one: x_0 = (x_t - sigma epsilon) / alpha magnifies the rounding of epsilon by 1 / alpha, 14.6 times
    at the last timestep of Stable Diffusion's schedule.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) of any dtype to (B, C', h, w) float32."""
        device = input.device.type
        known = torch.amp.is_autocast_available(device)  # `meta` has none
        with torch.autocast(device, enabled=False) if known else nullcontext():
            bias = None if self.bias is None else self.bias.float()
            return self._conv_forward(input.float(), self.weight.float(), bias)


def keep_output_in_float32(unet: Any) -> None:
    """Make a UNet's last convolution a `Float32Convolution`, in place; its weights and their names stay."""
    unet.conv_out.__class__ = Float32Convolution


def downsampling(vae: Mapping[str, Any]) -> int:
    """Pixels per latent position, along one side, of a VAE with this configuration."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def native_resolution(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Image side in pixels that a UNet with this configuration was trained for, from its `sample_size`."""
    return int(unet["sample_size"]) * downsampling(vae)


def check_one_vae(first: DiffusionNetwork, second: DiffusionNetwork) -> None:
    """Raise InputError where two networks that should share their latents encode images differently."""
    one, other = first.vae, second.vae
    keys = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "block_out_channels")
    differ = [key for key in keys if one.config.get(key) != other.config.get(key)]
    state, others = one.state_dict(), other.state_dict()
    # Decoders may differ: they are refined without moving the latents.
    encoder = [name for name in state if name.startswith(("encoder.", "quant_conv."))]
    if not differ and any(name not in others or not state[name].equal(others[name]) for name in encoder):
        differ = ["the encoder's weights"]
    if differ:
        raise InputError(
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
        keep_output_in_float32(unet)
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


STUDENT_FILE = "student.json"
_EXACT_LCM_SCALING = 1e6  # large enough that LCM's boundary terms c_skip, c_out are 0 and 1 in float32


def load_diffusion(
    path: str,
    device: str = "cpu",
    resolution: int | None = None,
    original_size: int | None = None,
    target_size: int | None = None,
) -> DiffusionNetwork:
    """Load the pipeline at `path` (directory or hub id) in float32, frozen, in eval mode.

    resolution: image side in pixels at which it runs; None for the UNet's own, from its `sample_size`. original_size,
    target_size: as `DiffusionNetwork` has them.
    float32 holds for the VAE in particular: SDXL's overflows in float16 (its config's `force_upcast`).

    Raises WeightsError or OSError where a part or some of its weights are missing, InputError for a pipeline of
    another kind, for parts that do not belong together, and for a scheduler config that cannot be used.
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
            original_size=original_size,
            target_size=target_size,
        )
    except ValueError as error:
        raise InputError(path, error) from error


def scheduler_config(directory: Path) -> dict[str, Any]:
    """The scheduler's configuration in a pipeline directory, whichever scheduler it names."""
    from diffusers import DDIMScheduler

    config, _ = DDIMScheduler.load_config(directory, subfolder="scheduler", return_unused_kwargs=True)
    return dict(config)


def sampling_timesteps(student_timesteps: Sequence[int], steps: int) -> list[int]:
    """The timesteps that a `steps`-step sample visits, descending: evenly spread, from the last one on.

    Of 249, 499, 749, 999: one step visits 999, two visit 999 and 499, four visit all. Raises InputError for more steps
    than timesteps.
    """
    descending = sorted(student_timesteps, reverse=True)
    if not 1 <= steps <= len(descending):
        raise InputError(
            f"{steps} sampling steps, but the student was trained at {len(descending)} timesteps"
        )
    return [descending[(i * len(descending)) // steps] for i in range(steps)]


def save_student(network: DiffusionNetwork, unet: Any, timesteps: Sequence[int], out: Path) -> None:
    """Save a diffusers pipeline directory that samples in 1 to N steps without this project.

    The scheduler is diffusers' LCMScheduler with its boundary terms switched off: predict x_0, re-noise to the
    next timestep, predict again, which is ADD's sampling (section 3). `student.json` names the timesteps for
    each number of steps; where they are evenly spaced the scheduler picks them by itself.
    """
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(
        **noise_settings(network),
        original_inference_steps=len(timesteps),
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_scaling=_EXACT_LCM_SCALING,
    )
    chosen = {k: sampling_timesteps(timesteps, k) for k in (1, 2, 4) if k <= len(timesteps)}
    save_pipeline(network, unet, scheduler, chosen, out)


def noise_settings(network: DiffusionNetwork) -> dict[str, Any]:
    """The part of the network's scheduler configuration that says how images are noised and what it predicts."""
    keep = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
    keep |= {"prediction_type", "rescale_betas_zero_snr"}
    return {key: value for key, value in network.scheduler_config.items() if key in keep}


def save_pipeline(
    network: DiffusionNetwork, unet: Any, scheduler: Any, timesteps: Mapping[int, Sequence[int]], out: Path
) -> None:
    """Save `unet` with the network's other parts and a diffusers scheduler; it is sampled without guidance.

    timesteps: by number of steps, those that a sample visits, descending; they go into `student.json`.
    """
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    # By default a pipeline samples at the resolution of training.
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
    chosen = {str(k): list(visited) for k, visited in timesteps.items()}
    note: dict[str, Any] = {"timesteps": chosen, "guidance_scale": 1.0}
    told = {"original_size": network.original_size, "target_size": network.target_size}
    note |= {name: size for name, size in told.items() if size is not None}
    (out / STUDENT_FILE).write_text(json.dumps(note, indent=2) + "\n")
