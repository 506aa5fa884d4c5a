"""What a pipeline draws, looked at before it becomes 8-bit pixels: a broken or blacked-out image is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError

_REASONS = {
    "blacked out": "the pipeline's safety checker blacked it out; switch the checker off, which is recorded",
    "not finite": "the network's output is not finite; are its weights whole, and does its precision suffice?",
    "constant": "it is one colour; are the network's weights whole, and does its precision suffice?",
}


@contextmanager
def finite_outputs(pipeline: Any) -> Iterator[list[NDArray[np.bool_]]]:
    """Inside the block, whether each image that a decoder of the pipeline puts out is finite: one bool (n,) a call.

    Pipelines clip a decoder's output to their range, after which an infinite value looks like white.
    """
    from torch import nn

    found: list[NDArray[np.bool_]] = []

    def look(_: Any, __: Any, output: Any) -> None:
        found.append(output.isfinite().flatten(1).all(1).cpu().numpy())

    decoders = (getattr(part, "decoder", None) for part in pipeline.components.values())
    hooks = [d.register_forward_hook(look) for d in decoders if isinstance(d, nn.Module)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def eight_bit(
    images: NDArray[np.floating],
    decoded: Sequence[NDArray[np.bool_]],
    blacked_out: Sequence[bool] | None,
    names: Sequence[str],
) -> NDArray[np.uint8]:
    """uint8 (N, H, W, 3) of a pipeline's images (N, H, W, 3) in 0..1, rounded as diffusers rounds them.

    decoded: as `finite_outputs` found them. blacked_out: what a safety checker flagged. Raises InputError with the
    name of each image that is not finite, of one colour, or blacked out.
    """
    flagged = np.zeros(len(images), bool) if blacked_out is None else np.asarray(blacked_out, bool)
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    whole = np.concatenate([*decoded, np.ones(0, bool)])
    finite &= whole if len(whole) == len(images) else whole.all()  # a decoder that works on parts of images
    pixels = (np.where(finite[:, None, None, None], images, 0) * 255).round().astype(np.uint8)
    constant = (pixels == pixels[:, :1, :1]).all(axis=(1, 2, 3))
    wrong = zip(names, flagged, ~finite, constant, strict=True)
    problems = [f"{name}: {_REASONS[_first(*found)]}" for name, *found in wrong if any(found)]
    if problems:
        raise InputError.of(dict.fromkeys(problems))
    return pixels


def _first(*found: bool) -> str:
    return list(_REASONS)[found.index(True)]
