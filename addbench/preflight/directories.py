"""Is a network's directory whole, do its parts belong together, and can it do what the scale asks?

Read from configurations and headers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from add.config.scale import FeatureNetworkSpec, ImageNetworkSpec
from add.models.weights import TensorInfo, WeightsError, missing_shards, read_header, weight_names
from addbench.preflight import PreflightProblem
from addbench.preflight.places import Place

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
        """The first tensor whose name ends so; libraries put different prefixes before one name."""
        return next((t for name, t in sorted(self.tensors.items()) if name.endswith(suffix)), None)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline directory that can be read; `encoders` are its one or two text encoders."""

    place: Place
    unet: PipelinePart
    vae: PipelinePart
    encoders: tuple[PipelinePart, ...]
    files: tuple[str, ...]

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


def read_pipeline(place: Place) -> tuple[Pipeline | None, list[PreflightProblem]]:
    """The pipeline, and every problem of its files; None where too much is missing to look further."""
    problems: list[PreflightProblem] = []
    directory, wanted = place.path, place.wanted
    where = str(directory)
    try:
        names = tuple(weight_names(directory, wanted.files))
        from add.models.text import encoder_names

        encoders = encoder_names(read_json(directory / "model_index.json"), where)
        schedule_problems(directory, problems)
    except (WeightsError, ValueError) as error:
        return None, [PreflightProblem(f"{wanted.name}: {where}", _after(error, where), AGAIN)]
    problems += [
        PreflightProblem(str(directory / shard), "this shard of the weights is missing", AGAIN)
        for shard in missing_shards(directory, names)
    ]
    parts: dict[str, PipelinePart] = {}
    for name in ("unet", "vae", *encoders):
        part, wrong = read_part(directory, name, [n for n in names if n.startswith(f"{name}/")])
        problems += wrong
        if part is not None:
            parts[name] = part
    for name in ("tokenizer", "tokenizer_2")[: len(encoders)]:
        if not _has_vocabulary(directory / name):
            what = "holds no vocabulary (tokenizer.json, or vocab.json with merges.txt)"
            problems.append(PreflightProblem(str(directory / name), what, AGAIN))
    if len(parts) < 2 + len(encoders):
        return None, problems
    read = tuple(parts[name] for name in encoders)
    pipeline = Pipeline(place, parts["unet"], parts["vae"], read, names)
    problems += misfit_problems(pipeline)
    return pipeline, problems


def read_part(
    directory: Path, folder: str, names: list[str]
) -> tuple[PipelinePart | None, list[PreflightProblem]]:
    """One network: its config.json below `folder`, and the headers of its weight files `names`."""
    where = directory / folder
    try:
        config = read_json(where / "config.json")
    except ValueError as error:
        return None, [PreflightProblem(str(where), _after(error, str(where)), AGAIN)]
    if not names:
        return None, [PreflightProblem(str(where), "holds no .safetensors file", AGAIN)]
    tensors: dict[str, TensorInfo] = {}
    problems = []
    for name in names:
        try:
            tensors |= read_header(directory / name)
        except ValueError as error:
            problems.append(
                PreflightProblem(str(directory / name), _after(error, str(directory / name)), AGAIN)
            )
    if problems:
        return None, problems
    return PipelinePart(config, tensors, tuple(names)), []


def misfit_problems(pipeline: Pipeline) -> list[PreflightProblem]:
    """What does not fit within a pipeline: by its configurations, and of weights to their configurations."""
    from add.models.text import incompatibilities

    place = pipeline.place
    where = f"{place.wanted.name}: {place.path}"
    remedy = "these parts are of different networks; take all of them from one"
    encoders = [_encoder_config(part.config) for part in pipeline.encoders]
    found = incompatibilities(dict(pipeline.unet.config), encoders, dict(pipeline.vae.config))
    problems = [PreflightProblem(where, what, remedy) for what in found]
    for part, config, what in _weights_of_others(pipeline):
        text = f"the weights in {part} are not of the network that its config.json describes: {what}"
        problems.append(PreflightProblem(where, text, f"restore {part}, both files ({config})"))
    return problems


def schedule_problems(directory: Path, problems: list[PreflightProblem]) -> None:
    """Add what is wrong with the noise schedule."""
    from add.models.diffusion import scheduler_config
    from add.noise import NoiseSchedule

    try:
        NoiseSchedule.from_scheduler(scheduler_config(directory))
    except (OSError, ValueError, KeyError) as error:
        what = f"the noise schedule cannot be used: {str(error).splitlines()[0]}"
        problems.append(PreflightProblem(str(directory / "scheduler"), what, AGAIN))


def read_json(file: Path) -> dict[str, Any]:
    """A configuration. Raises ValueError that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: is not a JSON object; is it a network's configuration?")
    return content


def _weights_of_others(pipeline: Pipeline) -> Iterator[tuple[str, str, str]]:
    """Part, file, and which tensor has another shape than the configuration makes it."""
    unet, vae = pipeline.unet.config, pipeline.vae.config
    checks = [
        ("unet", pipeline.unet, "conv_in.weight", 1, unet.get("in_channels"), "in_channels"),
        ("unet", pipeline.unet, "conv_in.weight", 0, unet["block_out_channels"][0], "block_out_channels"),
        ("unet", pipeline.unet, "conv_out.weight", 0, unet.get("out_channels"), "out_channels"),
        (
            "unet",
            pipeline.unet,
            "attn2.to_k.weight",
            1,
            unet.get("cross_attention_dim"),
            "cross_attention_dim",
        ),
        ("vae", pipeline.vae, "decoder.conv_in.weight", 1, vae.get("latent_channels"), "latent_channels"),
        ("vae", pipeline.vae, "decoder.conv_out.weight", 0, vae.get("out_channels"), "out_channels"),
    ]
    for name, part in zip(("text_encoder", "text_encoder_2"), pipeline.encoders, strict=False):
        width = _encoder_config(part.config).hidden_size
        checks.append((name, part, "token_embedding.weight", 1, width, "hidden_size"))
    for name, part, tensor, axis, expected, key in checks:
        found = part.ending(tensor)
        if found is None:
            yield name, "config.json", f"there is no tensor {tensor}"
        elif isinstance(expected, int) and found.shape[axis] != expected:
            yield name, key, f"{tensor} is {list(found.shape)}, {key} is {expected}"


def _encoder_config(config: Mapping[str, Any]) -> SimpleNamespace:
    """A text encoder's configuration with transformers' defaults for what the file leaves out."""
    return SimpleNamespace(**{"hidden_size": 512, "projection_dim": 512, **config})


def _has_vocabulary(directory: Path) -> bool:
    there = {name for name in ("tokenizer.json", "vocab.json", "merges.txt") if (directory / name).is_file()}
    return "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there


def _after(error: Exception, where: str) -> str:
    """What an error says after the place that it names itself."""
    return str(error).splitlines()[0].removeprefix(where).removeprefix(": ")


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
