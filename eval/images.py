"""Reading image sets: what was sampled, and what it is compared with. A broken or incomplete set is refused."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from add.data.images import decoded, decoded_rgb
from add.data.reading import csv_rows, file_bytes, json_object
from add.errors import InputError

REMEDY = "`addbench repair` lets the next `snakemake` sample the set again"
Crop = Literal["none", "center"]
PREFIX = "captions_"
INDEX = "index.csv"
INDEX_COLUMNS = ("file", "prompt_id", "prompt", "seed", "image_seed")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class ForeignFileError(InputError):
    """An image that sampling did not make lies in a sample directory, which sampling empties first."""


@dataclass(frozen=True)
class SampledImage:
    """One line of a sample directory's index.csv."""

    file: str
    prompt_id: str
    prompt: str
    seed: int
    image_seed: int


@dataclass(frozen=True)
class Images:
    """Image files in order; `decode` gives each as uint8 (h, w, 3), upright RGB, or raises InputError."""

    files: tuple[Path, ...]
    decode: Callable[[Path], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.files)

    def decoded(self, size: int) -> Iterator[list[NDArray[np.uint8]]]:
        """Up to `size` images at a time, each as large as it is."""
        for start in range(0, len(self.files), size):
            yield [self.decode(file) for file in self.files[start : start + size]]

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """Arrays (n, h, w, 3), n <= size, of images that `decode` brings to one size."""
        return (np.stack(images) for images in self.decoded(size))

    def sha256(self) -> str:
        """sha256 over the names and bytes of the images, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class SampleSet(Images):
    """A finished sample directory: square 8-bit RGB PNGs, in the order of the index."""

    directory: Path
    steps: int
    seconds: float
    samples: tuple[SampledImage, ...]
    how: dict[str, Any]
    """How it was sampled, as samples.json has it: `sampler` and `truncated_prompts`, where they are recorded."""


def read_samples(directory: Path, resolution: int) -> SampleSet:
    """Open a sample directory (index.csv, samples.json, PNGs). Raises InputError where it is not whole.

    The images themselves are decoded, and checked, by `batches`.
    """
    finished = directory / "samples.json"
    if not finished.is_file():
        raise InputError(finished, "is missing: sampling did not finish; run it again before scoring")
    facts = read_facts(finished)
    samples = read_index(directory / "index.csv")
    if facts["count"] != len(samples):
        raise InputError(finished, f"count is {facts['count']}, but index.csv lists {len(samples)} images")
    listed = {s.file for s in samples}
    present = {f.name for f in directory.iterdir() if f.suffix.lower() in SUFFIXES}
    for name in sorted(present - listed):
        raise ForeignFileError(directory / name, "is not in index.csv, so it is of no set here; move it away")
    for name in sorted(listed - present):
        raise InputError(
            directory / name, f"is missing ({len(listed - present)} of {len(listed)} are); {REMEDY}"
        )
    files = tuple(directory / sample.file for sample in samples)
    decode = partial(decode_sample, resolution=resolution)
    how: dict[str, Any] = {key: facts[key] for key in ("sampler", "truncated_prompts") if key in facts}
    return SampleSet(files, decode, directory, facts["steps"], float(facts["seconds"]), samples, how)


def image_folder(directory: Path, resolution: int, crop: Crop, count: int | None = None) -> Images:
    """The first `count` images (all if None) of a flat folder, sorted by name, as `to_square` brings them to one size.

    Hidden files are ignored; anything else that is not an image is refused. Raises InputError.
    """
    if not directory.is_dir():
        raise InputError(directory, "no such directory")
    files = [f for f in sorted(directory.iterdir(), key=lambda f: f.name) if not f.name.startswith(".")]
    for entry in files:
        if entry.is_dir() or entry.suffix.lower() not in SUFFIXES:
            raise InputError(entry, f"is not an image; a reference is a flat folder of {', '.join(SUFFIXES)}")
    if count is not None and len(files) < count:
        raise InputError(directory, f"{count} images are asked for, {len(files)} are there")
    if not files:
        raise InputError(directory, "holds no images")
    return _squares(files[:count], resolution, crop)


def named_images(directory: Path, names: Sequence[str], resolution: int, crop: Crop) -> Images:
    """The images `names` of a folder, in that order, as `to_square` brings them to one size. Raises InputError.

    Absent files are counted and the first ones named.
    """
    if not directory.is_dir():
        raise InputError(directory, "no such directory")
    if absent := [name for name in names if not (directory / name).is_file()]:
        some = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise InputError(directory, f"{len(absent)} of {len(names)} images are missing: {some}")
    return _squares([directory / name for name in names], resolution, crop)


def read_facts(path: Path) -> dict[str, Any]:
    """A samples.json with `steps`, `count` and `seconds`. Raises InputError where one is missing."""
    facts = json_object(file_bytes(path), path)
    for key, kind in (("steps", int), ("count", int), ("seconds", int | float)):
        if not isinstance(facts.get(key), kind):
            raise InputError(path, f"field {key!r} is missing or not a number")
    return facts


def read_index(path: Path) -> tuple[SampledImage, ...]:
    """The lines of an index.csv, in order. Raises InputError with file and line."""
    if not path.is_file():
        raise InputError(path, f"is missing, though samples.json is there; {REMEDY}")
    samples: list[SampledImage] = []
    seen: set[str] = set()
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if tuple(header) != INDEX_COLUMNS:
        raise InputError(path, f"line 1: the columns are {header}, not {list(INDEX_COLUMNS)}")
    for line, row in rows:
        samples.append(_sample(path, line, row))
        if samples[-1].file in seen:
            raise InputError(path, f"line {line}: {samples[-1].file} is listed twice")
        seen.add(samples[-1].file)
    if not samples:
        raise InputError(path, "lists no images")
    return tuple(samples)


def write_index(path: Path, samples: Iterable[SampledImage]) -> None:
    """Write an index.csv, for `read_index`."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(INDEX_COLUMNS)
        writer.writerows(map(astuple, samples))


def samples_directory(folder: Path, name: str, steps: int) -> Path:
    """Where the samples of one prompt set and number of steps lie, of a run or a system in `folder`."""
    return folder / "samples" / f"{name}-{steps}step"


def photograph_folder(annotations: Path) -> Path:
    """COCO's layout: annotations/captions_<split>.json lies beside the folder <split> of its images.

    Raises InputError where the file is called otherwise.
    """
    split = annotations.stem.removeprefix(PREFIX)
    if not split or not annotations.name.startswith(PREFIX):
        reason = f"is not called {PREFIX}<split>.json, so its folder of images is not known"
        raise InputError(annotations, reason)
    return annotations.parent.parent / split


def on_disk(annotations: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The listed file names whose photograph is there, sorted. Raises InputError without a folder."""
    folder = photograph_folder(annotations)
    if not folder.is_dir():
        raise InputError(folder, f"no such directory; it should hold the photographs of {annotations}")
    return tuple(sorted(name for name in names if (folder / name).is_file()))


def stated_subset(annotations: Path, names: Sequence[str], stated: int) -> tuple[str, ...]:
    """`on_disk`, with the `stated` number of photographs: a part that grew or shrank is another set.

    Raises InputError with both numbers where they differ.
    """
    there = on_disk(annotations, names)
    if len(there) != stated:
        reason = (
            f"holds {len(there)} of the {len(names)} photographs that {annotations.name} lists, and the scale "
            f"states {stated} (`present`); bring the others back, or state what is there"
        )
        raise InputError(photograph_folder(annotations), reason)
    return there


def decode_image(path: Path) -> Image.Image:
    """A photograph as an upright 8-bit RGB image, as training decodes it. Raises InputError where it is broken."""
    return decoded_rgb(file_bytes(path), path)


def to_square(
    image: Image.Image,
    resolution: int,
    crop: Crop,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> NDArray[np.uint8]:
    """uint8 (resolution, resolution, 3) by one of Pillow's antialiased filters.

    crop 'center' first cuts out the largest centred square (`centred`); 'none' keeps the whole picture and
    changes its aspect ratio.
    """
    if crop == "center":
        image = centred(image)
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), resampling)
    return np.asarray(image, dtype=np.uint8)


def centred(image: Image.Image) -> Image.Image:
    """The largest centred square; the odd pixel is cut at the right or the bottom."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def decode_sample(path: Path, resolution: int) -> NDArray[np.uint8]:
    """uint8 (resolution, resolution, 3) of an 8-bit RGB PNG of this size. Raises InputError for any other file."""
    image = decoded(file_bytes(path), path)
    if image.format != "PNG":
        raise InputError(path, f"is a {image.format}; samples are PNG, which loses nothing")
    if image.mode != "RGB":
        raise InputError(path, f"has mode {image.mode}; samples are 8-bit RGB")
    if image.size != (resolution, resolution):
        raise InputError(
            path, f"is {image.width}x{image.height}; {resolution}x{resolution} is to be measured"
        )
    pixels = np.asarray(image, dtype=np.uint8)
    if (pixels == pixels[0, 0]).all():
        raise InputError(path, "is one colour, which no system draws; look at the system, and sample again")
    return pixels


def _sample(path: Path, line: int, row: list[str]) -> SampledImage:
    if Path(row[0]).name != row[0] or Path(row[0]).suffix.lower() != ".png":
        raise InputError(path, f"line {line}: {row[0]!r} is not the name of a PNG beside the index")
    try:
        return SampledImage(row[0], row[1], row[2], int(row[3]), int(row[4]))
    except ValueError as error:
        raise InputError(path, f"line {line}: seed or image_seed is not a whole number: {error}") from error


def _squares(files: Sequence[Path], resolution: int, crop: Crop) -> Images:
    return Images(tuple(files), lambda file: to_square(decode_image(file), resolution, crop))
