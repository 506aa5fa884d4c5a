"""Decoding one image: whole, upright, 8-bit RGB, square; or refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from add.data.images import upright_rgb
from add.errors import InputError

Crop = Literal["none", "center"]


def decode_image(path: Path) -> Image.Image:
    """A photograph as an upright 8-bit RGB image. Raises InputError where it is broken.

    By the rule that training images follow too (`add.data.images.upright_rgb`); what it refuses is refused.
    """
    image = _opened(path)
    try:
        return upright_rgb(image)
    except ValueError as error:
        raise InputError(path, str(error)) from error


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
    """uint8 (resolution, resolution, 3) of an 8-bit RGB PNG of just that size; anything else:
    InputError.
    """
    image = _opened(path)
    if image.format != "PNG":
        raise InputError(path, f"is a {image.format}; samples are PNG, which loses nothing")
    if image.mode != "RGB":
        raise InputError(path, f"has mode {image.mode}; samples are 8-bit RGB")
    if image.size != (resolution, resolution):
        raise InputError(
            path, f"is {image.width}x{image.height}; {resolution}x{resolution} is to be measured"
        )
    return np.asarray(image, dtype=np.uint8)


def _opened(path: Path) -> Image.Image:
    """Open and decode the whole file; Pillow's `verify` adds the check sums that decoding leaves out."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
        image = Image.open(io.BytesIO(data))
        image.load()
    except FileNotFoundError as error:
        raise InputError(path, "is missing") from error
    except UnidentifiedImageError as error:
        raise InputError(path, "is empty or not an image") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(path, f"is truncated or broken: {error}") from error
    return image
