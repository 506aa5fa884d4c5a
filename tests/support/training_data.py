"""Training data in every format, written from the same encoded images and captions."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from torch import Tensor

from add.batch import to_tensor
from add.config.training import CocoSpec, FolderSpec, HuggingFaceSpec, ShardsSpec, TrainData
from add.data.images import Sample, pixels
from add.data.reading import file_bytes

FORMS = ("coco", "text", "csv", "jsonl", "shards", "json shards", "saved", "parquet")


def png(
    colour: str | int | tuple[int, ...] = "red", mode: str = "RGB", size: tuple[int, int] = (8, 8)
) -> bytes:
    return encoded(Image.new(mode, size, colour))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def load_images(files: Sequence[Path], resolution: int) -> Tensor:
    """RGB images as training sees them: (B, 3, resolution, resolution) float32 in [-1, 1]."""
    return to_tensor(pixels([Sample(str(file), file_bytes(file), ()) for file in files], resolution))


def write(
    form: str, root: Path, images: Sequence[bytes], captions: Sequence[str], suffix: str = "png"
) -> TrainData:
    """Write the set in one of FORMS, samples in order; returns its spec in a scale."""
    names = [f"{i:06d}.{suffix}" for i in range(len(images))]
    root.mkdir(parents=True, exist_ok=True)
    if form in ("coco", "text", "csv", "jsonl"):
        for name, image in zip(names, images, strict=True):
            (root / name).write_bytes(image)
    if form == "coco":
        listed = [{"id": i, "file_name": name} for i, name in enumerate(names)]
        notes = [{"id": i, "image_id": i, "caption": caption} for i, caption in enumerate(captions)]
        file = root.with_suffix(".json")
        file.write_text(json.dumps({"images": listed, "annotations": notes}))
        return CocoSpec(images=str(root), annotations=str(file))
    if form == "text":
        for name, caption in zip(names, captions, strict=True):
            (root / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    elif form == "csv":
        rows = [f'{name},"{caption}"' for name, caption in zip(names, captions, strict=True)]
        (root / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n", encoding="utf-8")
    elif form == "jsonl":
        lines = [json.dumps({"file_name": n, "text": c}) for n, c in zip(names, captions, strict=True)]
        (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    if form in ("text", "csv", "jsonl"):
        return FolderSpec(kind="folder", path=str(root))
    if form in ("shards", "json shards"):
        field = "caption" if form == "json shards" else None
        half = (len(images) + 1) // 2
        for k, part in enumerate((slice(0, half), slice(half, None))):
            members = []
            for name, image, caption in zip(names[part], images[part], captions[part], strict=True):
                text = json.dumps({"caption": caption}) if field else caption
                members += [(name, image), (f"{name[:6]}.{'json' if field else 'txt'}", text.encode())]
            write_tar(root / f"set-{k:03d}.tar", members)
        return ShardsSpec(kind="webdataset", shards=f"{root}/set-{{000..001}}.tar", caption_field=field)
    if form == "saved":
        write_saved(root, images, captions)
    else:
        parquet.write_table(table(images, captions), root / "train-00000-of-00001.parquet", row_group_size=3)
    return HuggingFaceSpec(kind="huggingface", path=str(root), image_column="image", caption_column="text")


def write_tar(file: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def table(images: Sequence[bytes | None], captions: Sequence[str | None]) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": image, "path": None} for image in images]
    return pa.table({"image": pa.array(rows, kind), "text": pa.array(captions, pa.string())})


def write_saved(root: Path, images: Sequence[bytes | None], captions: Sequence[str | None]) -> None:
    """Write Arrow streams in batches, and state.json, as save_to_disk does."""
    root.mkdir(parents=True, exist_ok=True)
    whole = table(images, captions)
    half = (len(images) + 1) // 2
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, part in zip(names, (whole.slice(0, half), whole.slice(half)), strict=True):
        with pa.OSFile(str(root / name), "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(part, max_chunksize=2)
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
