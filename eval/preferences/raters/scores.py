"""Scores of an image, higher is better: realism, and models trained on people's preferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.config.study import Hpsv2RaterSpec, PickScoreRaterSpec
from add.errors import InputError
from add.models.hub import local_directory, named_file
from add.models.weights import WeightsError, check_weights
from eval.metrics.features import all_finite, load_frozen, quiet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Realism:
    """How much an image looks like the reference photographs: an automatic answer about quality.

    The score is minus the Mahalanobis distance of the image's features from the Gaussian of the reference's features
    (Lee et al., arXiv 1807.03888, use it to tell images of a distribution from others). It is one image's share in
    what FID measures of a set, so a rating made of it agrees with FID more than people may. On held-out photographs
    of the built-in world against the same blurred or noised it is right more often than the k-nearest-neighbour
    realism score of Kynkaanniemi et al. (arXiv 1904.06991), and it has no parameter to choose.

    mean: (d,) of the reference. whiten: (d, d) with whiten.T @ whiten the inverse covariance.
    """

    mean: Array
    whiten: Array

    def scores(self, features: NDArray[np.float32]) -> Array:
        """One score an image (n,), at most 0; higher is more like the reference. features: (n, d)."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features are {features.shape}, the reference's have {len(self.mean)} columns")
        return -np.linalg.norm((features - self.mean) @ self.whiten.T, axis=1)


def fit_realism(features: NDArray[np.float32]) -> Realism:
    """The Gaussian of the reference's features (m, d), m >= 2. Raises InputError where they do not vary."""
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise InputError(f"a Gaussian needs at least 2 finite feature vectors (m, d), not {features.shape}")
    values = features.astype(np.float64)
    covariance = shrunk_covariance(values)
    if np.trace(covariance) <= 0:
        raise InputError("the reference's features do not vary: there is nothing to compare with")
    return Realism(values.mean(axis=0), np.linalg.inv(np.linalg.cholesky(covariance)))


def shrunk_covariance(values: Array) -> Array:
    """Ledoit and Wolf's covariance (d, d) of values (m, d) (J. Multivariate Analysis 88, 2004).

    The sample covariance moved towards a multiple of the identity by the share that minimises the expected
    squared error: invertible also where m <= d, and the sample's own where m is large.
    """
    count, width = values.shape
    centred = values - values.mean(axis=0)
    sample = centred.T @ centred / count
    scale = float(np.trace(sample)) / width
    distance = float(((sample - scale * np.eye(width)) ** 2).sum())
    # sum over images of |x x' - S|^2, without making the (m, d, d) products
    norms = (centred**2).sum(axis=1)
    noise = float((norms**2).sum() / count - (sample**2).sum()) / count
    share = 0.0 if distance == 0 else min(1.0, max(0.0, noise / distance))
    return (1 - share) * sample + share * scale * np.eye(width)


PREPARATION = {"preprocessor_config.json": None}
"""Files that a processor's directory must have besides configurations and a tokenizer."""


@dataclass(frozen=True)
class RewardModel:
    """A model trained on people's preferences: two towers that embed images and prompts as unit vectors (n, d).

    PickScore and HPSv2 were trained on one overall preference, not on quality or alignment; the scale says under
    which question their answers stand.
    """

    embed_images: Any
    embed_prompts: Any

    def scores(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosines (n,) of images uint8 (n, H, W, 3) and the prompts in their places.

        PickScore and HPSv2 multiply them by one positive number, which changes no order. Raises WeightsError where one
        is not finite.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images and {len(prompts)} prompts do not pair up")
        cosines = np.einsum("nd,nd->n", self.embed_images(images), self.embed_prompts(list(prompts)))
        return all_finite(np.asarray(cosines), "the reward model")


def load_pickscore(spec: PickScoreRaterSpec, device: str = "cpu") -> RewardModel:
    """PickScore as its authors load it: CLIPModel, and the processor of the CLIP it was made from.

    Raises WeightsError where either is absent, cannot be loaded, or has another hash than the scale says.
    """
    import torch
    from PIL import Image
    from transformers import AutoProcessor, CLIPModel

    directory = local_directory(spec.path, spec.revision, spec.files)
    check_weights(directory, spec.sha256, spec.files)
    # The preprocessing of the CLIP that PickScore was made from; no weights.
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
        options = {"padding": True, "truncation": True, "max_length": length, "return_tensors": "pt"}
        inputs = processor(text=texts, **options).to(device)
        with torch.inference_mode():
            read = model.text_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).pooler_output
            return _unit(model.text_projection(read))

    return RewardModel(images, prompts)


def load_hpsv2(spec: Hpsv2RaterSpec, device: str = "cpu") -> RewardModel:
    """HPSv2: the open_clip model that the scale names, with the fine-tuned weights in place of its own.

    Its own preparation pads images to squares; samples are squares, for which it is open_clip's. Raises
    WeightsError where the file is absent, has another hash, or does not fit the model.
    """
    import open_clip
    import torch
    from PIL import Image

    file = named_file(spec.path, spec.revision, spec.file, spec.sha256)
    check_weights(file, spec.sha256)
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

    return RewardModel(images, prompts)


def _tensors(file: Path) -> Any:
    """The state dict of a .safetensors file or of a torch checkpoint (maybe under 'state_dict'), as HPSv2's is.

    The checkpoint is read as tensors alone: no code in it is run.
    """
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
