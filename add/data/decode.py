"""How does any photograph become upright 8-bit RGB? One rule, for what is trained on and what is measured."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

_WHITE = (255, 255, 255, 255)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as an upright 8-bit RGB image. Raises ValueError with the reason where it has no such.

    The EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits, CMYK
    and palettes are converted. Images of several frames and of floating-point pixels are refused.
    """
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"holds {frames} frames; one image a file")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright).astype(np.float64) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ValueError(f"has pixels of mode {upright.mode}, whose range is not known; save it with 8 bits")
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return upright.convert("RGB")
