"""Models trained on people's preferences: image and prompt -> one number, higher is preferred.

Both were trained on one overall preference, not on quality or alignment; who uses them says under which question
the answer is to stand. Weights are read as safetensors; HPSv2 is published as a checkpoint of torch, which is
read as tensors alone (no code in it is run).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.models.hub import local_directory, named_file
from add.models.weights import WeightsError, check_weights

if TYPE_CHECKING:
    from add.config.study import Hpsv2RaterSpec, PickScoreRaterSpec


PREPARATION = {"preprocessor_config.json": None}
"""What a processor's directory must have beside configurations and a tokenizer."""


@dataclass(frozen=True)
class RewardModel:
    """Two towers; `embed` gives unit vectors (n, d) of images and of prompts."""

    name: str
    sha256: str
    embed_images: Any
    embed_prompts: Any

    def scores(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosines (n,) of images uint8 (n, H, W, 3) and the prompts in their places.

        PickScore and HPSv2 multiply them by one positive number, which changes no order.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images and {len(prompts)} prompts do not pair up")
        return np.asarray(np.einsum("nd,nd->n", self.embed_images(images), self.embed_prompts(list(prompts))))


def load_pickscore(spec: PickScoreRaterSpec, device: str = "cpu") -> RewardModel:
    """PickScore as its authors load it: CLIPModel, and the processor of the CLIP it was made from.

    Raises WeightsError where either is absent, cannot be loaded, or has another hash than the scale says.
    """
    import torch
    from PIL import Image
    from transformers import AutoProcessor, CLIPModel

    from eval.metrics.features import load_frozen, quiet

    directory = local_directory(spec.path, spec.revision, spec.files)
    sha256 = check_weights(directory, spec.sha256, spec.files)
    # Of the CLIP that it was made from, what prepares its input: no weights.
    preparation = local_directory(spec.processor, spec.processor_revision, PREPARATION)
    with quiet():
        model = load_frozen(CLIPModel, directory, device)
        try:
            processor = AutoProcessor.from_pretrained(preparation)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{preparation}: transformers cannot load a processor: {error}") from error

    def images(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        pictures = [Image.fromarray(image) for image in pixels]
        inputs = processor(images=pictures, return_tensors="pt").to(device)
        with torch.inference_mode():
            seen = model.vision_model(pixel_values=inputs["pixel_values"]).pooler_output
            return _unit(model.visual_projection(seen))

    def prompts(texts: list[str]) -> NDArray[np.float64]:
        length = model.config.text_config.max_position_embeddings  # 77
        inputs = processor(
            text=texts, padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(device)
        with torch.inference_mode():
            read = model.text_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).pooler_output
            return _unit(model.text_projection(read))

    return RewardModel("pickscore", sha256, images, prompts)


def load_hpsv2(spec: Hpsv2RaterSpec, device: str = "cpu") -> RewardModel:
    """HPSv2: the open_clip model that the scale names, with the fine-tuned weights in place of its own.

    Its own preparation pads images to squares; samples are squares, for which it is open_clip's. Raises
    WeightsError where the file is absent, has another hash, or does not fit the model.
    """
    import open_clip
    import torch
    from PIL import Image

    file = named_file(spec.path, spec.revision, spec.file, spec.sha256)
    sha256 = check_weights(file, spec.sha256)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            spec.model, pretrained=None, precision="fp32", device=device, load_weights=False
        )
        tokenizer = open_clip.get_tokenizer(spec.model)
        model.load_state_dict(_tensors(file))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{file}: does not load into open_clip's {spec.model}: {error}") from error
    model = model.eval().requires_grad_(False)

    def images(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        pictures = torch.stack([preprocess(Image.fromarray(image)) for image in pixels])
        with torch.inference_mode():
            return _unit(model.encode_image(pictures.to(device)))

    def prompts(texts: list[str]) -> NDArray[np.float64]:
        with torch.inference_mode():
            return _unit(model.encode_text(tokenizer(texts).to(device)))

    return RewardModel("hpsv2", sha256, images, prompts)


def _tensors(file: Path) -> Any:
    """The state dict of a .safetensors file or of a torch checkpoint, where it may lie under 'state_dict'."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    import pickle

    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{file}: holds more than tensors, which is not loaded: {error}") from error
    return content.get("state_dict", content)


def _unit(vectors: Any) -> NDArray[np.float64]:
    x = vectors.double().cpu().numpy()
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
