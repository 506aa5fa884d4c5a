"""What does a run train on? Four forms of images with captions, and how an image becomes a square."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from add.config.types import Count, Frozen, Text, distinct


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
