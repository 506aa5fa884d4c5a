"""Is a network's directory whole, do its parts belong together, and can it do what the scale asks?

All of it is read from configurations and headers; no weights are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from add.config.scale import FeatureNetworkSpec, ImageNetworkSpec
from add.models.weights import TensorInfo, missing_shards, read_header, weight_names
from addbench.cost.shapes import read_config
from addbench.preflight import Findings, Place
from eval.metrics.features import INCEPTION_FILE, INCEPTION_SIZE, INCEPTION_SOURCE

AGAIN = "download it again, or name another directory in mirrors.yaml"


@dataclass(frozen=True)
class PipelinePart:
    """One network of a pipeline, or a network by itself: its configuration, its tensors, its files."""

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    files: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def ending(self, suffix: str) -> TensorInfo | None:
        """The first tensor whose name ends in `suffix`; libraries put different prefixes before one name."""
        return next((t for name, t in sorted(self.tensors.items()) if name.endswith(suffix)), None)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline directory that can be read; `encoders` are its one or two text encoders."""

    place: Place
    unet: PipelinePart
    vae: PipelinePart
    encoders: tuple[PipelinePart, ...]

    @property
    def factor(self) -> int:
        """Pixels, along a side, that a latent stands for."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @property
    def native_resolution(self) -> int:
        """Pixels of the images that its UNet was made for."""
        return int(self.unet.config["sample_size"]) * self.factor

    @property
    def parameters(self) -> int:
        """The number of weights of all parts."""
        return sum(part.parameters for part in (self.unet, self.vae, *self.encoders))


def read_pipeline(found: Findings, place: Place) -> Pipeline | None:
    """The pipeline, with every problem of its files; None where too much is missing to look further."""
    from add.models.text import encoder_names

    directory = place.path
    try:
        names = weight_names(directory, place.wanted.files)
        encoders = encoder_names(read_config(directory / "model_index.json"), str(directory))
        _check_schedule(found, directory)
    except ValueError as error:
        reason = str(error).removeprefix(str(directory)).removeprefix(": ")
        found.problem(f"{place.wanted.name}: {directory}", reason, AGAIN)
        return None
    _whole_shards(found, directory, names)
    parts = [
        read_part(found, directory, name, [n for n in names if n.startswith(f"{name}/")])
        for name in ("unet", "vae", *encoders)
    ]
    for folder in (directory / name for name in ("tokenizer", "tokenizer_2")[: len(encoders)]):
        held = {file.name for file in folder.glob("*")}
        if "tokenizer.json" not in held and not {"vocab.json", "merges.txt"} <= held:
            what = "holds no vocabulary (tokenizer.json, or vocab.json with merges.txt)"
            found.problem(folder, what, AGAIN)
    read = [part for part in parts if part is not None]
    if len(read) < len(parts):
        return None
    pipeline = Pipeline(place, read[0], read[1], tuple(read[2:]))
    _check_fit(found, pipeline)
    return pipeline


def read_part(
    found: Findings, directory: Path, folder: str, names: Sequence[str], settings: str = "config.json"
) -> PipelinePart | None:
    """One network: its configuration below `folder`, and the headers of its weight files `names`."""
    where = directory / folder
    config = found.attempt(where, AGAIN, read_config, where / settings)
    if config is None:
        return None
    if not names:
        found.problem(where, "holds no .safetensors file", AGAIN)
        return None
    headers = [found.attempt(file, AGAIN, read_header, file) for file in (directory / n for n in names)]
    read = [header for header in headers if header is not None]
    tensors = {name: tensor for header in read for name, tensor in header.items()}
    return PipelinePart(config, tensors, tuple(names)) if len(read) == len(headers) else None


def _whole_shards(found: Findings, directory: Path, names: Sequence[str]) -> bool:
    absent = missing_shards(directory, names)
    for name in absent:
        found.problem(directory / name, "this shard of the weights is missing", AGAIN)
    return not absent


def _check_schedule(found: Findings, directory: Path) -> None:
    from add.models.diffusion import scheduler_config
    from add.noise import NoiseSchedule

    try:
        NoiseSchedule.from_scheduler(scheduler_config(directory))
    except (OSError, ValueError, KeyError) as error:
        what = f"the noise schedule cannot be used: {str(error).splitlines()[0]}"
        found.problem(directory / "scheduler", what, AGAIN)


def _check_fit(found: Findings, pipeline: Pipeline) -> None:
    """Whether the configurations fit each other, and the weights their configurations."""
    from add.models.text import incompatibilities

    where = f"{pipeline.place.wanted.name}: {pipeline.place.path}"
    # transformers' defaults for what a file leaves out
    defaults = {"hidden_size": 512, "projection_dim": 512}
    texts = [SimpleNamespace(**{**defaults, **part.config}) for part in pipeline.encoders]
    for what in incompatibilities(dict(pipeline.unet.config), texts, dict(pipeline.vae.config)):
        found.problem(where, what, "these parts are of different networks; take all of them from one")
    parts = {"unet": (pipeline.unet, pipeline.unet.config), "vae": (pipeline.vae, pipeline.vae.config)}
    for name, part, text in zip(_TEXT_ENCODERS, pipeline.encoders, texts, strict=False):
        parts[name] = (part, vars(text))
    for name, tensor, axis, key in _SHAPES:
        if name not in parts:
            continue
        part, config = parts[name]
        there, expected = part.ending(tensor), config.get(key)
        expected = expected[0] if isinstance(expected, list) else expected
        if there is None:
            source, difference = "config.json", f"there is no tensor {tensor}"
        elif isinstance(expected, int) and there.shape[axis] != expected:
            source, difference = key, f"{tensor} is {list(there.shape)}, {key} is {expected}"
        else:
            continue
        what = f"the weights in {name} are not of the network that its config.json describes: {difference}"
        found.problem(where, what, f"restore {name}, both files ({source})")


_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_SHAPES = (
    ("unet", "conv_in.weight", 1, "in_channels"),
    ("unet", "conv_in.weight", 0, "block_out_channels"),
    ("unet", "conv_out.weight", 0, "out_channels"),
    ("unet", "attn2.to_k.weight", 1, "cross_attention_dim"),
    ("vae", "decoder.conv_in.weight", 1, "latent_channels"),
    ("vae", "decoder.conv_out.weight", 0, "out_channels"),
    *((name, "token_embedding.weight", 1, "hidden_size") for name in _TEXT_ENCODERS),
)
"""Part, tensor and axis whose length a key of the part's configuration states (a list of widths: its first)."""


def read_encoder(found: Findings, place: Place, where: str) -> PipelinePart | None:
    """An image or text network, with every problem of it. where: its line in the scale, for wrong settings."""
    kind, path = place.wanted.kind, place.path
    if kind == "inception":
        _check_inception(found, place, where)
    elif kind == "file":
        for name in place.wanted.files or ():
            if path.is_dir() and not (path / name).is_file():
                found.problem(path / name, "no such file", AGAIN)
    elif kind == "processor":
        if not any(path.glob("*processor*.json")):
            found.problem(path, "holds no processor's configuration", AGAIN)
    else:
        return _read_network(found, place, where)
    return None


def _read_network(found: Findings, place: Place, where: str) -> PipelinePart | None:
    from add.models.text import OPEN_CLIP_CONFIG

    kind, path = place.wanted.kind, place.path
    names = found.attempt(f"{place.wanted.name}: {path}", AGAIN, weight_names, path, place.wanted.files)
    if names is None or not _whole_shards(found, path, names):
        return None
    if kind in ("c_text", "open_clip") and not (path / "config.json").is_file():
        return read_part(found, path, "", names, OPEN_CLIP_CONFIG)
    part = read_part(found, path, "", names)
    if part is not None and kind in ("features", "pooled"):
        _check_image_network(found, place, _vision_config(part.config), where)
    tokenizer = any((path / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    if part is not None and kind == "c_text" and not tokenizer:
        found.problem(path, "holds no tokenizer beside the text encoder", AGAIN)
    return part


def _check_image_network(found: Findings, place: Place, config: Mapping[str, Any], where: str) -> None:
    """Whether the layers exist and the image size fits the patches."""
    from add.models.features import BLOCKS, INTERPOLATING

    network = place.wanted.network
    if not isinstance(network, ImageNetworkSpec):
        return
    name, kind = place.wanted.name, str(config.get("model_type"))
    if isinstance(network, FeatureNetworkSpec):
        if kind not in BLOCKS:
            what = f"{name}: networks of type {kind!r} give no features here"
            found.problem(where, what, f"use one of {', '.join(BLOCKS)}")
            return
        blocks = block_count(config)
        if wrong := [layer for layer in network.layers if layer > blocks]:
            what = f"{name}.layers: {place.path} has {blocks} blocks, but layers {wrong} are asked for"
            found.problem(where, what, f"let the layers be in 0 .. {blocks}")
    patch = config.get("patch_size")
    if kind in (*INTERPOLATING, "dinov2") and isinstance(patch, int) and network.image_size % patch:
        what = f"{name}.image_size: {network.image_size} is not a multiple of the patch size {patch}"
        found.problem(where, what, "the pixels beyond the last whole patch would be ignored")


def block_count(config: Mapping[str, Any]) -> int:
    """The number of blocks (of a transformer) or stages (of a convolutional network) of a configuration."""
    if "num_hidden_layers" in config:
        return int(config["num_hidden_layers"])
    return len(config.get("depths") or config.get("hidden_sizes") or ())


def _vision_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The vision half of a whole CLIP's configuration, with its type; else the configuration itself."""
    if config.get("model_type") != "clip":
        return config
    defaults = {"num_hidden_layers": 12, "patch_size": 32}  # transformers' for what the file leaves out
    return {**defaults, **config.get("vision_config", {}), "model_type": "clip_vision_model"}


def _check_inception(found: Findings, place: Place, where: str) -> None:
    file, network = inception_file(place.path), place.wanted.network
    if file.name != INCEPTION_FILE or not file.is_file():
        found.problem(file, f"is not {INCEPTION_FILE}", f"download {INCEPTION_SOURCE}, and name the file")
    if isinstance(network, ImageNetworkSpec) and network.image_size != INCEPTION_SIZE:
        what = f"{place.wanted.name}.image_size is {network.image_size}"
        found.problem(where, what, f"Inception takes {INCEPTION_SIZE} pixels")


def inception_file(path: Path) -> Path:
    """Inception's file, where `path` is it or the directory that holds it."""
    return path / INCEPTION_FILE if path.is_dir() else path
