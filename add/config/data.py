"""What does a run train on? Four forms of images with captions, and how an image becomes a square."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from add.config.types import Count, Frozen, Text


class ResizeSpec(Frozen):
    """How an image of any size becomes a square.

    crop: `center` and `random` cut out the largest square, in the middle or at a place drawn for each sample;
    `none` keeps the whole picture and changes its aspect ratio. filter: Pillow's, antialiased when it shrinks.
    """

    crop: Literal["center", "random", "none"] = "center"
    filter: Literal["bicubic", "lanczos", "bilinear", "box"] = "bicubic"


class TrainingSetSpec(Frozen):
    """What all forms share. Without `resize`: the centred square, bicubic."""

    resize: ResizeSpec | None = None

    @property
    def resize_rule(self) -> ResizeSpec:
        """`resize`, or what leaving it out means."""
        return self.resize or ResizeSpec()

    @model_serializer(mode="wrap")
    def _as_stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A set that leaves a key out has the values it had before the key existed: nothing is run again for it.
        values: dict[str, Any] = handler(self)
        if isinstance(self, CocoSpec):
            del values["kind"]
        return {k: v for k, v in values.items() if v is not None}


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
    """A set that lies in blocks (shards; row groups), of which reading one in full is cheap.

    window: None shuffles all samples of an epoch at once. A number shuffles the blocks, and then the samples of
    so many blocks at a time: reading stays in few files where random access is slow.
    """

    window: Count | None = None


class ShardsSpec(WindowedSpec):
    """webdataset shards: tar files whose members share a base name, one image and one caption each.

    shards: a path with ranges such as {000000..000123} (each must exist), or with * and ? in the
    file's name (those that are there).
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
    """The form that a set says it has; COCO's where it says nothing, as scales did before there were others."""
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
"""What frozen encoders make of a real image and its caption, and a cache can keep."""

CACHED: tuple[Cached, ...] = ("latents", "text", "c_text", "c_img")


class CacheSpec(Frozen):
    """Keep the output of frozen encoders on disk. No value of a run: the bits are the same with and without."""

    directory: Text
    keep: Annotated[tuple[Cached, ...], Field(min_length=1)] = CACHED

    @field_validator("keep")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"names something twice: {list(value)}")
        return value

    def refusal(self, train: TrainingSetSpec) -> str | None:
        """Why this cannot be kept for such training data, or None."""
        images = [name for name in self.keep if name in ("latents", "c_img")]
        if train.resize_rule.crop == "random" and images:
            return (
                f"{' and '.join(images)} cannot be kept with data.train.resize.crop 'random': every epoch sees "
                "other crops, so the disk would fill with entries that are never read; keep text and c_text alone"
            )
        return None


class DataSpec(RunDataSpec):
    """`build` is the module that makes the data (`python -m BUILD --out ROOT`); null: it is already there.

    `cache` is no part of a run: it changes how fast a run is and not its result.
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

    @model_serializer(mode="wrap")
    def _without_cache_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return values if self.cache is not None else {k: v for k, v in values.items() if k != "cache"}
