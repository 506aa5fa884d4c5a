"""What a pipeline draws, and how: broken or blacked-out images are refused by name, the sampler is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_REASONS = {
    "blacked out": "the pipeline's safety checker blacked it out; save it without one (safety_checker=None)",
    "not finite": "the network's output is not finite; are its weights whole, and does its precision suffice?",
    "constant": "it is one colour; are the network's weights whole, and does its precision suffice?",
}


Timesteps = tuple[float | None, ...]
"""Of each call of a denoising network, in order; None where a network is not told the time."""


@dataclass
class Watched:
    """What was seen inside a pipeline.

    finite: whether each image that a decoder puts out is finite, one bool (n,) a call. timesteps: of each call of the
    denoising network, in order, None where it is not told; a call with guidance serves both prompts.
    """

    finite: list[NDArray[np.bool_]] = field(default_factory=list)
    timesteps: list[float | None] = field(default_factory=list)


def denoisers(pipeline: Any) -> list[nn.Module]:
    """The pipeline's denoising networks."""
    from torch import nn

    parts = (pipeline.components.get(name) for name in ("unet", "transformer"))
    return [part for part in parts if isinstance(part, nn.Module)]


@contextmanager
def watched(pipeline: Any) -> Iterator[Watched]:
    """Look at the pipeline's networks inside the block.

    Pipelines clip a decoder's output to their range, after which an infinite value looks like white, and some
    schedulers call the network more often than there are steps.
    """
    from torch import nn

    found = Watched()

    def look(_: Any, __: Any, output: Any) -> None:
        found.finite.append(output.isfinite().flatten(1).all(1).cpu().numpy())

    def count(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        time = arguments[1] if len(arguments) > 1 else named.get("timestep")
        if time is not None:
            time = float(time.reshape(-1)[0] if hasattr(time, "reshape") else time)
        found.timesteps.append(time)

    parts = pipeline.components
    decoders = (getattr(part, "decoder", None) for part in parts.values())
    hooks = [d.register_forward_hook(look) for d in decoders if isinstance(d, nn.Module)]
    hooks += [d.register_forward_pre_hook(count, with_kwargs=True) for d in denoisers(pipeline)]
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

    decoded: whether decoders' outputs were finite, as `watched`. blacked_out: what a safety checker flagged. Raises
    InputError with the name of each image that is not finite, of one colour, or blacked out.
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


def sampler_facts(pipeline: Any, timesteps: Timesteps, guidance: float) -> dict[str, Any]:
    """How a pipeline sampled, for samples.json and the result.

    timesteps: those that the denoising network was called with. `note` says where they begin far from pure noise, from
    which sampling starts.
    """
    config = pipeline.scheduler.config
    facts: dict[str, Any] = {
        "pipeline": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "prediction_type": config.get("prediction_type"),
        "timestep_spacing": config.get("timestep_spacing"),
        "timesteps": list(timesteps),
        "network_calls": len(timesteps),
        "guidance": guidance,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "safety_checker": getattr(pipeline, "safety_checker", None) is not None,
    }
    trained = config.get("num_train_timesteps")
    told = [time for time in timesteps if time is not None]
    if told and trained and max(told) < _LATE * trained:
        facts["note"] = (
            f"sampling starts from pure noise, but its first timestep is {max(told):g} of {trained} "
            f"(timestep_spacing {config.get('timestep_spacing')!r}); give `timesteps`, or another spacing"
        )
    return facts


def truncated_prompts(pipeline: Any, prompts: Sequence[str]) -> int:
    """The number of prompts that one of the pipeline's text encoders does not read to their end."""
    tokenizers = [
        part
        for name, part in pipeline.components.items()
        if name.startswith("tokenizer") and part is not None
    ]
    return sum(
        any(
            len(tokenizer(prompt, verbose=False).input_ids) > tokenizer.model_max_length
            for tokenizer in tokenizers
        )
        for prompt in prompts
    )


_LATE = 0.9
"""Share of the training timesteps below which a first timestep is noted: 4 steps spaced `leading` begin at 751."""
