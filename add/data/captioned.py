"""Training images with captions: a folder of images and a COCO captions file, in a seeded order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    for section, fields in (("images", ("id", "file_name")), ("annotations", ("id", "image_id", "caption"))):
        for i, entry in enumerate(content.get(section, ())):
            lacking = [f for f in fields if f not in entry]
            if lacking:
                raise ValueError(f"{annotations}: {section}[{i}] lacks {', '.join(lacking)}")
    names = {entry["id"]: entry["file_name"] for entry in content.get("images", ())}
    captions: dict[int, list[str]] = {}
    for entry in sorted(content.get("annotations", ()), key=lambda a: a["id"]):
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


def load_images(files: Sequence[Path], resolution: int) -> Tensor:
    """RGB images as (B, 3, resolution, resolution) float32 in [-1, 1]: shorter side resized, centre crop.

    Raises ValueError naming a file that cannot be decoded whole.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    arrays = []
    for file in files:
        try:
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
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
