"""Does the image show what its prompt says? By CLIP score, and by alignment where the scene behind it is known.

CLIP score is the mean cosine similarity of an image's and its prompt's CLIP embeddings (arXiv 2104.08718, w = 1). The
paper prints this mean cosine (0.319), with open_clip's ViT-g-14, neither times 100 nor clipped at zero.

For alignment, a classifier (the oracle) with outputs named 'group:value' reads each image; within a group the highest
output is its answer. An image is right if every group that its scene states is answered correctly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.data.reading import file_bytes, json_object
from add.errors import InputError
from add.models.hub import named_file
from add.models.weights import WeightsError, check_weights, file_hash
from eval.metrics.distances import Estimated
from eval.metrics.features import Extractor, ImageBatch, all_finite, load_image_network
from eval.metrics.protocol import NetworkIdentity, SourceIdentity

if TYPE_CHECKING:
    from add.config.scale import ClipSpec as ClipSpec
    from add.config.scale import OracleSpec as OracleSpec

LOCAL = "local-dir:"

Scene = Mapping[str, str | None]
"""Group -> value; None where the prompt leaves the group open, and any answer will do."""


@dataclass(frozen=True)
class Clip:
    """An open_clip model with the preprocessing and the tokenizer that belong to it."""

    network: NetworkIdentity
    model: Any
    preprocess: Any
    tokenizer: Any
    device: str

    def cosines(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosine similarity (n,) of each of the images uint8 (n, H, W, 3) with the prompt in its place.

        Raises WeightsError where one is not finite.
        """
        return self.similarities(self.embeddings(images), prompts)

    def embeddings(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Embeddings (n, d) of length 1 of images uint8 (n, H, W, 3). Raises WeightsError where one is not finite."""
        import torch
        from PIL import Image

        pixels = torch.stack([self.preprocess(Image.fromarray(image)) for image in images])
        with torch.inference_mode():
            found = _unit(self.model.encode_image(pixels.to(self.device)))
        return all_finite(found, self.network.id)

    def similarities(self, embeddings: NDArray[np.float64], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosine similarity (n,) of the images' `embeddings` (n, d), each with the prompt in its place.

        Raises WeightsError where one is not finite.
        """
        if len(embeddings) != len(prompts):
            raise ValueError(f"{len(embeddings)} images and {len(prompts)} prompts do not pair up")
        import torch

        place = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}  # equal ones are encoded once
        with torch.inference_mode():
            texts = _unit(self.model.encode_text(self.tokenizer(list(place)).to(self.device)))
        cosines = np.asarray(np.einsum("nd,nd->n", embeddings, texts[[place[prompt] for prompt in prompts]]))
        return all_finite(cosines, self.network.id)

    def truncated(self, prompts: Sequence[str]) -> int:
        """The number of prompts whose end the text encoder does not read: its tokenizer cuts them."""
        length = self.tokenizer.context_length
        longer = self.tokenizer(list(prompts), context_length=length + 1)[:, :length]
        return int((longer != self.tokenizer(list(prompts))).any(dim=1).sum())


def clip_score(cosines: NDArray[np.float64]) -> Estimated:
    """The mean of cosine similarities (n,), n >= 2, and its standard error."""
    if cosines.ndim != 1 or len(cosines) < 2:
        raise ValueError(f"a standard error needs at least 2 images as (n,), not {cosines.shape}")
    if len(broken := np.flatnonzero(~np.isfinite(cosines))):
        raise ValueError(f"the similarity of image {broken[0]} is not finite")
    return Estimated(float(cosines.mean()), float(cosines.std(ddof=1) / math.sqrt(len(cosines))))


def load_clip(spec: ClipSpec, device: str = "cpu") -> Clip:
    """The CLIP that a scale names: 'local-dir:PATH' (config, safetensors, tokenizer in one directory) or an
    open_clip name with its pretrained tag or file, or with the safetensors file of a directory or hub id.

    A tag states more than weights: its activation (`openai` means QuickGELU) and preprocessing hold wherever its file
    comes from. Raises WeightsError where the weights are absent or others, or open_clip knows no such tag.
    """
    import open_clip

    from add.models.text import open_clip_vocabulary

    config, tag = None, dict[str, Any]()
    if spec.model.startswith(LOCAL):
        directory = Path(spec.model.removeprefix(LOCAL))
        if spec.pretrained is not None:
            raise WeightsError(f"{spec.model}: a local directory holds its weights; leave `pretrained` null")
        if not (config := directory / "open_clip_config.json").is_file():
            raise WeightsError(
                f"{directory}: holds no {config.name}; check the path, or make the weights first"
            )
        sha256, pretrained = check_weights(directory, spec.sha256), None
    elif spec.path is not None and spec.file is not None:
        tag = _tag(spec) if spec.pretrained is not None else {}
        file = named_file(spec.path, spec.revision, spec.file, spec.sha256)  # whatever the tag would lead to
        sha256, pretrained = check_weights(file, spec.sha256), str(file)
    else:
        file, tag = _tag_file(spec)
        sha256, pretrained = check_weights(file, spec.sha256), str(file)
        tag = tag or _published(spec.model, sha256)
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            spec.model,
            pretrained=pretrained,
            precision="fp32",
            device=device,
            force_quick_gelu=tag.get("quick_gelu", False),
            **{f"image_{key}": tag.get(key) for key in ("mean", "std", "interpolation", "resize_mode")},
        )
        tokenizer = open_clip.get_tokenizer(spec.model)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{spec.model}: open_clip cannot load it: {error}") from error
    if config is not None:
        architecture = json.loads(config.read_bytes())["model_cfg"]
    else:
        architecture = open_clip.get_model_config(spec.model.replace("/", "-"))
        architecture["quick_gelu"] = tag.get("quick_gelu") or architecture.get("quick_gelu")
    network = NetworkIdentity.of_open_clip(
        spec, sha256, architecture, model.visual.preprocess_cfg, open_clip_vocabulary(tokenizer)
    )
    return Clip(network, model.eval().requires_grad_(False), preprocess, tokenizer, device)


def _tag_file(spec: ClipSpec) -> tuple[Path, dict[str, Any]]:
    """The one weights file, and what its tag states; open_clip downloads it if it must (its own cache and hub)."""
    from open_clip.pretrained import download_pretrained

    if spec.pretrained is None:
        raise WeightsError(
            f"{spec.model}: an open_clip name needs a `pretrained` tag; random weights score nothing"
        )
    if Path(spec.pretrained).is_file():
        return Path(spec.pretrained), {}
    tag = _tag(spec)
    try:
        return Path(download_pretrained(tag)), tag
    except Exception as error:
        raise WeightsError(f"{spec.model}, {spec.pretrained}: cannot be fetched: {error}") from error


def _tag(spec: ClipSpec) -> dict[str, Any]:
    from open_clip.pretrained import get_pretrained_cfg

    known: dict[str, Any] = get_pretrained_cfg(spec.model.replace("/", "-"), spec.pretrained)
    if not known:
        raise WeightsError(
            f"{spec.model}: open_clip knows no weights called {spec.pretrained!r}, nor is it a file"
        )
    return known


def _published(model: str, sha256: str) -> dict[str, Any]:
    """What the tag states whose file has this hash; published addresses hold it, in full or its first 8 digits."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    name = model.replace("/", "-")
    tags: list[dict[str, Any]] = [get_pretrained_cfg(name, t) for t in list_pretrained_tags_by_model(name)]
    hashes = (f"/{sha256}/", f"-{sha256[:8]}.")
    return next((tag for tag in tags if any(part in tag.get("url", "") for part in hashes)), {})


def _unit(vectors: Any) -> NDArray[np.float64]:
    x = vectors.double().cpu().numpy()
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


@dataclass(frozen=True)
class Alignment:
    """Fraction of images with every group right, its Wilson 95% interval, each group's accuracy, each image's verdict.

    A group's accuracy is over the images whose scene states it; a group that no scene states is left out.
    """

    value: float
    interval: tuple[float, float]
    groups: dict[str, float]
    right: tuple[bool, ...] = field(repr=False)


@dataclass(frozen=True)
class Oracle:
    """The classifier: its groups in order, each with its values and their places among the outputs.

    scenes: prompt -> scene; source: the file that states them.
    """

    extractor: Extractor
    groups: dict[str, dict[str, int]]
    scenes: dict[str, Scene]
    source: SourceIdentity

    def answers(self, batch: ImageBatch) -> list[dict[str, str]]:
        """For each of the n images, the value that the oracle sees in each group."""
        logits = self.extractor(batch)
        answers: list[dict[str, str]] = [{} for _ in logits]
        for group, values in self.groups.items():
            names, places = list(values), list(values.values())
            for answer, best in zip(answers, logits[:, places].argmax(axis=1), strict=True):
                answer[group] = names[best]
        return answers


def load_oracle(spec: OracleSpec, device: str = "cpu") -> Oracle:
    """The oracle that a scale names, with its scenes.

    Raises WeightsError where its weights or its output names are wrong, InputError where the scenes are.
    """
    from transformers import AutoModelForImageClassification

    kind = "transformers, classifier of 'group:value'"
    extractor, model = load_image_network(spec, AutoModelForImageClassification, "logits", kind, device)
    groups, file = _groups(model.name_or_path, model.config.id2label), Path(spec.scenes)
    scenes = read_scenes(file, groups)
    source = SourceIdentity(file=spec.scenes, sha256=file_hash(file), count=len(scenes))
    return Oracle(extractor, groups, scenes, source)


def _groups(directory: str, names: Mapping[int, str]) -> dict[str, dict[str, int]]:
    groups: dict[str, dict[str, int]] = {}
    for place, name in sorted((int(k), v) for k, v in names.items()):
        group, colon, value = name.partition(":")
        if not (group and colon and value):
            raise WeightsError(f"{directory}: output {place} is called {name!r}, not 'group:value'")
        if value in groups.setdefault(group, {}):
            raise WeightsError(f"{directory}: two outputs are called {name!r}")
        groups[group][value] = place
    for group, values in groups.items():
        if len(values) < 2:
            raise WeightsError(
                f"{directory}: group {group!r} has one value only; there is nothing to tell apart"
            )
    return groups


def read_scenes(file: Path, groups: Mapping[str, Mapping[str, int]]) -> dict[str, Scene]:
    """Prompt -> scene, from {"prompts": {prompt: {group: value or null, ...}}}.

    Every scene must mention every group of the oracle, and only values that the oracle knows. Raises InputError.
    """
    scenes = json_object(file_bytes(file), file).get("prompts")
    if not isinstance(scenes, dict):
        raise InputError(f"{file}: field 'prompts' is missing, or is not an object")
    for prompt, scene in scenes.items():
        where = f"{file}, prompts[{prompt!r}]"
        if not isinstance(scene, dict) or set(scene) != set(groups):
            found = sorted(scene) if isinstance(scene, dict) else scene
            raise InputError(f"{where}: the groups are {found}, the oracle's are {sorted(groups)}")
        for group, value in scene.items():
            if value is not None and value not in groups[group]:
                known = ", ".join(groups[group])
                raise InputError(f"{where}.{group}: the oracle knows no {value!r}, only {known}")
        if all(value is None for value in scene.values()):
            raise InputError(f"{where}: states nothing, so any image would be right")
    return scenes


def scenes_of(prompts: Sequence[str], scenes: Mapping[str, Scene], file: Path | str) -> list[Scene] | None:
    """The scene of each prompt; None if no prompt has one (the set is not of this world).

    Raises InputError where some have one and others do not: the score would silently be of a part.
    """
    absent = [prompt for prompt in prompts if prompt not in scenes]
    if not absent:
        return [scenes[prompt] for prompt in prompts]
    if len(absent) == len(prompts):
        return None
    raise InputError(
        f"{file}: {len(absent)} of {len(prompts)} prompts have no scene, the first is {absent[0]!r}"
    )


def alignment(answers: Sequence[Mapping[str, str]], scenes: Sequence[Scene]) -> Alignment:
    """Compare the oracle's answers with the scenes, image by image; at least one image."""
    if len(answers) != len(scenes) or not scenes:
        raise ValueError(f"{len(answers)} answers and {len(scenes)} scenes do not pair up")
    hits: dict[str, list[bool]] = {}
    right: list[bool] = []
    for answer, scene in zip(answers, scenes, strict=True):
        shown = {group: answer[group] == value for group, value in scene.items() if value is not None}
        for group, hit in shown.items():
            hits.setdefault(group, []).append(hit)
        right.append(all(shown.values()))
    groups = {group: sum(found) / len(found) for group, found in hits.items()}
    found = sum(right)
    return Alignment(found / len(scenes), wilson(found, len(scenes)), groups, tuple(right))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion (J. Am. Stat. Assoc. 22, 1927); also valid at 0 and at 1."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
