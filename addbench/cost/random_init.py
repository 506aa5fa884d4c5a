"""The real networks with random weights: built from published configurations, on a device or on none (`meta`).

`config/networks/<name>` has the layout of the published directory, less weights and tokenizers: shapes, parameter
counts, memory and speed are those of the real network, its outputs are noise. On the device `meta` nothing is
allocated, and a forward pass is a check of shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from add.config.run import Run
from add.config.scale import FeatureNetworkSpec, ImageNetworkSpec, NetworkSpec
from add.models.diffusion import DiffusionNetwork, native_resolution, scheduler_config
from add.models.features import FeatureNetwork
from add.models.frozen import FrozenNetworks, Loaders, load_frozen_networks
from add.models.hub import local_directory
from add.models.text import (
    OPEN_CLIP_CONFIG,
    TextCondition,
    TextEncoders,
    encoder_names,
    open_clip_condition,
    text_config,
    transformers_condition,
    zero_null,
)
from add.noise import NoiseSchedule

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


def build_frozen_networks(
    run: Run, device: str, configurations: Mapping[str, str] | None = None
) -> FrozenNetworks:
    """What `add.models.frozen.load_frozen_networks` loads, with random weights; on the device `meta`, with none.

    configurations: maps the address (`path`) of a network to the directory that holds its configuration, or to the
    name that open_clip knows c_text by. A network that is missing there is looked for at its own address.
    Raises OSError, ValueError and WeightsError as the builders do.
    """
    given = configurations or {}
    loaders = Loaders(
        lambda network, device, resolution: _diffusion(network, device, resolution, given),
        lambda network, device: _features(network, device, given),
        lambda network, device: _c_text(network, device, given),
    )
    return load_frozen_networks(run, device, loaders=loaders)


def _directory(network: NetworkSpec, configurations: Mapping[str, str]) -> Path:
    known = configurations.get(network.path)
    return Path(known) if known is not None else local_directory(network.path, network.revision)


def _diffusion(
    network: NetworkSpec, device: str, resolution: int | None, configurations: Mapping[str, str]
) -> DiffusionNetwork:
    built = build_diffusion(_directory(network, configurations), device, resolution)
    for encoder, tokenizer in zip(built.text.encoders, built.text.tokenizers, strict=True):
        tokenizer.model_max_length = encoder.config.max_position_embeddings
    return built


def _features(network: ImageNetworkSpec, device: str, configurations: Mapping[str, str]) -> FeatureNetwork:
    return build_features(
        _directory(network, configurations),
        layers=network.layers if isinstance(network, FeatureNetworkSpec) else (),
        image_size=network.image_size,
        mean=network.mean,
        std=network.std,
        device=device,
    )


def _c_text(network: NetworkSpec, device: str, configurations: Mapping[str, str]) -> TextCondition:
    known = configurations.get(network.path)
    if known is not None and not Path(known).exists():
        return build_c_text(known, device)
    directory = _directory(network, configurations)
    if not (directory / "config.json").is_file():
        return build_c_text(_open_clip_name(directory), device)
    from transformers import CLIPTextModelWithProjection

    config, tokenizer = text_config(directory), clip_tokenizer()
    tokenizer.model_max_length = config.max_position_embeddings
    with torch.device(device):
        return transformers_condition(CLIPTextModelWithProjection(config), tokenizer)


def _open_clip_name(directory: Path) -> str:
    """The name under which open_clip has the configuration in `directory`. Raises ValueError for none."""
    import open_clip

    found = read_config(directory / OPEN_CLIP_CONFIG).get("model_cfg")
    for name in open_clip.list_models():
        if open_clip.get_model_config(name) == found:
            return name
    raise ValueError(
        f"{directory / OPEN_CLIP_CONFIG}: open_clip has no such configuration; name one of its own in the "
        "`configurations` of this call"
    )
