"""The images that are scored and the images that they are compared with, each decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from add.config.yaml import nearest
from add.errors import InputError
from eval.images import ReferenceImages, decode_image, decode_sample, image_folder, read_samples, to_square
from eval.metrics.measure import prompt_rule
from eval.metrics.protocol import PromptRule, SourceIdentity
from eval.prompts import read_prompts
from eval.score import check_prompts

if TYPE_CHECKING:
    from add.config.scale import Scale
    from eval.protocols.spec import ProtocolSettings


@dataclass(frozen=True)
class Images:
    """Files in order; `decode` gives each as an upright 8-bit RGB image, or raises InputError."""

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


def open_set(directory: Path, scale: Scale, prompts: str | None, settings: ProtocolSettings) -> Samples:
    """A sample directory (index.csv), or a folder of images, at the scale's resolution.

    A sample directory's prompts and seed must be those of the scale's set `prompts`, by the caption rule and
    the sampling seed of `settings`; with None they are not looked at, and the protocol says that they are not
    stated. Images of a plain folder are cropped and resized as the scale's photographs are. Raises
    InputError.
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
    rule = prompt_rule(adapted.sampling.prompts[prompts], prompts, len(wanted))
    return Samples(images, keys, rule, adapted.sampling.seed, found.sha256(), directory)


def with_rule(scale: Scale, name: str, settings: ProtocolSettings) -> Scale:
    """The scale with the caption rule and the sampling seed of a protocol. Raises InputError."""
    config = scale.sampling.prompts[name]
    if settings.caption_rule != "scale":
        if config.kind != "coco":
            reason = f"prompt set '{name}' has no captions to choose from by another rule"
            raise InputError(Path(scale.origin.file), reason)
        seed = config.rule_seed if settings.rule_seed is None else settings.rule_seed
        config = config.model_copy(update={"caption_rule": settings.caption_rule, "rule_seed": seed})
    seed = scale.sampling.seed if settings.sampling_seed is None else settings.sampling_seed
    changed = {"prompts": {**scale.sampling.prompts, name: config}, "seed": seed}
    return scale.model_copy(update={"sampling": scale.sampling.model_copy(update=changed)})


def prompt_set(scale: Scale, name: str | None) -> str:
    """The scale's prompt set called `name`; None: the first that describes photographs. Raises InputError."""
    sets = scale.sampling.prompts
    if name is None:
        name = next((key for key, config in sets.items() if config.kind == "coco"), None)
        if name is None:
            reason = (
                "has no prompt set of kind coco; name the one that the samples were drawn for by --prompts"
            )
            raise InputError(Path(scale.origin.file), reason)
    if name not in sets:
        reason = f"has no prompt set '{name}'{nearest(name, sets)}"
        raise InputError(Path(scale.origin.file), reason)
    return name


def prompts_note(scale: Scale, name: str | None) -> str | None:
    """What a reader must know where the prompts describe no photographs; else None."""
    if name is None or scale.sampling.prompts[name].kind == "coco":
        return None
    return (
        f"prompts '{name}' describe no photographs: FID and KID say how far the images are from the reference, not "
        "how well they are drawn; result.json has neither for this set"
    )


def open_reference(scale: Scale, directory: Path | None) -> tuple[Images, SourceIdentity]:
    """The real images as they are on disk: the scale's, or all of another folder. Raises InputError."""
    wanted = scale.evaluation.reference
    side, crop = scale.evaluation.resolution, scale.evaluation.crop
    folder: ReferenceImages = (
        image_folder(Path(wanted.images), side, crop, wanted.count)
        if directory is None
        else image_folder(directory, side, crop)
    )
    name = wanted.images if directory is None else directory.as_posix()
    source = SourceIdentity(file=name, sha256=folder.sha256(), count=len(folder))
    return Images(folder.files, decode_image), source
