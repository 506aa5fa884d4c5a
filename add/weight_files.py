"""Which files of a network's directory are its weights, and are they whole? By names and headers alone.

A hub's snapshot holds more than is loaded: half-precision variants, single-file checkpoints, other frameworks'
formats. Only what is loaded makes a network what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PIPELINE_INDEX = "model_index.json"
PIPELINE_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
"""The folders of a diffusers pipeline that hold weights which are loaded here."""

SAFETENSORS = ".safetensors"
INDEX = ".safetensors.index.json"
_STEMS = ("model", "diffusion_pytorch_model")  # as transformers and diffusers name them
_OPEN_CLIP_STEMS = ("open_clip_model", "open_clip_pytorch_model")
_SHARD = r"(?:-\d{5}-of-\d{5})?"


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor: its data type, as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def loaded_files(names: Iterable[str]) -> list[str]:
    """Those of a directory's files (relative posix names) that loading its network reads weights from, sorted.

    Of a pipeline the four parts' files, else those of the directory itself; files of the variant `fp16` only
    where there are no plain ones. A directory of another layout: every safetensors file below it.
    """
    found = sorted(names)
    if PIPELINE_INDEX in found:
        chosen = [name for part in PIPELINE_PARTS for name in _chosen(found, part, _STEMS)]
    else:
        chosen = _chosen(found, "", _STEMS) if "config.json" in found else []
        chosen = chosen or _chosen(found, "", _OPEN_CLIP_STEMS)
    return sorted(chosen) or [name for name in found if name.endswith(SAFETENSORS)]


def directory_files(directory: Path) -> list[str]:
    """Relative posix names of all files below a directory."""
    return [file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file()]


def missing_shards(directory: Path, names: Iterable[str]) -> list[str]:
    """Names of the weight files that an index beside the files `names` lists and that are not there."""
    absent: list[str] = []
    for folder in sorted({PurePosixPath(name).parent for name in names}):
        for index in sorted((directory / folder).glob(f"*{INDEX}")):
            stem = index.name.removesuffix(INDEX)
            if (index.parent / f"{stem}{SAFETENSORS}").is_file():
                continue  # one whole file stands beside the shards
            if not any(PurePosixPath(name).name.startswith(f"{stem}-") for name in names):
                continue  # the index of a variant that is not loaded
            content = json.loads(index.read_text(encoding="utf-8"))
            shards = sorted(set(content.get("weight_map", {}).values()))
            absent += [(folder / s).as_posix() for s in shards if not (index.parent / s).is_file()]
    return absent


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file by name; the weights themselves are not read.

    Raises ValueError where the file is none, or is shorter than its header says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return {name: TensorInfo(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: is not a whole safetensors file: {error}") from None


def _chosen(names: Iterable[str], folder: str, stems: tuple[str, ...]) -> list[str]:
    """Weights of one folder: those of the first stem that has any, plain ones before fp16."""
    here = [name for name in names if PurePosixPath(name).parent == PurePosixPath(folder)]
    for variant in ("", r"\.fp16"):
        for stem in stems:
            # The variant stands before the shard's number, or after it, as older libraries wrote it.
            form = re.compile(rf"{stem}(?:{variant}{_SHARD}|{_SHARD}{variant})\.safetensors")
            if chosen := [name for name in here if form.fullmatch(PurePosixPath(name).name)]:
                return chosen
    return []
