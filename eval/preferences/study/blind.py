"""Hiding which system made an image: opaque codes, and PNGs that hold pixels and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Letters alone: a spreadsheet must not take a code for a number or a date. No vowels: no words by accident.
_LETTERS = "bcdfghjkmnpqrstvwxz"


def code(seed: int, kind: str, *parts: str, length: int = 12) -> str:
    """`kind` and `length` letters (4.2 bits each) that depend on (seed, kind, parts).

    HMAC-SHA256 keyed by the study's seed: who has the codes alone cannot read names from them. Who knows the
    seed and the names can compute them, so the seed is kept with the key.
    """
    key = hashlib.sha256(f"study secret:{seed}".encode()).digest()
    message = b"\0".join(part.encode() for part in (kind, *parts))
    number = int.from_bytes(hmac.digest(key, message, "sha256"), "big")
    letters = []
    for _ in range(length):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return f"{kind}-{''.join(letters)}"


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 (H, W, 3) with the chunks IHDR, IDAT and IEND alone; the same bytes for the same pixels."""
    stream = io.BytesIO()
    # From the array, not from the file that was read: no text, time or profile can come along.
    Image.fromarray(pixels).save(stream, format="PNG", optimize=False, compress_level=9)
    return stream.getvalue()


def destroyed(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) beyond recognition: 4 x 4 blocks of mean colour, shuffled, half covered by noise."""
    generator = np.random.default_rng(seed)
    height, width, _ = pixels.shape
    small = Image.fromarray(pixels).resize((4, 4), Image.Resampling.BOX)
    blocks = generator.permutation(np.asarray(small).reshape(16, 3)).reshape(4, 4, 3)
    coarse = Image.fromarray(blocks.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    noise = generator.integers(0, 256, (height, width, 3))
    return ((np.asarray(coarse, dtype=np.int64) + noise) // 2).astype(np.uint8)
