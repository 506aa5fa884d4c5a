"""A folder of images with captions: a metadata file, or a text file beside each image (Hugging Face's imagefolder)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from add.config.training import FolderSpec
from add.data.coco import CaptionedImages
from add.data.images import IMAGE_SUFFIXES, captions_of, kinds_of
from add.data.reading import file_bytes
from add.errors import InputError
from add.files import files_below

METADATA = ("metadata.csv", "metadata.jsonl")


def scan_folder(train: FolderSpec) -> tuple[CaptionedImages, list[str]]:
    """The folder's images with a caption, and all problems. No image is opened."""
    root = Path(train.path)
    if not root.is_dir():
        return CaptionedImages(root, (), ()), [f"{root}: no such folder; it should hold the training images"]
    every = set(files_below(root))
    files = {name for name in every if not name.rpartition("/")[2].startswith(".")}
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
        kept = {name: captions[name] for name in images if captions.get(name)}
        others = kinds_of(every - kept.keys() - {metadata[0]})
        found = CaptionedImages(root, tuple(kept), tuple(kept.values()), others)
    else:
        paired = tuple(_with_text(root, images, files, problems))
        others = kinds_of(every - {*paired, *map(_text_of, paired)})
        found = CaptionedImages(root, paired, None, others)
    if not images:
        problems.append(f"{root}: holds no image; they end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found, problems


def _text_of(image: str) -> str:
    return Path(image).with_suffix(".txt").as_posix()


def _with_text(root: Path, images: list[str], files: set[str], problems: list[str]) -> Iterator[str]:
    """The images that have their own text file."""
    owners: dict[str, str] = {}
    for name in images:
        text = _text_of(name)
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
    for line, row in rows(text, column):
        if isinstance(row, str):
            wrong = row
        elif not isinstance(name := row["file_name"], str) or name not in images:
            wrong = f"a caption without an image: there is no {name!r} in {file.parent}"
        elif name in found:
            wrong = f"{name} is there twice; give several captions as a list in .jsonl"
        else:
            found[name] = ()
            try:
                found[name] = captions_of(row[column], f"{file}:{line}")
            except InputError as error:
                problems += error.problems
            continue
        problems.append(f"{file}:{line}: {wrong}")
    return found


def _csv_rows(text: str, column: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The line and the values of each row, or what is wrong with it."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if lacking := [name for name in ("file_name", column) if name not in header]:
            yield 1, f"has no column {' and no '.join(lacking)}; it has {', '.join(header)}"
            return
        for row in reader:
            whole = len(row) == len(header)
            wrong = f"{len(row)} fields, the header has {len(header)}"
            yield reader.line_num, dict(zip(header, row, strict=True)) if whole else wrong
    except csv.Error as error:
        yield reader.line_num, f"not CSV: {error}"


def _json_rows(text: str, column: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The same of JSON lines; blank ones are left out."""
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            yield line, f"not JSON: {error.msg}"
            continue
        lacking = [k for k in ("file_name", column) if not isinstance(row, dict) or k not in row]
        yield line, f"has no field {' and no '.join(lacking)}" if lacking else row
