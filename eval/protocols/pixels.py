"""What happens to a decoded image before an extractor sees it: crop, resize, re-encoding, the library's resize."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image

from eval.images import Crop, Images, centred, to_square
from eval.metrics.features import RESIZE_FILTER, Extractor, stacked
from eval.metrics.measure import Features

if TYPE_CHECKING:
    import torch

    from eval.protocols.plan import Preprocessing
    from eval.protocols.spec import Filter, ResizeName


RESIZES: dict[ResizeName, str] = {
    "clean": RESIZE_FILTER,
    "pytorch": "PyTorch F.interpolate bilinear, not antialiased, floating point (pytorch-fid)",
    "tensorflow1": "TensorFlow 1 bilinear, not antialiased, corners not aligned, floating point (original FID)",
    "pillow_bilinear": "Pillow bilinear, antialiased, 8 bit (torchvision's Resize of a PIL image)",
    "pillow_bicubic": "Pillow bicubic, antialiased, 8 bit",
}
"""By name, what a protocol calls the resize to the extractor's input."""

_LIBRARY: dict[ResizeName, tuple[str, bool, str]] = {
    "clean": ("PIL", False, "bicubic"),
    "pytorch": ("PyTorch", False, "bilinear"),
    "pillow_bilinear": ("PIL", True, "bilinear"),
    "pillow_bicubic": ("PIL", True, "bicubic"),
}
"""clean-fid's make_resizer: library, whether it rounds to 8 bits, filter."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image on its way to the extractor's resize: `side` in pixels (None: as filed), encoding last."""

    side: int | None
    crop: Crop
    filter: Filter
    encoding: str

    def __call__(self, image: Image.Image) -> Pixels:
        """uint8 (h, w, 3) of an upright 8-bit RGB image."""
        if self.side is not None:
            pixels = to_square(image, self.side, self.crop, Image.Resampling[self.filter.upper()])
        else:
            pixels = np.asarray(centred(image) if self.crop == "center" else image, dtype=np.uint8)
        return reencoded(pixels, self.encoding)


def reencoded(pixels: Pixels, encoding: str) -> Pixels:
    """uint8 (h, w, 3) saved to a file and read back: 'png' loses nothing, 'jpeg-75' is Pillow's quality 75, 4:2:0."""
    if encoding == "png":
        return pixels
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=int(encoding.removeprefix("jpeg-")))
    with Image.open(stream) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def encoding_text(encoding: str) -> str:
    """An encoding as a protocol's `file_format` calls it."""
    if encoding == "png":
        return "PNG, RGB, 8 bit"
    return f"JPEG, quality {encoding.removeprefix('jpeg-')}, 4:2:0 (Pillow), RGB, 8 bit"


def resizer(name: ResizeName, size: int) -> Callable[[Pixels], NDArray[np.float32]]:
    """uint8 (h, w, 3) -> float32 (size, size, 3), 0 to 255, by the library called `name`."""
    if name == "tensorflow1":
        return lambda image: tensorflow1_bilinear(image, size)
    from cleanfid.resize import make_resizer

    with warnings.catch_warnings():  # make_resizer turns all warnings off for good
        resize = make_resizer(*_LIBRARY[name], (size, size))

    def one(image: Pixels) -> NDArray[np.float32]:
        # Arrays that Pillow lends are read-only, which PyTorch warns about.
        return np.asarray(resize(image if image.flags.writeable else image.copy()), dtype=np.float32)

    return one


def tensorflow1_bilinear(image: Pixels, size: int) -> NDArray[np.float32]:
    """float32 (size, size, 3): TensorFlow 1's ResizeBilinear with align_corners=False, as original FID has it.

    Output pixel i lies at i * (input / output) of the input, with no half-pixel shift, and is a linear mean of
    two neighbours in each direction, however much is shrunk (tensorflow/core/kernels/image/resize_bilinear_op;
    single precision in that order, so that the bits agree).
    """
    x = image.astype(np.float32)
    top, bottom, down = _neighbours(image.shape[0], size)
    left, right, along = _neighbours(image.shape[1], size)
    upper = x[top][:, left] + (x[top][:, right] - x[top][:, left]) * along[None, :, None]
    lower = x[bottom][:, left] + (x[bottom][:, right] - x[bottom][:, left]) * along[None, :, None]
    return np.asarray(upper + (lower - upper) * down[:, None, None])


def _neighbours(length: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each output place: the input's place before it, the one after, and the share of the latter."""
    place = np.arange(size, dtype=np.float32) * np.float32(np.float32(length) / np.float32(size))
    before = np.floor(place).astype(np.intp)
    return before, np.minimum(before + 1, length - 1), place - before.astype(np.float32)


def features_by_preprocessing(
    images: Images,
    preprocessings: Sequence[Preprocessing],
    extractors: Mapping[str, Extractor],
    batch: int,
    directory: Path,
) -> dict[Preprocessing, Features]:
    """float32 (n, d) for each preprocessing, in the order of `images`, each in a file of its own below `directory`.

    Raises InputError at a broken image.
    """
    from tqdm import tqdm

    directory.mkdir(parents=True, exist_ok=True)
    ways: dict[Picture, dict[tuple[ResizeName, int], list[Preprocessing]]] = {}
    for each in dict.fromkeys(preprocessings):
        resize = each.resize, extractors[each.extractor].size
        ways.setdefault(each.picture, {}).setdefault(resize, []).append(each)
    found: dict[Preprocessing, Features] = {}
    start, total = 0, -(-len(images) // batch)
    for decoded in tqdm(images.decoded(batch), desc=directory.name, total=total, mininterval=5):
        end = start + len(decoded)
        for picture, resizes in ways.items():
            prepared = [picture(Image.fromarray(image)) for image in decoded]
            for (name, size), sharing in resizes.items():
                pixels = stacked(list(map(resizer(name, size), prepared)))
                for each in sharing:
                    extractor = extractors[each.extractor]
                    rows = extractor.of_pixels(symmetric(pixels) if each.symmetric else pixels)
                    if each not in found:
                        file = directory / f"{len(found):03d}.npy"
                        found[each] = open_memmap(file, "w+", np.float32, (len(images), rows.shape[1]))
                    found[each][start:end] = rows
        start = end
    return found


def symmetric(pixels: torch.Tensor) -> torch.Tensor:
    """0..255 moved so that Inception's own (x - 128) / 128 gives x / 127.5 - 1, as pytorch-fid has it."""
    return (pixels / 127.5 - 1) * 128 + 128
