"""Training images with captions: a folder of images and a COCO captions file, in a seeded order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class CaptionedImages:
    """Image files and their captions (one or more each), in the order of the image ids."""

    files: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.files)


def load_coco(images: Path, annotations: Path) -> CaptionedImages:
    """Read a COCO captions file. Raises ValueError naming the file and what is wrong or missing in it."""
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{annotations}: no such file; it should hold the training captions") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{annotations}: not JSON in UTF-8: {error}") from None
    listed = _entries(annotations, content, "images", {"id": int, "file_name": str})
    notes = _entries(annotations, content, "annotations", {"id": int, "image_id": int, "caption": str})
    names = {entry["id"]: entry["file_name"] for entry in listed}
    captions: dict[int, list[str]] = {}
    for entry in sorted(notes, key=lambda a: a["id"]):
        if entry["image_id"] not in names:
            raise ValueError(
                f"{annotations}: annotation {entry['id']} is of image {entry['image_id']}, not listed"
            )
        captions.setdefault(entry["image_id"], []).append(entry["caption"])
    bare = [i for i in names if i not in captions]
    if bare or not names:
        raise ValueError(f"{annotations}: {len(bare) or 'no'} images without a caption, e.g. id {bare[:1]}")
    present = {p.name for p in images.iterdir()} if images.is_dir() else set()
    missing = sorted(name for name in names.values() if name not in present)
    if missing:
        raise ValueError(
            f"{images}: {len(missing)} of {len(names)} images are missing, the first is {missing[0]}"
        )
    ids = sorted(names)
    return CaptionedImages(tuple(images / names[i] for i in ids), tuple(tuple(captions[i]) for i in ids))


def _entries(file: Path, content: Any, section: str, fields: dict[str, type]) -> list[dict[str, Any]]:
    """The objects of one section, each with its fields and an id of its own. Raises ValueError."""
    entries = content.get(section, []) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"{file}: holds no list {section!r}; is this a COCO captions file?")
    seen: set[int] = set()
    for i, entry in enumerate(entries):
        found = entry if isinstance(entry, dict) else {}
        lacking = [f for f in fields if f not in found]
        if lacking:
            raise ValueError(f"{file}: {section}[{i}] lacks {', '.join(lacking)}")
        for field, kind in fields.items():
            if type(found[field]) is not kind:
                raise ValueError(f"{file}: {section}[{i}].{field} is {found[field]!r}, not {kind.__name__}")
        if found["id"] in seen:
            raise ValueError(f"{file}: {section}[{i}]: id {found['id']} is there twice")
        seen.add(found["id"])
    return entries


def load_images(files: Sequence[Path], resolution: int) -> Tensor:
    """RGB images as (B, 3, resolution, resolution) float32 in [-1, 1]: shorter side resized, centre crop.

    Photographs of any mode, as the images that are measured (`add.data.decode`). Raises ValueError naming a
    file that cannot be decoded whole.
    """
    from PIL import Image, ImageOps

    from add.data.decode import upright_rgb

    arrays = []
    for file in files:
        try:
            with Image.open(file) as opened:
                image = upright_rgb(opened)
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file}: cannot be read as an image: {error}") from None
        if image.size != (resolution, resolution):
            image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC)
        arrays.append(np.asarray(image))
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return pixels.float().div_(127.5).sub_(1).contiguous()


def sample_indices(n: int, first: int, count: int, seed: int) -> list[int]:
    """Indices of samples `first` .. `first + count` of an endless seeded order: epochs of permutations of n.

    A function of its arguments alone, so a resumed run sees what the unbroken one would have seen.
    """
    indices: list[int] = []
    epoch = first // n
    while len(indices) < count:
        order = np.random.default_rng([seed, epoch]).permutation(n)
        start = first + len(indices) - epoch * n
        indices += order[start : start + count - len(indices)].tolist()
        epoch += 1
    return indices
