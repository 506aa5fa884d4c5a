"""A scale, config/<scale>.yaml: the networks, data, budgets and protocol that a variant is trained and scored with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from add.config.study import StudySpec
from add.config.training import DataSpec, ScaleTrainingSpec
from add.config.types import (
    Channels,
    Count,
    Deviations,
    Document,
    Frozen,
    ImageCount,
    Increasing,
    Name,
    Positive,
    Seed,
    Sha256,
    StepCount,
    Text,
    WeightFiles,
)


class NetworkSpec(Frozen):
    """A saved network: a directory or a hub id, its revision, and the SHA-256 of its weights.

    `sha256` is over all loaded files together (`add.models.weights.weights_hash`). `files` names these files, each with
    its own SHA-256 as hubs print it, or null where that is not known.
    """

    path: Text
    revision: Text | None = None
    sha256: Sha256 | None = None
    files: WeightFiles | None = None


class DiffusionNetworkSpec(NetworkSpec):
    """A Stable Diffusion or SDXL pipeline; networks with equal `latents` share one VAE: their latents compare.

    original_size, target_size: what SDXL is told of its images, sides in pixels; unset: the resolution that it runs at.
    """

    family: Text
    latents: Name | None = None
    original_size: Count | None = None
    target_size: Count | None = None


class ImageNetworkSpec(NetworkSpec):
    """A network for square images of `image_size` pixels, normalised as (value - `mean`) / `std`, values 0..1 (RGB)."""

    image_size: Count
    mean: Channels
    std: Deviations


class FeatureNetworkSpec(ImageNetworkSpec):
    """A discriminator's frozen network; a head sits on each of `layers`."""

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Increasing]


class NetworksSpec(Frozen):
    """The networks by name. A scale lists those that variants may choose; a run has only those that it uses."""

    diffusion: dict[Name, DiffusionNetworkSpec]
    features: dict[Name, FeatureNetworkSpec]
    c_text: NetworkSpec | None = None
    c_img: ImageNetworkSpec | None = None


class CocoPromptsSpec(Frozen):
    """The first `count` images of a COCO annotation file, each with one caption chosen by `caption_rule`.

    `present` states how many of the listed photographs are on disk, and restricts the set to these. `count_more_steps`:
    how many of the first are sampled at more than one step, where an image costs more; unset: all.
    """

    kind: Literal["coco"]
    annotations: Text
    caption_rule: Literal["first", "random"]
    rule_seed: Seed
    count: ImageCount
    present: ImageCount | None = None
    count_more_steps: ImageCount | None = None

    @model_validator(mode="after")
    def _counts(self) -> CocoPromptsSpec:
        if self.count_more_steps is not None and self.present is not None:
            raise ValueError("`present` restricts the set by what is on disk; leave `count_more_steps` out")
        if self.count_more_steps is not None and self.count_more_steps > self.count:
            raise ValueError(f"`count_more_steps` is {self.count_more_steps}, and `count` {self.count}")
        return self

    def at(self, steps: int) -> CocoPromptsSpec:
        """The set that is sampled by this number of steps."""
        if steps == 1 or self.count_more_steps is None:
            return self.model_copy(update={"count_more_steps": None})
        return self.model_copy(update={"count": self.count_more_steps, "count_more_steps": None})


class PartiPromptsSpec(Frozen):
    """`count` prompts of PartiPrompts' TSV, drawn with `rule_seed`, without the challenges excluded."""

    kind: Literal["partiprompts"]
    file: Text
    exclude_challenges: tuple[Text, ...]
    count: ImageCount
    rule_seed: Seed

    def at(self, steps: int) -> PartiPromptsSpec:
        """The set that is sampled by this number of steps: always all of it."""
        return self


class RepeatedPromptsSpec(Frozen):
    """Each prompt of the set `of` by `images` images, each of noise of its own: the diversity within one prompt.

    Of these nothing else is measured.
    """

    kind: Literal["repeated"]
    images: Annotated[int, Field(ge=2)]
    of: Annotated[CocoPromptsSpec | PartiPromptsSpec, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _all(self) -> RepeatedPromptsSpec:
        if self.of.kind == "coco" and self.of.count_more_steps is not None:
            raise ValueError(
                "leave `count_more_steps` out: a diversity is of as many prompts by any number of steps"
            )
        return self

    @property
    def count(self) -> int:
        """Images of the whole set."""
        return self.of.count * self.images

    def at(self, steps: int) -> RepeatedPromptsSpec:
        """The set that is sampled by this number of steps: always all of it."""
        return self


PromptsSpec = CocoPromptsSpec | PartiPromptsSpec | RepeatedPromptsSpec


class SamplingSpec(Frozen):
    """The prompt sets, the numbers of student steps, and the sampling seed.

    dtype: what networks are sampled in; unset: float32.
    """

    steps: Annotated[tuple[StepCount, ...], Field(min_length=1), Increasing]
    seed: Seed
    batch: Count
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    prompts: Annotated[
        dict[Name, Annotated[PromptsSpec, Field(discriminator="kind")]],
        Field(min_length=1),
    ]


class ReferenceSpec(Frozen):
    """The folder of real images that FID compares with: its first `count` by name."""

    images: Text
    count: ImageCount


class ExtractorSpec(ImageNetworkSpec):
    """The network whose features FID and KID compare."""

    kind: Literal["transformers", "inception"]


class ClipSpec(Frozen):
    """The CLIP of the CLIP score: `local-dir:PATH`, or an open_clip name with its `pretrained` tag.

    open_clip downloads the weights of a tag by itself. With `path` (a directory or a hub id, with its `revision`) the
    weights are the safetensors `file` there; the tag still says which activation and preprocessing belong to them.
    """

    model: Text
    pretrained: Text | None = None
    sha256: Sha256 | None = None
    path: Text | None = None
    revision: Text | None = None
    file: Annotated[str, Field(pattern=r"\.safetensors$")] | None = None

    @model_validator(mode="after")
    def _path_with_file(self) -> ClipSpec:
        if (self.path is None) != (self.file is None):
            raise ValueError("`path` and `file` go together: where the weights are, and which file they are")
        if self.path is None and self.revision is not None:
            raise ValueError("`revision` is of a `path`, which is missing")
        if self.path is not None and self.model.startswith("local-dir:"):
            raise ValueError("a `local-dir:` model holds its weights; leave `path` out")
        return self


class OracleSpec(ImageNetworkSpec):
    """A classifier of an image's content, and the file with the true content of each caption (`scenes`)."""

    scenes: Text


class EvaluationSpec(Frozen):
    """The protocol under which samples are scored. `resolution` in pixels."""

    reference: ReferenceSpec
    resolution: Count
    crop: Literal["none", "center"]
    extractor: ExtractorSpec
    resize: Literal["clean"]
    clip: ClipSpec
    oracle: OracleSpec | None
    batch: Count


class TimingSpec(Frozen):
    """How systems are timed (`eval.timing`): `repeats` calls count, after `warm_up` that do not, at each of `batches`.

    A batch whose call should take more than `longest` seconds, by the one before it, ends a system's list.
    """

    batches: Annotated[tuple[Count, ...], Field(min_length=1), Increasing]
    warm_up: Annotated[int, Field(ge=0)]
    repeats: Count
    longest: Positive

    @field_validator("batches")
    @classmethod
    def _from_one(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] != 1:
            raise ValueError("should begin with 1: the time of one image is that of a call at batch 1")
        return value


class Scale(Document):
    """Everything but the variant. No code depends on `name`, which names the results' directory and the report.

    `notice` is printed on every page of the report. `systems`: the folder of the systems that are
    compared (`add.config.system`). `timing`: unset, they are not timed. A scale without `study` has no ratings in its
    report.
    """

    name: Name
    description: Text
    notice: Text | None = None
    networks: NetworksSpec
    data: DataSpec
    training: ScaleTrainingSpec
    sampling: SamplingSpec
    evaluation: EvaluationSpec
    systems: Text | None = None
    timing: TimingSpec | None = None
    study: StudySpec | None = None

    @model_validator(mode="after")
    def _compared(self) -> Scale:
        if self.study is not None and self.systems is None:
            raise ValueError("`study` compares systems, and `systems` names no folder of them")
        if self.timing is not None and self.systems is None:
            raise ValueError("`timing` times systems, and `systems` names no folder of them")
        return self
