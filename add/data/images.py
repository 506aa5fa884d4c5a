"""A training sample, and how its encoded image becomes pixels: the same for every form of training data."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from add.config.training import ResizeSpec
from add.errors import InputError

_WHITE = (255, 255, 255, 255)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""Suffixes of image files. A file with several frames is refused when it is read."""


@dataclass(frozen=True)
class Sample:
    """One encoded image as stored on disk, its captions (one or more), and a `name` for messages."""

    name: str
    image: bytes
    captions: tuple[str, ...]


class CaptionedSet(ABC):
    """Captioned images with random access, in blocks that are each cheap to read; they are never all in memory.

    left_out: the files that lie in the set's place and are of no sample, counted by `kind_of`.
    """

    left_out: Mapping[str, int]

    @property
    @abstractmethod
    def blocks(self) -> Sequence[int]:
        """Number of samples in each block, in order."""

    @abstractmethod
    def sample(self, block: int, row: int) -> Sample:
        """Sample `row` of a block. Raises InputError naming file, member or row of one that cannot be read."""

    def __len__(self) -> int:
        return sum(self.blocks)

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`, read block by block. Raises InputError as `sample`."""
        ends = np.cumsum(self.blocks)
        owners = np.searchsorted(ends, indices, side="right")
        rows = np.asarray(indices) - (ends - self.blocks)[owners]
        order = np.argsort(owners, kind="stable").tolist()
        found = {position: self.sample(int(owners[position]), int(rows[position])) for position in order}
        return [found[position] for position in range(len(indices))]


def kinds_of(names: Iterable[str]) -> dict[str, int]:
    """How many of these files are hidden, and how many of the others have each suffix; the most frequent first."""
    kinds = (
        "hidden"
        if (base := name.rpartition("/")[2]).startswith(".")
        else f".{base.partition('.')[2].lower()}"
        for name in names
    )
    return dict(Counter(kinds).most_common())


def left_out_line(data: CaptionedSet) -> str | None:
    """What lies in the set's place and is of no sample, for people; None where nothing does."""
    if not data.left_out:
        return None
    shown = [
        f"{count:,} {'without a suffix' if kind == '.' else kind}" for kind, count in data.left_out.items()
    ]
    more = len(shown) - _SHOWN_KINDS
    rest = [f"{more} other kinds"] if more > 0 else []
    return f"{sum(data.left_out.values()):,} files are of no sample: {', '.join(shown[:_SHOWN_KINDS] + rest)}"


_SHOWN_KINDS = 8
_DECODERS = 8
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def text_fault(text: str) -> str | None:
    """Why a caption or a prompt cannot be used; None where it can.

    Refused: texts without a visible character, control characters other than white space, and half characters
    (surrogates, which JSON can hold and no tokenizer takes).
    """
    if not any(not c.isspace() and unicodedata.category(c) != "Cf" for c in text):
        return "is empty"
    if found := _CONTROL.search(text):
        kind = "half character" if found[0] >= "\ud800" else "control character"
        return f"holds the {kind} U+{ord(found[0]):04X}; delete it"
    return None


def caption_text(raw: bytes | str, name: str) -> str:
    """A caption without surrounding white space. Raises InputError where it is not UTF-8, and by `text_fault`."""
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: the caption is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if fault := text_fault(text):
        raise InputError(f"{name}: the caption {fault}")
    return text.strip()


def captions_of(value: object, name: str) -> tuple[str, ...]:
    """A text, or a list of them, as captions. Raises InputError for anything else."""
    texts = value if isinstance(value, list) else [value]
    right = [text for text in texts if isinstance(text, str)]
    if not texts or len(right) < len(texts):
        raise InputError(f"{name}: the caption is {value!r}; it should be a text or a list of texts")
    return tuple(caption_text(text, name) for text in right)


def pixels(
    samples: Sequence[Sample],
    resolution: int,
    resize: ResizeSpec | None = None,
    places: Sequence[tuple[float, float]] | None = None,
) -> NDArray[np.uint8]:
    """Upright RGB, uint8 (B, resolution, resolution, 3), by `upright_rgb` and the resize rule.

    places: for random crops, where each lies: (0, 0) is left and top, (1, 1) right and bottom. Raises InputError
    naming an image that cannot be decoded whole, ValueError for random crops without places.
    """
    rule = resize or ResizeSpec()
    if rule.crop == "random" and places is None:
        raise ValueError("random crops need a place for each sample")
    if rule.crop != "random" or places is None:
        places = [(0.5, 0.5)] * len(samples)
    size, method = (resolution, resolution), Image.Resampling[rule.filter.upper()]

    def square(placed: tuple[Sample, tuple[float, float]]) -> NDArray[np.uint8]:
        sample, place = placed
        image = decoded_rgb(sample.image, sample.name)
        if image.size != size:
            whole = rule.crop == "none"
            image = (
                image.resize(size, method) if whole else ImageOps.fit(image, size, method, centering=place)
            )
        return np.asarray(image)

    # Pillow decodes and resizes without the interpreter's lock.
    with decoders() as threads:
        return np.stack(list(threads.map(square, zip(samples, places, strict=True))))


def decoders() -> ThreadPoolExecutor:
    """Threads that decode images."""
    return ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1))


def decoded(data: bytes, name: object) -> Image.Image:
    """An encoded image, decoded whole. Raises InputError with `name` and the reason where it is broken.

    Pillow's `verify` adds the check sums that decoding leaves out.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        # Pillow would name the buffer, not the file.
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(name, "cannot be read as an image", reason) from None
    return image


def decoded_rgb(data: bytes, name: object) -> Image.Image:
    """The same as an upright 8-bit RGB image (`upright_rgb`), for training and measuring alike. Raises InputError."""
    image = decoded(data, name)
    try:
        return upright_rgb(image)
    except ValueError as error:
        raise InputError(name, "cannot be read as an image", error) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as an upright 8-bit RGB image. Raises ValueError with the reason where that is not possible.

    The EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits, CMYK
    and palettes are converted. Images of several frames and of floating-point pixels are refused.
    """
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"holds {frames} frames; one image a file")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        values = np.asarray(upright)
        grey = values.astype(np.float64) / 257
        grey[values == upright.info.get("transparency")] = 255  # the one value that a PNG may name
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ValueError(f"has pixels of mode {upright.mode}, whose range is not known; save it with 8 bits")
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return upright.convert("RGB")
