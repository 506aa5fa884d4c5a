"""Can each image and text network do what the scale asks of it? From configurations and headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from add.config.scale import FeatureNetworkSpec, ImageNetworkSpec
from add.models.weights import WeightsError, weight_names
from addbench.preflight.findings import PreflightProblem
from addbench.preflight.pipelines import AGAIN, PipelinePart, read_json, read_part
from addbench.preflight.places import Place


def read_encoder(place: Place, where: str) -> tuple[PipelinePart | None, list[PreflightProblem]]:
    """The network, and every problem of it. where: its line in the scale, for what the scale asks wrongly."""
    kind = place.wanted.kind
    if kind == "inception":
        return None, _inception(place, where)
    if kind == "file":
        return None, _file(place)
    if kind == "processor":
        absent = not any(place.path.glob("*processor*.json"))
        return None, [
            PreflightProblem(str(place.path), "holds no processor's configuration", AGAIN)
        ] if absent else []
    if kind in ("c_text", "open_clip") and not (place.path / "config.json").is_file():
        return _open_clip(place)
    part, problems = _whole(place)
    if part is None:
        return None, problems
    vision = _half(part.config, "vision_config") if kind != "c_text" else {}
    if kind == "features" or (kind == "pooled" and isinstance(place.wanted.network, ImageNetworkSpec)):
        problems += _image(place, vision, where)
    if kind == "c_text" and not any((place.path / n).is_file() for n in ("tokenizer.json", "vocab.json")):
        problems.append(
            PreflightProblem(str(place.path), "holds no tokenizer beside the text encoder", AGAIN)
        )
    return part, problems


def block_count(config: Mapping[str, Any]) -> int:
    """The number of blocks (of a transformer) or stages (of a convolutional network) of a configuration."""
    if "num_hidden_layers" in config:
        return int(config["num_hidden_layers"])
    return len(config.get("depths") or config.get("hidden_sizes") or ())


def _whole(place: Place) -> tuple[PipelinePart | None, list[PreflightProblem]]:
    try:
        names = weight_names(place.path, place.wanted.files)
    except WeightsError as error:
        return None, [PreflightProblem(f"{place.wanted.name}: {place.path}", str(error), AGAIN)]
    from add.models.weights import missing_shards

    absent = missing_shards(place.path, names)
    if absent:
        what = "this shard of the weights is missing"
        return None, [PreflightProblem(str(place.path / name), what, AGAIN) for name in absent]
    return read_part(place.path, "", names)


def _image(place: Place, config: Mapping[str, Any], where: str) -> list[PreflightProblem]:
    """Whether the layers exist and the image size fits the patches."""
    from add.models.features import BLOCKS, INTERPOLATING

    network = place.wanted.network
    if not isinstance(network, ImageNetworkSpec):
        return []
    name, kind = place.wanted.name, str(config.get("model_type"))
    problems = []
    if isinstance(network, FeatureNetworkSpec):
        if kind not in BLOCKS:
            what = f"{name}: networks of type {kind!r} give no features here"
            return [PreflightProblem(where, what, f"use one of {', '.join(BLOCKS)}")]
        blocks = block_count(config)
        if wrong := [layer for layer in network.layers if layer > blocks]:
            what = f"{name}.layers: {place.path} has {blocks} blocks, but layers {wrong} are asked for"
            problems.append(PreflightProblem(where, what, f"let the layers be in 0 .. {blocks}"))
    patch = config.get("patch_size")
    if kind in (*INTERPOLATING, "dinov2") and isinstance(patch, int) and network.image_size % patch:
        what = f"{name}.image_size: {network.image_size} is not a multiple of the patch size {patch}"
        problems.append(
            PreflightProblem(where, what, "the pixels beyond the last whole patch would be ignored")
        )
    return problems


def _half(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The half of a whole CLIP's configuration that is used, with its type; else the configuration itself."""
    if config.get("model_type") != "clip":
        return config
    defaults = {"num_hidden_layers": 12, "patch_size": 32}  # transformers' for what the file leaves out
    return {**defaults, **config.get(key, {}), "model_type": "clip_vision_model"}


def _inception(place: Place, where: str) -> list[PreflightProblem]:
    from eval.metrics.features import INCEPTION_FILE, INCEPTION_SIZE, INCEPTION_SOURCE

    problems = []
    file = inception_file(place.path)
    if file.name != INCEPTION_FILE or not file.is_file():
        what = f"is not {INCEPTION_FILE}"
        problems.append(PreflightProblem(str(file), what, f"download {INCEPTION_SOURCE}, and name the file"))
    network = place.wanted.network
    if isinstance(network, ImageNetworkSpec) and network.image_size != INCEPTION_SIZE:
        what = f"{place.wanted.name}.image_size is {network.image_size}"
        problems.append(PreflightProblem(where, what, f"Inception takes {INCEPTION_SIZE} pixels"))
    return problems


def inception_file(path: Path) -> Path:
    """The file that is meant, where its directory is named."""
    from eval.metrics.features import INCEPTION_FILE

    return path / INCEPTION_FILE if path.is_dir() else path


def _file(place: Place) -> list[PreflightProblem]:
    names = list(place.wanted.files or ())
    absent = [name for name in names if place.path.is_dir() and not (place.path / name).is_file()]
    return [PreflightProblem(str(place.path / name), "no such file", AGAIN) for name in absent]


def _open_clip(place: Place) -> tuple[PipelinePart | None, list[PreflightProblem]]:
    """An open_clip directory: its configuration, and one file of weights."""
    from add.models.text import OPEN_CLIP_CONFIG
    from add.models.weights import read_header

    try:
        config = read_json(place.path / OPEN_CLIP_CONFIG)
        names = weight_names(place.path, place.wanted.files)
        tensors = {k: v for name in names for k, v in read_header(place.path / name).items()}
    except (WeightsError, ValueError) as error:
        return None, [PreflightProblem(f"{place.wanted.name}: {place.path}", str(error), AGAIN)]
    return PipelinePart(config, tensors, tuple(names)), []
