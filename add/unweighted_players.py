"""All frozen networks of a run without their weights: from configurations alone, on a device or on `meta`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from add.conditions import OPEN_CLIP_CONFIG, TextCondition, text_config, transformers_condition
from add.features import FeatureNetwork
from add.networks import DiffusionNetwork
from add.players import Players
from add.spec import Run
from add.spec_scale import ImageNetwork, Network
from add.unweighted import build_c_text, build_diffusion, build_features, clip_tokenizer, read_config
from add.weights import local_directory


def build_players(run: Run, device: str, configurations: Mapping[str, str] | None = None) -> Players:
    """What `add.players.load_players` loads, with random weights; on the device `meta`, with none.

    configurations: for the address (`path`) of a network, the directory that holds its configuration, or the name
    that open_clip knows c_text by; what is not in it is looked for where the network itself is.
    Raises OSError, ValueError and WeightsError as the builders do.
    """
    given = configurations or {}
    variant, networks = run.variant, run.networks
    student = _diffusion(run.student, device, run.training.resolution, given)
    teacher = None
    if variant.loss.distillation != "none":
        same = variant.teacher == variant.student
        teacher = student if same else _diffusion(run.teacher, device, student.resolution, given)
    features = None
    if variant.loss.adversarial > 0:
        judged = networks.features[variant.discriminator.features]
        features = _features(judged, judged.layers, device, given)
    c_img = None if networks.c_img is None else _features(networks.c_img, (), device, given)
    c_text = None if networks.c_text is None else _c_text(networks.c_text, device, given)
    pair = [n for n in (variant.student, variant.teacher) if n in networks.diffusion]
    latents = {networks.diffusion[name].latents or name for name in pair}
    return Players(student, teacher, features, c_text, c_img, len(latents) == 1)


def _directory(network: Network, configurations: Mapping[str, str]) -> Path:
    known = configurations.get(network.path)
    return Path(known) if known is not None else local_directory(network.path, network.revision)


def _diffusion(
    network: Network, device: str, resolution: int | None, configurations: Mapping[str, str]
) -> DiffusionNetwork:
    built = build_diffusion(_directory(network, configurations), device, resolution)
    for encoder, tokenizer in zip(built.text.encoders, built.text.tokenizers, strict=True):
        tokenizer.model_max_length = encoder.config.max_position_embeddings
    return built


def _features(
    network: ImageNetwork, layers: tuple[int, ...], device: str, configurations: Mapping[str, str]
) -> FeatureNetwork:
    return build_features(
        _directory(network, configurations),
        layers=layers,
        image_size=network.image_size,
        mean=network.mean,
        std=network.std,
        device=device,
    )


def _c_text(network: Network, device: str, configurations: Mapping[str, str]) -> TextCondition:
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
