"""The images that are scored and the images that they are compared with, each decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from eval.decode import ImageSetError, decode_image, decode_sample, to_square
from eval.entries import prompt_rule
from eval.images import ImageFolder, image_folder, read_samples
from eval.metrics.protocol import PromptRule, Source
from eval.prompts import read_prompts
from eval.score import check_prompts

if TYPE_CHECKING:
    from add.spec_scale import CocoPrompts, Scale
    from eval.protocols.spec import Settings


@dataclass(frozen=True)
class Images:
    """Files in order; `decode` gives each as an upright 8-bit RGB image, or raises ImageSetError."""

    files: tuple[Path, ...]
    decode: Callable[[Path], Image.Image]

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int) -> Iterator[list[Image.Image]]:
        """Lists of up to `size` decoded images."""
        for start in range(0, len(self.files), size):
            yield [self.decode(file) for file in self.files[start : start + size]]


@dataclass(frozen=True)
class Samples:
    """Images to score. `keys`: what image k was drawn for; two sets with equal keys are compared in pairs.

    `prompts` and `seed` are None for images without a record of them. `sha256` is of names and bytes.
    """

    images: Images
    keys: tuple[str, ...]
    prompts: PromptRule | None
    seed: int | None
    sha256: str
    directory: Path


def open_set(directory: Path, scale: Scale, prompts: str | None, settings: Settings) -> Samples:
    """A sample directory (index.csv), or a folder of images, at the scale's resolution.

    A sample directory's prompts and seed must be those of the scale's set `prompts`, by the caption rule and
    the sampling seed of `settings`; with None they are not looked at, and the protocol says that they are not
    stated. Images of a plain folder are cropped and resized as the scale's photographs are. Raises
    ImageSetError, PromptError.
    """
    side, crop = scale.evaluation.resolution, scale.evaluation.crop
    if not (directory / "index.csv").is_file() and not (directory / "samples.json").is_file():
        folder = image_folder(directory, side, crop)
        images = Images(folder.files, lambda file: Image.fromarray(to_square(decode_image(file), side, crop)))
        names = tuple(file.name for file in folder.files)
        return Samples(images, names, None, None, folder.sha256(), directory)
    found = read_samples(directory, side)
    files = tuple(directory / sample.file for sample in found.samples)
    images = Images(files, lambda file: Image.fromarray(decode_sample(file, side)))
    keys = tuple(sample.prompt_id for sample in found.samples)
    if prompts is None:
        return Samples(images, keys, None, None, found.sha256(), directory)
    adapted = with_rule(scale, prompts, settings)
    wanted = read_prompts(adapted.sampling.prompts[prompts])
    check_prompts(found, prompts, wanted, adapted.sampling.seed)
    rule = prompt_rule(adapted, prompts, len(wanted))
    return Samples(images, keys, rule, adapted.sampling.seed, found.sha256(), directory)


def with_rule(scale: Scale, name: str, settings: Settings) -> Scale:
    """The scale with the caption rule and the sampling seed of a protocol."""
    config = scale.sampling.prompts[name]
    if settings.caption_rule != "scale" and config.kind == "coco":
        seed = config.rule_seed if settings.rule_seed is None else settings.rule_seed
        config = config.model_copy(update={"caption_rule": settings.caption_rule, "rule_seed": seed})
    seed = scale.sampling.seed if settings.sampling_seed is None else settings.sampling_seed
    changed = {"prompts": {**scale.sampling.prompts, name: config}, "seed": seed}
    return scale.model_copy(update={"sampling": scale.sampling.model_copy(update=changed)})


def coco_set(scale: Scale, name: str | None) -> str:
    """The prompt set that FID is measured on: `name`, or the scale's first of kind coco.

    Raises ImageSetError where it is not there, or does not describe photographs.
    """
    sets: dict[str, CocoPrompts] = {
        key: config for key, config in scale.sampling.prompts.items() if config.kind == "coco"
    }
    if name is None and sets:
        return next(iter(sets))
    if name in sets:
        return str(name)
    known = ", ".join(sets) or "none"
    reason = (
        f"scale {scale.name} has no prompt set '{name}' that describes photographs; of kind coco: {known}"
    )
    raise ImageSetError(Path(scale.origin.file), reason)


def open_reference(scale: Scale, directory: Path | None) -> tuple[Images, Source]:
    """The real images as they are on disk: the scale's, or all of another folder. Raises ImageSetError."""
    wanted = scale.evaluation.reference
    side, crop = scale.evaluation.resolution, scale.evaluation.crop
    folder: ImageFolder = (
        image_folder(Path(wanted.images), side, crop, wanted.count)
        if directory is None
        else image_folder(directory, side, crop)
    )
    name = wanted.images if directory is None else directory.as_posix()
    source = Source(file=name, sha256=folder.sha256(), count=len(folder))
    return Images(folder.files, decode_image), source
