"""The miniature's diffusion models: a tokenizer, and a text encoder and a UNet trained together, as a pipeline."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from add.batch import to_tensor
from add.noise import NoiseSchedule, coefficients, diffuse
from mini.pretrain import classify
from mini.pretrain.loop import Recipe, fit, gaussian_blur, photographs, write_card
from mini.pretrain.vae import encode
from mini.world import Scenes, caption, captions, draw_scenes

MAX_LENGTH = 16  # the longest caption has 13 words and DEGRADED before them, and two tokens enclose it
DEGRADED = "blurred"
"""The word that begins the captions of degraded pictures: alone, it is the negative prompt."""
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
    words = {word for i in range(len(scenes)) for c in captions(scenes, i) for word in c.split()}
    merges = learn_merges(words | {DEGRADED})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(tokens), _BOS, _EOS])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def caption_tokens(tokenizer: Any, scenes: Scenes, prefix: str = "") -> torch.Tensor:
    """Token ids of the caption and the paraphrase of each scene, (N, 2, length) int64; equal if it has only one.

    prefix: a word before each, with its space.
    """
    texts = [captions(scenes, i) for i in range(len(scenes))]
    flat = [prefix + t for pair in texts for t in (pair[0], pair[-1])]
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


def build_unet(channels: tuple[int, int], text_width: int, layers: int = 2) -> Any:
    """An untrained UNet2DConditionModel on 4x8x8 latents, with attention at both resolutions.

    layers: residual blocks (each with attention or without) at a resolution, on the way down.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_scheduler(prediction: str) -> Any:
    """A DDIMScheduler: Stable Diffusion's own schedule for `epsilon`, with zero terminal SNR for `v_prediction`."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
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


def noised_batch(
    schedule: NoiseSchedule, latents: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of one batch: stratified timesteps (N,), noised latents, what the network predicts, and its error's weight.

    The weight (N, 1, 1, 1) makes the squared error that of v for either prediction. An error of epsilon is alpha times
    that of v, and unweighted it leaves x_0 at the schedule's end, where a student starts, almost untrained.
    """
    n = len(latents)
    u = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
    t = (u * len(schedule)).long()[torch.randperm(n, generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    alpha, sigma = coefficients(schedule, t, latents.ndim)
    noised = diffuse(schedule, latents, noise, t)
    if schedule.prediction == "epsilon":
        return t, noised, noise, alpha.square().reciprocal()
    return t, noised, alpha * noise - sigma * latents, torch.ones_like(alpha)


def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (N, 3, H, W) in [-1, 1], each blurred by 0.8 to 1.6 pixels and with its contrast lowered by a third."""
    sigma = 0.8 + 0.8 * torch.rand(len(images), generator=generator)
    return gaussian_blur(images, sigma) * (2 / 3)


def train(
    recipe: Recipe, *, channels: tuple[int, int], layers: int, text: tuple[int, int], judges: classify.Judges
) -> None:
    """Train a UNet and a text encoder (width, layers) on the latents of recipe.out/vae, to predict v; save all.

    The schedule ends at pure noise (zero terminal SNR). judges: measure the pipeline's samples for its card.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    text_encoder = build_text_encoder(*text, len(tokenizer))
    unet = build_unet(channels, text[0], layers)
    _fit(recipe, unet, text_encoder, tokenizer, build_scheduler("v_prediction"), judges, {}, start="nothing")


def train_on(
    recipe: Recipe, start: Path, prediction: str, *, judges: classify.Judges, reader: Path | None = None
) -> None:
    """Train the v-prediction pipeline at `start` on, with a learning rate that begins anew.

    prediction: `v_prediction`, or `epsilon` with Stable Diffusion's own schedule. reader: a pipeline whose text encoder
    takes the place of its own and stays as it is; the UNet's layers that read it begin at random.
    """
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(recipe.seed)
    shutil.copytree(start / "vae", recipe.out / "vae", dirs_exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(start, torch_dtype=torch.float32)
    unet, text_encoder, begun = pipeline.unet, pipeline.text_encoder, _begun(start)
    networks = {start.name: start}
    if reader is not None:
        text_encoder = StableDiffusionPipeline.from_pretrained(reader, torch_dtype=torch.float32).text_encoder
        text_encoder.requires_grad_(False)
        unet = _reading(unet, text_encoder.config.hidden_size)
        begun += f", with the text encoder of {reader.name}"
        networks[reader.name] = reader
    parts = unet.train(), text_encoder.train(), pipeline.tokenizer
    _fit(recipe, *parts, build_scheduler(prediction), judges, networks, start=begun)


def _reading(unet: Any, text_width: int) -> Any:
    """A UNet whose layers that read text begin at random, for a text encoder of another width; the others are kept."""
    config = unet.config
    new = build_unet(tuple(config.block_out_channels), text_width, config.layers_per_block)
    weights = new.state_dict()
    kept = {
        name: w
        for name, w in unet.state_dict().items()
        if not name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    new.load_state_dict(weights | kept)
    return new


def _begun(start: Path) -> str:
    """What a pipeline was trained by before, for the card of the next."""
    card = json.loads((start / "CARD.json").read_text(encoding="utf-8"))
    return f"{start.name} ({card['steps']} steps in {card['cpu_seconds']} CPU s, {card['recipe']})"


def _fit(
    recipe: Recipe,
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    scheduler: Any,
    judges: classify.Judges,
    networks: Mapping[str, Path],
    *,
    start: str,
) -> None:
    """Train on the latents of recipe.out/vae, save the pipeline, and measure it for its card.

    Captions are a scene's caption or its paraphrase. One picture in eleven is degraded, and its caption says so: that
    is what a negative prompt can name. A tenth of the captions are dropped; of a degraded picture's, the word stays.
    """
    from diffusers import AutoencoderKL

    out = recipe.out
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    schedule = NoiseSchedule.from_scheduler(dict(scheduler.config))
    (scenes, _, first), (_, _, second) = (photographs("train", recipe.n, shot) for shot in (0, 1))
    few = recipe.n // 5
    pictures = [to_tensor(first), to_tensor(second)]
    pictures.append(degrade(pictures[0][:few], torch.Generator().manual_seed(recipe.seed)))
    moments = [encode(vae, images) for images in pictures]
    mean, std = (torch.cat(parts) for parts in zip(*moments, strict=True))
    # Both photographs of a scene have its captions.
    ids = caption_tokens(tokenizer, scenes)
    said = caption_tokens(tokenizer, scenes, f"{DEGRADED} ")[:few]
    prompts = torch.cat([ids, ids, said])
    empty = tokenizer(["", DEGRADED], padding="max_length", return_tensors="pt").input_ids

    def loss(index: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        latents = mean[index] + std[index] * torch.randn(mean[index].shape, generator=generator)
        prompt = prompts[index, torch.randint(2, (recipe.batch,), generator=generator)]
        dropped = torch.rand(recipe.batch, generator=generator) < 0.1
        nothing = empty[torch.from_numpy(index >= 2 * recipe.n).long()]
        t, noised, target, weight = noised_batch(schedule, latents, generator)
        states = text_encoder(torch.where(dropped[:, None], nothing, prompt)).last_hidden_state
        return (weight * (unet(noised, t, states).sample - target).square()).mean()

    trained = [module for module in (unet, text_encoder) if next(module.parameters()).requires_grad]
    seconds = fit(
        recipe, trained, loss, images=len(mean), decay=0.999, networks={**networks, "vae": out / "vae"}
    )
    for module in (vae, unet, text_encoder):
        module.half()
    save_pipeline(out, vae, text_encoder, tokenizer, unet, scheduler)
    size = [sum(p.numel() for p in module.parameters()) for module in (unet, text_encoder)]
    channels, layers = tuple(unet.config.block_out_channels), unet.config.layers_per_block
    write_card(
        out,
        recipe,
        seconds,
        network=f"StableDiffusionPipeline: UNet {channels}, {layers} blocks a resolution, of {size[0]} parameters, "
        f"text encoder of {size[1]}",
        how=f"{schedule.prediction} from {start}, {recipe}, captions dropped 10%, moving average .999, UNet "
        f"{'and text encoder together' if len(trained) > 1 else 'alone'}, seed {recipe.seed}",
        data=f"2 photographs of each of {recipe.n} scenes of the world's train split, and {few} degraded ones",
        quality=pipeline_quality(out, judges),
    )


def pipeline_quality(
    directory: Path, judges: classify.Judges, n: int = 1000, steps: int = 25
) -> dict[str, Any]:
    """What the judges find in a pipeline's samples of the first `n` validation captions, at guidance 1 and 2.

    `all_right` is the fraction with every attribute right. `fid` compares them with 4000 photographs.
    """
    from diffusers import DiffusionPipeline

    from eval.system import System

    pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenes = draw_scenes("val", n)
    prompts = [caption(scenes, i) for i in range(n)]
    vae_card = json.loads((directory / "vae" / "CARD.json").read_text(encoding="utf-8"))
    samples = []
    for guidance in (1.0, 2.0):
        system = System("teacher", pipeline, {}, guidance)
        parts = [
            system.images(prompts[i : i + 50], list(range(i, min(i + 50, n))), steps) for i in range(0, n, 50)
        ]
        found = judges(to_tensor(np.concatenate(parts)), scenes)
        sampler = f"DDIM, {steps} steps, trailing"
        samples.append({"sampler": sampler, "guidance": guidance, "images": n, **found})
    return {"vae": vae_card["quality"], "samples": samples}
