"""Decoding one image: whole, upright, 8-bit RGB, square; or refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Crop = Literal["none", "center"]

_WHITE = (255, 255, 255, 255)


class ImageSetError(ValueError):
    """An image set that cannot be measured; `path` is the file or directory at fault."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


def decode_image(path: Path) -> Image.Image:
    """A photograph as an upright 8-bit RGB image. Raises ImageSetError where it is broken.

    The EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits, CMYK
    and palettes are converted. Images of several frames and of floating-point pixels are refused.
    """
    image = _opened(path)
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageSetError(path, f"holds {frames} frames; one image a file")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright).astype(np.float64) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ImageSetError(
            path, f"has pixels of mode {upright.mode}, whose range is not known; save it with 8 bits"
        )
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return upright.convert("RGB")


def to_square(image: Image.Image, resolution: int, crop: Crop) -> NDArray[np.uint8]:
    """uint8 (resolution, resolution, 3) by Pillow's antialiased bicubic filter.

    crop 'center' first cuts out the largest centred square (the odd pixel is cut at the right or the bottom);
    'none' keeps the whole picture and changes its aspect ratio.
    """
    if crop == "center":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def decode_sample(path: Path, resolution: int) -> NDArray[np.uint8]:
    """uint8 (resolution, resolution, 3) of an 8-bit RGB PNG of just that size; anything else:
    ImageSetError.
    """
    image = _opened(path)
    if image.format != "PNG":
        raise ImageSetError(path, f"is a {image.format}; samples are PNG, which loses nothing")
    if image.mode != "RGB":
        raise ImageSetError(path, f"has mode {image.mode}; samples are 8-bit RGB")
    if image.size != (resolution, resolution):
        raise ImageSetError(
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
        raise ImageSetError(path, "is missing") from error
    except UnidentifiedImageError as error:
        raise ImageSetError(path, "is empty or not an image") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageSetError(path, f"is truncated or broken: {error}") from error
    return image
