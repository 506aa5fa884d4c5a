"""The real networks with random weights, built from published configurations on a device or without one (`meta`).

`config/networks/<name>` has the layout of the published directory, without weights and tokenizers. Shapes, parameter
counts, memory and speed are those of the real network; its outputs are noise. On the device `meta` nothing is
allocated, and a forward pass checks shapes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from add.config.run import Run
from add.config.scale import DiffusionNetworkSpec, FeatureNetworkSpec, ImageNetworkSpec, NetworkSpec
from add.errors import InputError
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
from addbench.cost.shapes import read_config


def build_frozen_networks(
    run: Run, device: str, configurations: Mapping[str, str] | None = None
) -> FrozenNetworks:
    """What `add.models.frozen.load_frozen_networks` loads, with random weights; on the device `meta`, with none.

    configurations: maps the address (`path`) of a network to the directory that holds its configuration, or to the
    name that open_clip knows c_text by. A network that is missing there is looked for at its own address.
    Raises OSError, ValueError and WeightsError as the builders do.
    """
    given = configurations or {}

    def directory(network: NetworkSpec) -> Path:
        known = given.get(network.path)
        return Path(known) if known is not None else local_directory(network.path, network.revision)

    def features(network: ImageNetworkSpec, device: str) -> FeatureNetwork:
        layers = network.layers if isinstance(network, FeatureNetworkSpec) else ()
        size, mean, std = network.image_size, network.mean, network.std
        at = directory(network)
        return build_features(at, layers=layers, image_size=size, mean=mean, std=std, device=device)

    def c_text(network: NetworkSpec, device: str) -> TextCondition:
        known = given.get(network.path)
        if known is not None and not Path(known).exists():
            return build_c_text(known, device)
        at = directory(network)
        if not (at / "config.json").is_file():
            return build_c_text(_open_clip_name(at / OPEN_CLIP_CONFIG), device)
        from transformers import CLIPTextModelWithProjection

        config = text_config(at)
        with torch.device(device):
            model = CLIPTextModelWithProjection(config)
        return transformers_condition(model, clip_tokenizer(length=config.max_position_embeddings))

    def diffusion(network: DiffusionNetworkSpec, device: str, resolution: int | None) -> DiffusionNetwork:
        made = build_diffusion(directory(network), device, resolution)
        return replace(made, original_size=network.original_size, target_size=network.target_size)

    return load_frozen_networks(run, device, loaders=Loaders(diffusion, features, c_text))


def _open_clip_name(file: Path) -> str:
    """The name under which open_clip has the configuration in `file`. Raises InputError where it has none."""
    import open_clip

    found = read_config(file).get("model_cfg")
    for name in open_clip.list_models():
        if open_clip.get_model_config(name) == found:
            return name
    raise InputError(file, "open_clip has no such configuration; name one of its own in `configurations`")


def build_diffusion(
    directory: Path, device: str = "cpu", resolution: int | None = None, seed: int = 0
) -> DiffusionNetwork:
    """The pipeline whose configurations are in `directory`, with random weights, frozen, float32.

    Raises InputError where a configuration is missing or the parts do not belong together; OSError for the
    scheduler's.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    names = encoder_names(index := read_config(directory / "model_index.json"), str(directory))
    configs = [CLIPTextConfig(**read_config(directory / name / "config.json")) for name in names]
    torch.manual_seed(seed)
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(read_config(directory / "unet" / "config.json"))
        vae = AutoencoderKL.from_config(read_config(directory / "vae" / "config.json"))
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        encoders = [kind(config) for kind, config in zip(kinds, configs, strict=False)]
    for module in (unet, vae, *encoders):
        module.eval().requires_grad_(False)
    # SDXL's second tokenizer pads with token 0, not with the end of the text.
    lengths = [config.max_position_embeddings for config in configs]
    tokenizers = tuple(map(clip_tokenizer, ("<|endoftext|>", "!"), lengths))
    scheduler = scheduler_config(directory)
    schedule = NoiseSchedule.from_scheduler(scheduler)
    return DiffusionNetwork(
        unet=unet,
        vae=vae,
        text=TextEncoders(tuple(encoders), tokenizers, zero_null(index)),
        # Its coefficients are checked by their values, and tensors on `meta` have none.
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
    """The feature network whose config.json is in `directory`, with random weights; for a CLIP, its vision half."""
    from transformers import AutoConfig, AutoModel, CLIPVisionModel

    config = AutoConfig.from_pretrained(directory)
    torch.manual_seed(seed)
    with torch.device(device):
        whole = config.model_type == "clip"
        model = CLIPVisionModel(config.vision_config) if whole else AutoModel.from_config(config)
        name = directory.name
        return FeatureNetwork(model, layers=layers, image_size=image_size, mean=mean, std=std, name=name)


def build_c_text(name: str = "ViT-g-14", device: str = "cpu", seed: int = 0) -> TextCondition:
    """The text half of a CLIP that open_clip has a configuration of, with random weights.

    Raises InputError for a name that open_clip does not know.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise InputError(f"open_clip has no configuration {name!r}; see open_clip.list_models()")
    # The vision half is dropped, so it is built small.
    config["vision_cfg"] = {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1}
    torch.manual_seed(seed)
    with torch.device(device):
        model = open_clip.CLIP(**config)
    return open_clip_condition(model, open_clip.get_tokenizer(name))


def clip_tokenizer(pad_token: str = "<|endoftext|>", length: int = 77) -> Any:
    """CLIP's tokenizer of `length` tokens, from the vocabulary that open_clip brings with it."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    source = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in source.encoder.items()}
    merges = [pair for pair, _ in sorted(source.bpe_ranks.items(), key=lambda item: item[1])]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=length)
