"""Training images with captions: a folder of images and a COCO captions file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from add.data.images import Sample, pixels
from add.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CaptionedImages:
    """Image files and their captions (one or more each), in the order of the image ids."""

    files: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def blocks(self) -> Sequence[int]:
        """One: files lie where they lie."""
        return (len(self.files),)

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`. Raises InputError naming a file that cannot be read."""
        return [Sample(str(self.files[i]), file_bytes(self.files[i]), self.captions[i]) for i in indices]


def file_bytes(file: Path) -> bytes:
    """A file's bytes. Raises InputError where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def load_coco(images: Path, annotations: Path) -> CaptionedImages:
    """Read a COCO captions file. Raises InputError naming the file and what is wrong or missing in it."""
    data, problems = scan_coco(images, annotations)
    if problems:
        raise InputError.of(problems)
    return data


def scan_coco(images: Path, annotations: Path) -> tuple[CaptionedImages, list[str]]:
    """The same with all problems at once; where there are some, the set is what is left of it."""
    nothing = CaptionedImages((), ())
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return nothing, [f"{annotations}: no such file; it should hold the training captions"]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return nothing, [f"{annotations}: not JSON in UTF-8: {error}"]
    problems: list[str] = []
    listed = _entries(annotations, content, "images", {"id": int, "file_name": str}, problems)
    fields = {"id": int, "image_id": int, "caption": str}
    notes = _entries(annotations, content, "annotations", fields, problems)
    names = {entry["id"]: entry["file_name"] for entry in listed}
    captions: dict[int, list[str]] = {}
    for entry in sorted(notes, key=lambda a: a["id"]):
        if entry["image_id"] not in names:
            problems.append(
                f"{annotations}: annotation {entry['id']} is of image {entry['image_id']}, not listed"
            )
        captions.setdefault(entry["image_id"], []).append(entry["caption"])
    bare = [i for i in names if i not in captions]
    if bare:
        problems.append(f"{annotations}: {len(bare)} images without a caption, e.g. id {bare[:1]}")
    if not listed and not problems:
        problems.append(f"{annotations}: lists no images")
    present = {p.name for p in images.iterdir()} if images.is_dir() else set()
    missing = sorted(name for name in names.values() if name not in present)
    if missing:
        problems.append(
            f"{images}: {len(missing)} of {len(names)} images are missing, the first is {missing[0]}"
        )
    ids = [i for i in sorted(names) if i in captions and names[i] in present]
    files = tuple(images / names[i] for i in ids)
    return CaptionedImages(files, tuple(tuple(captions[i]) for i in ids)), problems


def _entries(
    file: Path, content: Any, section: str, fields: dict[str, type], problems: list[str]
) -> list[dict[str, Any]]:
    """The right objects of one section, each with its fields and an id of its own; the others are problems."""
    entries = content.get(section, []) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        problems.append(f"{file}: holds no list {section!r}; is this a COCO captions file?")
        return []
    seen: set[int] = set()
    right = []
    for i, entry in enumerate(entries):
        found = entry if isinstance(entry, dict) else {}
        if lacking := [f for f in fields if f not in found]:
            problems.append(f"{file}: {section}[{i}] lacks {', '.join(lacking)}")
            continue
        wrong = [f for f, kind in fields.items() if type(found[f]) is not kind]
        problems += (f"{file}: {section}[{i}].{f} is {found[f]!r}, not {fields[f].__name__}" for f in wrong)
        if wrong:
            continue
        if found["id"] in seen:
            problems.append(f"{file}: {section}[{i}]: id {found['id']} is there twice")
            continue
        seen.add(found["id"])
        right.append(entry)
    return right


def load_images(files: Sequence[Path], resolution: int) -> Tensor:
    """RGB images as (B, 3, resolution, resolution) float32 in [-1, 1]: shorter side resized, centre crop.

    Photographs of any mode, as the images that are measured (`add.data.images`). Raises InputError naming a
    file that cannot be decoded whole.
    """
    return to_tensor(pixels([Sample(str(file), file_bytes(file), ()) for file in files], resolution))


def to_tensor(images: Any) -> Tensor:
    """uint8 images (B, H, W, 3) as (B, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()
