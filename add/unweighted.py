"""The real networks without their weights: built from published configurations, on a device or on none (`meta`).

`config/networks/<name>` has the layout of the published directory, less weights and tokenizers: shapes, parameter
counts, memory and speed are those of the real network, its outputs are noise. On the device `meta` nothing is
allocated, and a forward pass is a check of shapes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from add.conditions import TextCondition, open_clip_condition
from add.features import FeatureNetwork
from add.networks import DiffusionNetwork, native_resolution
from add.noise import NoiseSchedule
from add.pipelines import scheduler_config
from add.text import TextEncoders, encoder_names, zero_null

_SECOND_PADDING = "!"  # SDXL's second tokenizer pads with token 0 instead of the end of the text


def build_diffusion(
    directory: Path, device: str = "cpu", resolution: int | None = None, seed: int = 0
) -> DiffusionNetwork:
    """The pipeline whose configurations are in `directory`, with random weights, frozen, float32.

    Raises OSError where a configuration is missing, ValueError where the parts do not belong together.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    names = encoder_names(index := read_config(directory / "model_index.json"), str(directory))
    torch.manual_seed(seed)
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(read_config(directory / "unet" / "config.json"))
        vae = AutoencoderKL.from_config(read_config(directory / "vae" / "config.json"))
        encoders = [
            kind(CLIPTextConfig(**read_config(directory / name / "config.json")))
            for kind, name in zip((CLIPTextModel, CLIPTextModelWithProjection), names, strict=False)
        ]
    scheduler = scheduler_config(directory)
    schedule = NoiseSchedule.from_scheduler(scheduler)
    tokenizers = (clip_tokenizer(), clip_tokenizer(_SECOND_PADDING))[: len(names)]
    return DiffusionNetwork(
        unet=_frozen(unet),
        vae=_frozen(vae),
        text=TextEncoders(tuple(map(_frozen, encoders)), tokenizers, zero_null(index)),
        # Its coefficients are checked by their values, which tensors on `meta` have not.
        schedule=schedule if device == "meta" else schedule.to(device),
        scheduler_config=scheduler,
        resolution=resolution or native_resolution(unet.config, vae.config),
    )


def build_features(
    directory: Path,
    *,
    layers: Sequence[int] = (),
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: str = "cpu",
    seed: int = 0,
) -> FeatureNetwork:
    """The feature network whose config.json is in `directory`, with random weights; of a CLIP its vision half."""
    from transformers import AutoConfig, AutoModel, CLIPVisionModel

    config = AutoConfig.from_pretrained(directory)
    torch.manual_seed(seed)
    with torch.device(device):
        whole = config.model_type == "clip"
        model = CLIPVisionModel(config.vision_config) if whole else AutoModel.from_config(config)
        return FeatureNetwork(
            model, layers=layers, image_size=image_size, mean=mean, std=std, name=directory.name
        )


def build_c_text(name: str = "ViT-g-14", device: str = "cpu", seed: int = 0) -> TextCondition:
    """The text half of a CLIP that open_clip has a configuration of, with random weights.

    Raises ValueError for a name that open_clip does not know.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(f"open_clip has no configuration {name!r}; see open_clip.list_models()")
    # The vision half is dropped, so it need not be built at its size.
    config["vision_cfg"] = {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1}
    torch.manual_seed(seed)
    with torch.device(device):
        model = open_clip.CLIP(**config)
    return open_clip_condition(model, open_clip.get_tokenizer(name))


def clip_tokenizer(pad_token: str = "<|endoftext|>") -> Any:
    """CLIP's tokenizer, 77 tokens, from the vocabulary that open_clip brings with it."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    source = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in source.encoder.items()}
    merges = [pair for pair, _ in sorted(source.bpe_ranks.items(), key=lambda item: item[1])]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)


def read_config(file: Path) -> dict[str, Any]:
    """A configuration. Raises OSError where it is missing, ValueError naming the file where it is no JSON object."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not JSON in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: holds no JSON object; is it a network's configuration?")
    return values


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)
