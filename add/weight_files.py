"""Are a network's weight files whole, and which tensors are in them? By names and headers alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SAFETENSORS = ".safetensors"
INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor: its data type, as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def missing_shards(directory: Path, names: Collection[str]) -> list[str]:
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
