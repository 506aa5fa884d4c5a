"""What does it take to train and score a variant? config/<scale>.yaml: networks, data, budgets, protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from add.spec_data import Data
from add.spec_study import Study
from add.spec_training import ScaleTraining
from add.spec_types import (
    Channels,
    Count,
    Deviations,
    Document,
    Frozen,
    Name,
    Seed,
    Sha256,
    Text,
    WeightFiles,
    increasing,
    without_unset,
)


class Network(Frozen):
    """A saved network: a directory or a hub's id, its revision, the SHA-256 that makes it *this* network.

    `sha256` is of all files that are loaded together (`add.weights.weights_hash`). `files` names these files and
    each one's own SHA-256, as hubs print it, null where it is not known.
    """

    path: Text
    revision: Text | None = None
    sha256: Sha256 | None = None
    files: WeightFiles | None = None

    @model_serializer(mode="wrap")
    def _without_files_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(handler(self), "files")


class DiffusionNetwork(Network):
    """A Stable Diffusion or SDXL pipeline; networks with equal `latents` share one VAE: their latents compare."""

    family: Text
    latents: Name | None = None


class ImageNetwork(Network):
    """A network that takes square images of `image_size` pixels, values 0..1 less `mean` over `std` (RGB)."""

    image_size: Count
    mean: Channels
    std: Deviations


class FeatureNetwork(ImageNetwork):
    """A discriminator's frozen network; a head sits on each of `layers`."""

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

    @field_validator("layers")
    @classmethod
    def _ordered(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return increasing(value)


class Networks(Frozen):
    """By name, what variants may choose from. A run's own holds only the networks that the run uses."""

    diffusion: dict[Name, DiffusionNetwork]
    features: dict[Name, FeatureNetwork]
    c_text: Network | None = None
    c_img: ImageNetwork | None = None


class CocoPrompts(Frozen):
    """The first `count` images of a COCO annotation file, each with one caption chosen by `caption_rule`.

    `present` states that only so many of the listed photographs are on disk, and restricts the set to these.
    """

    kind: Literal["coco"]
    annotations: Text
    caption_rule: Literal["first", "random"]
    rule_seed: Seed
    count: Count
    present: Count | None = None

    @model_serializer(mode="wrap")
    def _whole_sets_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(handler(self), "present")


class PartiPrompts(Frozen):
    """`count` prompts of PartiPrompts' TSV, drawn with `rule_seed`, without the challenges excluded."""

    kind: Literal["partiprompts"]
    file: Text
    exclude_challenges: tuple[Text, ...]
    count: Count
    rule_seed: Seed


class Sampling(Frozen):
    """Which prompts are drawn, by how many student steps, from which seed."""

    steps: Annotated[tuple[Literal[1, 2, 4], ...], Field(min_length=1)]
    seed: Seed
    batch: Count
    prompts: Annotated[
        dict[Name, Annotated[CocoPrompts | PartiPrompts, Field(discriminator="kind")]], Field(min_length=1)
    ]

    @field_validator("steps", mode="before")
    @classmethod
    def _integers(cls, value: Any) -> Any:
        for item in value if isinstance(value, tuple | list) else ():
            if isinstance(item, bool | float):
                raise ValueError(f"should be integers out of 1, 2 and 4, not {str(item).lower()}")
        return value

    @field_validator("steps")
    @classmethod
    def _ordered(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return increasing(value)


class Reference(Frozen):
    """The real images that FID compares with; exactly `count` of them."""

    images: Text
    count: Count


class Extractor(ImageNetwork):
    """The network whose features FID and KID compare."""

    kind: Literal["transformers", "inception"]


class Clip(Frozen):
    """The CLIP of the CLIP score: `local-dir:PATH`, or an open_clip name with its `pretrained` tag.

    open_clip fetches what a tag means by itself; with `path` (a directory or a hub's id, with its `revision`) the
    weights are the safetensors `file` there, and the tag only says what they are.
    """

    model: Text
    pretrained: Text | None = None
    sha256: Sha256 | None = None
    path: Text | None = None
    revision: Text | None = None
    file: Annotated[str, Field(pattern=r"\.safetensors$")] | None = None

    @model_serializer(mode="wrap")
    def _without_path_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(handler(self), "path", "revision", "file")

    @model_validator(mode="after")
    def _path_with_file(self) -> Clip:
        if (self.path is None) != (self.file is None):
            raise ValueError("`path` and `file` go together: where the weights are, and which file they are")
        if self.path is None and self.revision is not None:
            raise ValueError("`revision` is of a `path`, which is missing")
        if self.path is not None and self.model.startswith("local-dir:"):
            raise ValueError("a `local-dir:` model holds its weights; leave `path` out")
        return self


class Oracle(ImageNetwork):
    """A classifier of what an image shows, and the truth about each caption (`scenes`)."""

    scenes: Text


class Evaluation(Frozen):
    """The protocol under which samples are scored. `resolution` in pixels; `bootstrap` in resamples."""

    reference: Reference
    resolution: Count
    crop: Literal["none", "center"]
    extractor: Extractor
    resize: Literal["clean"]
    clip: Clip
    oracle: Oracle | None
    bootstrap: Count
    batch: Count


class Scale(Document):
    """Everything but the variant. The code never asks for `name`: it names a directory and heads a page.

    `notice` is printed on every page of the report. A scale without `study` has no ratings in its report.
    """

    name: Name
    description: Text
    notice: Text | None = None
    networks: Networks
    data: Data
    training: ScaleTraining
    sampling: Sampling
    evaluation: Evaluation
    study: Study | None = None
