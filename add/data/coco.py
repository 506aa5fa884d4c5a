"""COCO captions files, for training and for prompts, and the folder of images beside one as a training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from add.config.training import CocoSpec
from add.data.images import CaptionedSet, Sample, caption_text, kinds_of, text_fault
from add.data.reading import file_bytes, json_object, utf8_text
from add.errors import InputError


@dataclass(frozen=True)
class CaptionedImages(CaptionedSet):
    """Image files below `root`, each with one caption or more; one block, since files lie where they lie.

    captions: of each image; None where each has its own text file, cat.txt beside cat.jpg.
    """

    root: Path
    images: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...] | None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def blocks(self) -> Sequence[int]:
        """As `CaptionedSet`."""
        return (len(self.images),)

    def sample(self, block: int, row: int) -> Sample:
        """As `CaptionedSet`."""
        image = self.root / self.images[row]
        if self.captions is not None:
            return Sample(str(image), file_bytes(image), self.captions[row])
        text = image.with_suffix(".txt")
        return Sample(str(image), file_bytes(image), (caption_text(file_bytes(text), str(text)),))


@dataclass(frozen=True)
class CocoCaptions:
    """A COCO captions file: image id -> file name, and image id -> its (annotation id, caption) pairs, as listed."""

    names: dict[int, str]
    captions: dict[int, list[tuple[int, str]]]

    def texts(self, image_id: int) -> list[str]:
        """An image's captions by annotation id."""
        return [text for _, text in sorted(self.captions.get(image_id, []))]


def scan_coco(train: CocoSpec) -> tuple[CaptionedImages, list[str]]:
    """The listed images that are there, with a caption, in the order of their ids, and all problems."""
    root = Path(train.images)
    try:
        read, problems = scan_captions(Path(train.annotations))
    except InputError as error:
        return CaptionedImages(root, (), ()), list(error.problems)
    names = read.names
    present = {p.name for p in root.iterdir()} if root.is_dir() else set()
    if missing := sorted(set(names.values()) - present):
        problems.append(
            f"{root}: {len(missing)} of {len(names)} images are missing, the first is {missing[0]}"
        )
    ids = [i for i in sorted(names) if i in read.captions and names[i] in present]
    captions = tuple(tuple(read.texts(i)) for i in ids)
    used = {names[i] for i in ids}
    return CaptionedImages(root, tuple(names[i] for i in ids), captions, kinds_of(present - used)), problems


def read_captions(file: Path) -> CocoCaptions:
    """Every image of a COCO captions file, each with one caption or more. Raises InputError with every problem."""
    read, problems = scan_captions(file)
    if problems:
        raise InputError.of(problems)
    return read


def scan_captions(file: Path) -> tuple[CocoCaptions, list[str]]:
    """What is right in the file, and every problem by field. Raises InputError where it is not a JSON object.

    Captions stay as they stand in the file; one that cannot be used (`text_fault`) is a problem.
    """
    content = json_object(utf8_text(file), file)
    problems: list[str] = []
    names: dict[int, str] = {}
    seen: set[str] = set()
    for where, entry in _entries(file, content, "images", {"id": int, "file_name": str}, problems):
        if entry["file_name"] in seen:
            problems.append(f"{where}.file_name: {entry['file_name']!r} is listed twice")
        seen.add(entry["file_name"])
        names[entry["id"]] = entry["file_name"]
    captions: dict[int, list[tuple[int, str]]] = {}
    fields = {"id": int, "image_id": int, "caption": str}
    for where, entry in _entries(file, content, "annotations", fields, problems):
        text = entry["caption"]
        if entry["image_id"] not in names:
            problems.append(f"{where}.image_id: no image has the id {entry['image_id']}")
        elif fault := text_fault(text):
            problems.append(f"{where}.caption: {fault}")
        captions.setdefault(entry["image_id"], []).append((entry["id"], text))
    problems += (f"{file}: annotations: image {i} has no caption" for i in names if i not in captions)
    return CocoCaptions(names, captions), problems


def _entries(
    file: Path, content: dict[str, Any], section: str, fields: dict[str, type], problems: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The right objects of one section and their places, each with its fields and an id of its own."""
    entries = content.get(section)
    if not isinstance(entries, list):
        problems.append(f"{file}: {section}: missing, or not a list; is this a COCO captions file?")
        return
    if not entries:
        problems.append(f"{file}: {section}: is empty; it lists no {section}")
    seen: set[int] = set()
    for i, entry in enumerate(entries):
        where = f"{file}: {section}[{i}]"
        if not isinstance(entry, dict):
            problems.append(f"{where}: is not an object")
            continue
        wrong = [name for name, kind in fields.items() if type(entry.get(name)) is not kind]
        for name in wrong:
            found = repr(entry[name]) if name in entry else "missing"
            problems.append(f"{where}.{name}: must be of type {fields[name].__name__}, is {found}")
        if wrong:
            continue
        if entry["id"] in seen:
            problems.append(f"{where}.id: {section[:-1]} {entry['id']} is listed twice")
            continue
        seen.add(entry["id"])
        yield where, entry
