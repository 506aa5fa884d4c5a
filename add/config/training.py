"""What does a run train on, and how?

Training data come in four forms of images with captions. A row may override each training setting as
`training.<key>`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from add.config.types import (
    Count,
    Decay,
    Fraction,
    Frozen,
    Increasing,
    NonNegative,
    Positive,
    Seed,
    Text,
    distinct,
)


class ResizeSpec(Frozen):
    """How an image of any size becomes a square.

    crop: `center` and `random` cut out the largest square, in the middle or at a place drawn for each sample;
    `none` keeps the whole picture and changes its aspect ratio. filter: Pillow's, antialiased when it shrinks.
    """

    crop: Literal["center", "random", "none"] = "center"
    filter: Literal["bicubic", "lanczos", "bilinear", "box"] = "bicubic"


class TrainingSetSpec(Frozen):
    """Settings that all forms share. Without `resize`: the centred square, bicubic."""

    resize: ResizeSpec | None = None

    @property
    def resize_rule(self) -> ResizeSpec:
        """`resize`, or its default."""
        return self.resize or ResizeSpec()


class CocoSpec(TrainingSetSpec):
    """A folder of images and its captions in COCO's annotation format."""

    kind: Literal["coco"] = "coco"
    images: Text
    annotations: Text


class FolderSpec(TrainingSetSpec):
    """A folder of images, at any depth, as the Hugging Face `imagefolder` has it.

    Captions are in one metadata.csv or metadata.jsonl in the folder (columns `file_name` and `caption_column`),
    or in a UTF-8 text file beside each image: cat.jpg and cat.txt.
    """

    kind: Literal["folder"]
    path: Text
    caption_column: Text = "text"


class WindowedSpec(TrainingSetSpec):
    """A set in blocks (shards, row groups) that are each cheap to read in full.

    window: None shuffles all samples of an epoch at once. A number shuffles the blocks, and then the samples of that
    many blocks at a time, so that reading stays in few files where random access is slow.
    """

    window: Count | None = None


class ShardsSpec(WindowedSpec):
    """webdataset shards: tar files in which an image and its caption have the same base name.

    shards: a path with ranges such as {000000..000123} (every shard must exist), or with * and ? in the
    file's name (all existing matches).
    caption_field: None reads `.txt` members, a name reads that field of `.json` members (text, or a list).
    """

    kind: Literal["webdataset"]
    shards: Annotated[str, Field(pattern=r"\.tar$")]
    caption_field: Text | None = None


class HuggingFaceSpec(WindowedSpec):
    """A directory that `datasets` wrote by save_to_disk, or one of parquet files as on the Hugging Face Hub."""

    kind: Literal["huggingface"]
    path: Text
    split: Text | None = None
    image_column: Text
    caption_column: Text


def _kind(value: Any) -> Any:
    """The stated form of a set, COCO where none is stated."""
    return value.get("kind", "coco") if isinstance(value, dict) else getattr(value, "kind", None)


TrainData = Annotated[
    Annotated[CocoSpec, Tag("coco")]
    | Annotated[FolderSpec, Tag("folder")]
    | Annotated[ShardsSpec, Tag("webdataset")]
    | Annotated[HuggingFaceSpec, Tag("huggingface")],
    Discriminator(_kind),
]


class RunDataSpec(Frozen):
    """What a run trains on."""

    train: TrainData


Cached = Literal["latents", "text", "c_text", "c_img"]
"""Outputs of frozen encoders for real images and captions that a cache can keep."""

CACHED: tuple[Cached, ...] = ("latents", "text", "c_text", "c_img")


class CacheSpec(Frozen):
    """Keep the output of frozen encoders on disk. It is no value of a run: the bits are the same with and without."""

    directory: Text
    keep: Annotated[tuple[Cached, ...], Field(min_length=1), distinct("something")] = CACHED

    def refusal(self, train: TrainingSetSpec) -> str | None:
        """The reason why this cannot be kept for such training data, or None."""
        images = [name for name in self.keep if name in ("latents", "c_img")]
        if train.resize_rule.crop == "random" and images:
            return (
                f"{' and '.join(images)} cannot be kept with data.train.resize.crop 'random': every epoch sees "
                "other crops, so the disk would fill with entries that are never read; keep text and c_text alone"
            )
        return None


class DataSpec(RunDataSpec):
    """`build` is the module that makes the data (`python -m BUILD --out ROOT`); null if the data exist already.

    `cache` is no part of a run: it changes the speed of training and not its result.
    """

    build: Annotated[str, Field(pattern=r"^\w+(\.\w+)*$")] | None = None
    root: Text
    cache: CacheSpec | None = None

    @field_validator("cache")
    @classmethod
    def _can_be_kept(cls, value: CacheSpec | None, info: ValidationInfo) -> CacheSpec | None:
        reason = value.refusal(info.data["train"]) if value and "train" in info.data else None
        if reason:
            raise ValueError(reason)
        return value


class OptimiserSpec(Frozen):
    """AdamW. `warmup` in steps, linear; `clip` the gradient's norm (null: not clipped)."""

    lr: Positive
    betas: tuple[Decay, Decay]
    weight_decay: NonNegative
    warmup: Annotated[int, Field(ge=0)]
    clip: Positive | None
    decay: Literal["none", "cosine"]


class NfsdSpec(Frozen):
    """NFSD (arXiv 2310.17590): s, the t below which delta_D is the unconditional prediction, the negative prompt."""

    guidance: NonNegative
    threshold: Annotated[int, Field(ge=0, le=1000)]
    negative_prompt: str

    @field_validator("negative_prompt")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if value and not value.strip():
            raise ValueError('holds nothing but white space; write "" for none')
        return value


class PerformanceSpec(Frozen):
    """Speed and memory on a GPU. Each option changes results a little, so these are values like any other."""

    channels_last: bool = False
    """Images and latents in channels-last memory format, which suits convolutions on tensor cores."""
    compile: bool = False
    """torch.compile with static shapes: the UNets, the VAEs and the feature network."""
    gradient_checkpointing: Annotated[
        tuple[Literal["unet", "decoder", "features"], ...],
        distinct("a network"),
        AfterValidator(lambda names: tuple(sorted(names))),
    ] = ()
    """Networks whose activations are recomputed in the backward pass."""
    frozen_precision: Literal["float32", "bf16"] = "float32"
    """Dtype of the frozen networks' weights; bf16 halves their memory and needs precision bf16."""
    eight_bit_optimiser: bool = False
    """The moments of both optimisers in 8 bits (bitsandbytes, which is installed separately)."""


class TrainingSpec(Frozen):
    """How a student is trained. Timesteps count 0..999; t = 999 is fed as pure noise."""

    steps: Count
    batch: Count
    """Images per optimiser step, over all `accumulate` parts."""
    accumulate: Count
    student_timesteps: Annotated[tuple[int, ...], Field(min_length=1), Increasing]
    student_timestep_weights: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Relative probability of each student timestep."""
    distillation_timesteps: tuple[int, int]
    """The range, both ends included, from which the teacher's t is drawn uniformly."""
    teacher_guidance: NonNegative
    nfsd: NfsdSpec
    augmentation: Fraction
    crop_probability: Fraction
    head_width: Count
    virtual_batch: Count
    student_optimiser: OptimiserSpec
    head_optimiser: OptimiserSpec
    ema: Decay
    precision: Literal["float32", "bf16"]
    threads: Count
    """Threads of the process. The result's bits depend on them, so `--cores` does not change them."""
    checkpoint_every: Count
    log_every: Count
    pictures_every: Count
    resolution: Count | None = None
    """Side of the square training images in pixels; unset: the student's own, from its `sample_size` (SDXL: 1024)."""
    performance: PerformanceSpec | None = None
    device: Literal["cpu", "cuda"] | None = None
    """Where every stage computes; unset: on a GPU where there is one. The result's bits depend on it."""

    @field_validator("performance")
    @classmethod
    def _precisions_fit(cls, value: PerformanceSpec | None, info: ValidationInfo) -> PerformanceSpec | None:
        if value and value.frozen_precision == "bf16" and info.data.get("precision") == "float32":
            raise ValueError("frozen_precision bf16 needs training.precision bf16: one step, one autocast")
        return value

    @field_validator("student_timesteps")
    @classmethod
    def _student_timesteps(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] <= 0:
            raise ValueError(f"holds {value[0]}: no t = 0, where the student would be given the clean image")
        if value[-1] > 999:
            raise ValueError(f"holds {value[-1]}: the schedule's last timestep is 999")
        if value[-1] < 999:
            message = "sampling begins at the last, from pure noise, which only the schedule's 999 is"
            raise ValueError(f"ends at {value[-1]}: {message}")
        return value

    @field_validator("distillation_timesteps")
    @classmethod
    def _distillation_timesteps(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 < value[0] < value[1] <= 999:
            raise ValueError(f"should be two timesteps with 0 < first < last <= 999, not {list(value)}")
        return value

    @field_validator("student_timestep_weights")
    @classmethod
    def _one_weight_each(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        timesteps = info.data.get("student_timesteps", value)  # absent where they are wrong themselves
        if len(timesteps) != len(value):
            raise ValueError(f"holds {len(value)} weights for {len(timesteps)} student_timesteps")
        return value

    @field_validator("accumulate")
    @classmethod
    def _equal_parts(cls, value: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch", value)
        if batch % value:
            raise ValueError(f"a batch of {batch} does not split into {value} equal parts")
        return value


class ScaleTrainingSpec(TrainingSpec):
    """A scale's training settings: those of a run, and the training seeds."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), distinct("a seed")]
