"""The systems that a study compares: their sample directories, which must hold the same prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError

from add.errors import InputError
from eval.images import SampledImage, SampleSet, decode_sample, read_samples, to_square
from eval.preferences.damage import cell_damage
from eval.preferences.record import invalid
from eval.preferences.study.plan import Strict
from eval.prompts import hash_draw

_Filled = Annotated[str, Field(min_length=1)]


class ComparedEntry(Strict):
    """One entry of the systems file. samples: a sample directory, from the current directory."""

    name: _Filled
    samples: _Filled


@dataclass(frozen=True)
class ComparedSystem:
    """A system and its images, one a prompt id."""

    name: str
    directory: Path
    resolution: int
    samples: dict[str, SampledImage]

    def image_id(self, prompt_id: str) -> str:
        """The image's id in the key: the names of the system and of the file."""
        return f"{self.name}/{self.samples[prompt_id].file}"

    def pixels(self, prompt_id: str, side: int) -> NDArray[np.uint8]:
        """uint8 (side, side, 3); larger images are downsampled, as the paper does. Raises InputError."""
        pixels = decode_sample(self.directory / self.samples[prompt_id].file, self.resolution)
        return to_square(Image.fromarray(pixels), side, "none")


def read_sources(file: Path) -> tuple[ComparedSystem, ...]:
    """The systems of a systems file, all with the same prompts. Raises InputError."""
    try:
        entries = TypeAdapter(list[ComparedEntry]).validate_json(file.read_bytes(), strict=True)
    except OSError as error:
        raise InputError(file, f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        reason = f'{invalid(error)}; it is a list of {{"name": ..., "samples": ...}}'
        raise InputError(file, reason) from error
    for field in ("name", "samples"):
        for value, count in Counter(getattr(entry, field) for entry in entries).items():
            if count > 1:
                raise InputError(file, f"{field} {value!r} is there twice")
    for entry in entries:
        if damage := cell_damage(entry.name, is_text=False):
            raise InputError(file, f"the name {entry.name!r} {damage}")
    sources = tuple(_source(entry) for entry in entries)
    for source in sources[1:]:
        _same_prompts(sources[0], source)
    return sources


def prompts_of(sources: Sequence[ComparedSystem], count: int | None, seed: int) -> dict[str, str]:
    """Prompt id -> prompt, in the samples' order: all, or those with the `count` lowest hashes of (seed, prompt).

    Raises InputError where there are fewer.
    """
    prompts = {key: sample.prompt for key, sample in sources[0].samples.items()}
    if count is None:
        return prompts
    if not 1 <= count <= len(prompts):
        raise InputError(f"{count} prompts are asked for, {len(prompts)} have images")
    ranked = sorted(prompts, key=lambda key: hash_draw(seed, prompts[key]))
    chosen = set(ranked[:count])
    return {key: text for key, text in prompts.items() if key in chosen}


def _source(entry: ComparedEntry) -> ComparedSystem:
    directory = Path(entry.samples)
    # read_samples wants the side at which images are measured, which does not matter here.
    listed = read_samples(directory, 1)
    side = _side(listed)
    samples: dict[str, SampledImage] = {}
    for sample in listed.samples:
        if sample.prompt_id in samples:
            reason = f"prompt {sample.prompt_id!r} has two images; a study shows one of each system"
            raise InputError(directory / "index.csv", reason)
        samples[sample.prompt_id] = sample
        # The reader would refuse votes with such a prompt.
        for value, is_text in ((sample.prompt_id, False), (sample.prompt, True)):
            if damage := cell_damage(value, is_text) if value else "is empty":
                raise InputError(directory / "index.csv", f"{value!r} {damage}")
    return ComparedSystem(entry.name, directory, side, samples)


def _side(listed: SampleSet) -> int:
    first = listed.directory / listed.samples[0].file
    try:
        with Image.open(first) as image:
            width, height = image.size
    except (OSError, SyntaxError) as error:
        raise InputError(first, f"cannot be decoded: {error}") from error
    if width != height:
        raise InputError(first, f"is {width}x{height}, and must be square")
    return width


def _same_prompts(first: ComparedSystem, other: ComparedSystem) -> None:
    for one, two in ((first, other), (other, first)):
        if missing := [key for key in one.samples if key not in two.samples]:
            some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            reason = f"{two.name!r} has no image for {len(missing)} prompts that {one.name!r} has: {some}"
            raise InputError(two.directory, reason)
    for key, sample in first.samples.items():
        if sample.prompt != (prompt := other.samples[key].prompt):
            reason = (
                f"prompt {key!r} is {json.dumps(prompt)}, but {json.dumps(sample.prompt)} for {first.name!r}"
            )
            raise InputError(other.directory / "index.csv", reason)
