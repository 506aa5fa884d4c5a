"""A folder of images with captions: a metadata file, or a text file beside each image (Hugging Face's imagefolder)."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from add.config.data import FolderSpec
from add.data.coco import file_bytes
from add.data.images import IMAGE_SUFFIXES, Sample, caption_text, captions_of
from add.errors import InputError

METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class FolderImages:
    """Images by relative path, sorted. Memory: the paths and, with a metadata file, the captions.

    captions: of each image, from the metadata file; None where each image has its own text file.
    """

    root: Path
    images: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...] | None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def blocks(self) -> Sequence[int]:
        """One: files lie where they lie."""
        return (len(self.images),)

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`. Raises InputError naming a file that cannot be read."""
        return [self._sample(i) for i in indices]

    def _sample(self, i: int) -> Sample:
        image = self.root / self.images[i]
        if self.captions is not None:
            captions = self.captions[i]
        else:
            text = image.with_suffix(".txt")
            captions = (caption_text(file_bytes(text), str(text)),)
        return Sample(str(image), file_bytes(image), captions)


def scan_folder(train: FolderSpec) -> tuple[FolderImages, list[str]]:
    """The folder's images with a caption, and all problems. No image is opened."""
    root = Path(train.path)
    if not root.is_dir():
        return FolderImages(root, (), ()), [f"{root}: no such folder; it should hold the training images"]
    files = set(_files(root))
    problems = [
        f"{root / name}: a metadata file below the folder; keep one, in {root} itself"
        for name in sorted(files)
        if "/" in name and name.rpartition("/")[2] in METADATA
    ]
    images = sorted(name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    metadata = [name for name in METADATA if name in files]
    if len(metadata) > 1:
        problems.append(f"{root}: holds {' and '.join(metadata)}; keep one of them")
    if metadata:
        captions = _metadata(root / metadata[0], train.caption_column, set(images), problems)
        problems += (
            f"{root / name}: an image without a caption: {metadata[0]} does not list it"
            for name in images
            if name not in captions
        )
        kept = tuple(name for name in images if captions.get(name))
        found = FolderImages(root, kept, tuple(captions[name] for name in kept))
    else:
        found = FolderImages(root, tuple(_with_text(root, images, files, problems)), None)
    if not images:
        problems.append(f"{root}: holds no image; they end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found, problems


def _files(root: Path) -> Iterator[str]:
    """Relative POSIX paths of all files but hidden ones."""
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        prefix = Path(folder).relative_to(root).as_posix() + "/"
        for name in names:
            if not name.startswith("."):
                yield name if prefix == "./" else prefix + name


def _with_text(root: Path, images: list[str], files: set[str], problems: list[str]) -> Iterator[str]:
    """The images that have their own text file."""
    owners: dict[str, str] = {}
    for name in images:
        text = Path(name).with_suffix(".txt").as_posix()
        if text not in files:
            problems.append(
                f"{root / name}: an image without a caption: there is no {Path(text).name} beside it"
            )
        elif text in owners:
            problems.append(
                f"{root / name}: shares {Path(text).name} with {Path(owners[text]).name}; rename one"
            )
        else:
            owners[text] = name
            yield name
    orphans = sorted(name for name in files if name.endswith(".txt") and name not in owners)
    problems += (f"{root / name}: a caption without an image" for name in orphans)


def _metadata(file: Path, column: str, images: set[str], problems: list[str]) -> dict[str, tuple[str, ...]]:
    """Captions by image. A wrong row is a problem, and its image gets no caption."""
    found: dict[str, tuple[str, ...]] = {}
    raw = file_bytes(file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problems.append(f"{file}:{line}: is not UTF-8; save it as UTF-8")
        return dict.fromkeys(images, ())
    rows = _csv_rows if file.suffix == ".csv" else _json_rows
    for line, row in rows(file, text, column, problems):
        name = row["file_name"]
        if not isinstance(name, str) or name not in images:
            problems.append(
                f"{file}:{line}: a caption without an image: there is no {name!r} in {file.parent}"
            )
        elif name in found:
            problems.append(
                f"{file}:{line}: {name} is there twice; give several captions as a list in .jsonl"
            )
        else:
            found[name] = ()
            try:
                found[name] = captions_of(row[column], f"{file}:{line}")
            except InputError as error:
                problems += error.problems
    return found


def _csv_rows(
    file: Path, text: str, column: str, problems: list[str]
) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if lacking := [name for name in ("file_name", column) if name not in header]:
            problems.append(f"{file}:1: has no column {' and no '.join(lacking)}; it has {', '.join(header)}")
            return
        for row in reader:
            if len(row) != len(header):
                problems.append(f"{file}:{reader.line_num}: {len(row)} fields, the header has {len(header)}")
            else:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        problems.append(f"{file}:{reader.line_num}: not CSV: {error}")


def _json_rows(
    file: Path, text: str, column: str, problems: list[str]
) -> Iterator[tuple[int, dict[str, object]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            problems.append(f"{file}:{line}: not JSON: {error.msg}")
            continue
        lacking = [k for k in ("file_name", column) if not isinstance(row, dict) or k not in row]
        if lacking:
            problems.append(f"{file}:{line}: has no field {' and no '.join(lacking)}")
        else:
            yield line, row
