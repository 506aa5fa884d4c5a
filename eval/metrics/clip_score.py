"""CLIP score: mean cosine similarity of an image's and its prompt's CLIP embeddings (arXiv 2104.08718, w = 1).

The paper prints this mean cosine (0.319), with open_clip's ViT-g-14, neither times 100 nor clipped at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.models.hub import named_file
from add.models.weights import WeightsError, check_weights
from eval.metrics.distances import Estimated
from eval.metrics.protocol import NetworkIdentity

if TYPE_CHECKING:
    from add.config.scale import ClipSpec as ClipSpec

LOCAL = "local-dir:"


@dataclass(frozen=True)
class Clip:
    """An open_clip model with the preprocessing and the tokenizer that belong to it."""

    network: NetworkIdentity
    model: Any
    preprocess: Any
    tokenizer: Any
    device: str

    def cosines(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosine similarity (n,) of each of the images uint8 (n, H, W, 3) with the prompt in its place."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images and {len(prompts)} prompts do not pair up")
        import torch
        from PIL import Image

        pixels = torch.stack([self.preprocess(Image.fromarray(image)) for image in images])
        place = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}  # equal ones are encoded once
        with torch.inference_mode():
            x = _unit(self.model.encode_image(pixels.to(self.device)))
            y = _unit(self.model.encode_text(self.tokenizer(list(place)).to(self.device)))
        return np.asarray(np.einsum("nd,nd->n", x, y[[place[prompt] for prompt in prompts]]))


def clip_score(cosines: NDArray[np.float64]) -> Estimated:
    """The mean of cosine similarities (n,), n >= 2, and its standard error."""
    if cosines.ndim != 1 or len(cosines) < 2:
        raise ValueError(f"a standard error needs at least 2 images as (n,), not {cosines.shape}")
    if not np.isfinite(cosines).all():
        raise ValueError(
            f"the similarity of image {int(np.flatnonzero(~np.isfinite(cosines))[0])} is not finite"
        )
    return Estimated(float(cosines.mean()), float(cosines.std(ddof=1) / math.sqrt(len(cosines))))


def load_clip(spec: ClipSpec, device: str = "cpu") -> Clip:
    """The CLIP that a scale names: 'local-dir:PATH' (config, safetensors, tokenizer in one directory) or an
    open_clip name with its pretrained tag or file, or with the safetensors file of a directory or hub id. Raises
    WeightsError where its weights are absent or others.
    """
    if spec.model.startswith(LOCAL):
        sha256, pretrained = _check_local(spec), None
    elif spec.path is not None and spec.file is not None:
        file = named_file(spec.path, spec.revision, spec.file, spec.sha256)  # whatever the tag would lead to
        sha256, pretrained = check_weights(file, spec.sha256), str(file)
    else:
        sha256, pretrained = check_weights(_tag_file(spec), spec.sha256), spec.pretrained
    import open_clip

    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            spec.model, pretrained=pretrained, precision="fp32", device=device
        )
        tokenizer = open_clip.get_tokenizer(spec.model)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{spec.model}: open_clip cannot load it: {error}") from error
    network = NetworkIdentity(kind="open_clip", id=spec.model, revision=spec.pretrained, sha256=sha256)
    return Clip(network, model.eval().requires_grad_(False), preprocess, tokenizer, device)


def _check_local(spec: ClipSpec) -> str:
    directory = Path(spec.model.removeprefix(LOCAL))
    if spec.pretrained is not None:
        raise WeightsError(f"{spec.model}: a local directory holds its weights; leave `pretrained` null")
    if not (directory / "open_clip_config.json").is_file():
        raise WeightsError(
            f"{directory}: holds no open_clip_config.json; check the path, or make the weights first"
        )
    return check_weights(directory, spec.sha256)


def _tag_file(spec: ClipSpec) -> Path:
    """The one weights file; downloads it if open_clip must (its own cache, its own hub)."""
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    if spec.pretrained is None:
        raise WeightsError(
            f"{spec.model}: an open_clip name needs a `pretrained` tag; random weights score nothing"
        )
    file = Path(spec.pretrained)
    if not file.is_file():
        known = get_pretrained_cfg(spec.model.replace("/", "-"), spec.pretrained)
        if not known:
            raise WeightsError(
                f"{spec.model}: open_clip knows no weights called {spec.pretrained!r}, nor is it a file"
            )
        try:
            file = Path(download_pretrained(known))
        except Exception as error:
            raise WeightsError(f"{spec.model}, {spec.pretrained}: cannot be fetched: {error}") from error
    return file


def _unit(vectors: Any) -> NDArray[np.float64]:
    x = vectors.double().cpu().numpy()
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
