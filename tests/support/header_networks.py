"""Network directories with real configurations and a few weight tensors of their real shapes.

Checks read only configurations and headers, so these pass for the published networks at a millionth of their size.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.support.specs import ROOT

CONFIGURATIONS = ROOT / "config" / "networks"
UNET, VAE, TEXT = (
    f"{folder}.safetensors"
    for folder in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
)


def write_pipeline(to: Path, name: str = "sd21-base") -> Path:
    """A pipeline with the configurations of config/networks/<name>."""
    shutil.copytree(CONFIGURATIONS / name, to)
    unet, vae = (read(to / part) for part in ("unet", "vae"))
    width = unet["block_out_channels"][0]
    save(
        to / UNET,
        {
            "conv_in.weight": (width, unet["in_channels"], 3, 3),
            "conv_out.weight": (unet["out_channels"], width, 3, 3),
            "mid_block.attn2.to_k.weight": (8, unet["cross_attention_dim"]),
        },
    )
    save(
        to / VAE,
        {
            "encoder.conv_in.weight": (8, 3, 3, 3),
            "decoder.conv_in.weight": (8, vae["latent_channels"], 3, 3),
            "decoder.conv_out.weight": (vae["out_channels"], 8, 3, 3),
        },
    )
    for folder in sorted(to.glob("text_encoder*")):
        wide = read(folder)["hidden_size"]
        save(folder / "model.safetensors", {"text_model.embeddings.token_embedding.weight": (4, wide)})
        tokenizer = to / folder.name.replace("text_encoder", "tokenizer")
        tokenizer.mkdir()
        (tokenizer / "tokenizer.json").write_text("{}")
    return to


def write_features(to: Path, name: str = "dinov2-small") -> Path:
    """A feature network with the configuration of config/networks/<name>."""
    shutil.copytree(CONFIGURATIONS / name, to)
    save(to / "model.safetensors", {"embeddings.cls_token": (1, 1, 8)})
    return to


def save(file: Path, shapes: dict[str, tuple[int, ...]], value: float = 0.0) -> None:
    """Save tensors of these shapes, filled with one value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.full(shape, value, np.float32) for name, shape in shapes.items()}, file)


def read(folder: Path) -> dict[str, Any]:
    """A folder's config.json."""
    return json.loads((folder / "config.json").read_text())


def change(folder: Path, **values: Any) -> None:
    """Change values in a folder's config.json."""
    (folder / "config.json").write_text(json.dumps(read(folder) | values))
