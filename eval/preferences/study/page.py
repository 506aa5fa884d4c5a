"""The annotators' page: one HTML file with everything in it, and images that hide which system made them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.html import self_contained
from eval.preferences.record import COLUMNS
from eval.preferences.study.plan import NO_NAME, StudyPlan, image_file

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


_HERE = Path(__file__).parent
_PIXELATED_BELOW = 129
"""Images smaller than this (pixels) are enlarged by whole pixels, not blurred."""


def offline_page(study: StudyPlan, name: str, directory: Path) -> str:
    """The self-contained page of the list `name`, its images read from the study's directory. It loads nothing."""
    trials = [trial.model_dump() for trial in study.lists[name]]
    used = {trial["prompt_id"] for trial in trials}
    prompts = {key: text for key, text in study.prompts.items() if key in used}
    config = {**_config(study), "list": name, "columns": COLUMNS, "trials": trials, "prompts": prompts}
    images = (
        f'<script type="text/plain" id="{code}">'
        f"{base64.b64encode(image_file(directory, code).read_bytes()).decode()}</script>"
        for code in study.images(name)
    )
    return _render("local.js", config, "\n".join(images), "img-src data:")[0]


def served_page(study: StudyPlan) -> tuple[str, str]:
    """The server's page, for any rater, and its Content-Security-Policy as a header says it."""
    page, policy = _render("remote.js", _config(study), "", "img-src 'self' data:; connect-src 'self'")
    return page, f"{policy}; frame-ancestors 'none'"


def _config(study: StudyPlan) -> dict[str, Any]:
    return {
        "study": study.study,
        "ties": study.ties,
        "no_name": NO_NAME,
        "pixelated": study.resolution < _PIXELATED_BELOW,
        "questions": {name: wording.model_dump() for name, wording in study.questions.items()},
    }


def _render(
    transport: Literal["local.js", "remote.js"], config: dict[str, Any], images: str, sources: str
) -> tuple[str, str]:
    """The page, and its Content-Security-Policy."""
    style, template = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.html"))
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in (transport, "page.js")]
    return self_contained(template, style, scripts, config, images, sources)
