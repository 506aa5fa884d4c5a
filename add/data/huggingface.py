"""A Hugging Face dataset directory: what `datasets` saved (Arrow files), or parquet files as on the Hub.

Read by pyarrow alone. The datasets library would copy parquet into an Arrow cache of the same size first, and its
fingerprints are hashes of pickles.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from add.data.huggingface_files import dataset_files
from add.data.samples import DataError, Sample, captions_of
from add.spec_data import HuggingFaceSet

_FEWEST_HELD = 4
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@dataclass(frozen=True)
class Block:
    """Rows of one file: an Arrow record batch or a parquet row group, and how to read its two columns."""

    file: Path
    first: int
    rows: int
    read: Callable[[], Any]


@dataclass(frozen=True)
class ArrowImages:
    """Rows of Arrow or parquet files, in the order of the files. Memory: one object a block, and `held` blocks.

    A parquet row group is read and kept whole; an Arrow batch is mapped, and its pages are the system's to keep.
    """

    parts: tuple[Block, ...]
    image_column: str
    caption_column: str
    held: int
    _blocks: _Held = field(default_factory=lambda: _Held(), compare=False, repr=False)

    def __len__(self) -> int:
        return sum(self.blocks)

    @property
    def blocks(self) -> Sequence[int]:
        """The number of rows of each block."""
        return [part.rows for part in self.parts]

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`, block by block. Raises DataError naming file, row and column."""
        import numpy as np

        ends = np.cumsum(self.blocks)
        owners = np.searchsorted(ends, indices, side="right").tolist()
        found: dict[int, Sample] = {}
        for position in sorted(range(len(indices)), key=lambda k: owners[k]):
            owner = owners[position]
            row = int(indices[position] - ends[owner]) + self.parts[owner].rows
            found[position] = self._sample(owner, row)
        return [found[position] for position in range(len(indices))]

    def _sample(self, owner: int, row: int) -> Sample:
        part = self.parts[owner]
        name = f"{part.file}: row {part.first + row}"
        table = self._blocks.get(owner, part, self.held)
        image = table.column(self.image_column)[row].as_py()
        if isinstance(image, dict):
            data, path = image.get("bytes"), image.get("path")
            if data is None and path:
                raise DataError(
                    [f"{name}: holds the path {path}, not the image; save it with its images embedded"]
                )
            image = data
        if not isinstance(image, bytes):
            raise DataError([f"{name}: a caption without an image: {self.image_column} is null"])
        caption = table.column(self.caption_column)[row].as_py()
        if caption is None:
            raise DataError([f"{name}: an image without a caption: {self.caption_column} is null"])
        return Sample(name, image, captions_of(caption, f"{name}, {self.caption_column}"))


@dataclass
class _Held:
    """The blocks read last."""

    tables: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, owner: int, part: Block, held: int) -> Any:
        with self.lock:
            if owner not in self.tables:
                while len(self.tables) >= held:
                    self.tables.popitem(last=False)
                try:
                    self.tables[owner] = part.read()
                except (OSError, ValueError) as error:  # pyarrow's errors are of these two kinds
                    raise DataError([f"{part.file}: cannot be read from row {part.first}: {error}"]) from None
            self.tables.move_to_end(owner)
            return self.tables[owner]


def scan_huggingface(train: HuggingFaceSet) -> tuple[ArrowImages, list[str]]:
    """The set's rows and all problems of its files: their tables of contents are read, no image is."""
    files, problems = dataset_files(Path(train.path), train.split)
    blocks: list[Block] = []
    for file in files:
        scan = _parquet_blocks if file.suffix == ".parquet" else _arrow_blocks
        try:
            schema, found = scan(file, [train.image_column, train.caption_column])
        except (OSError, ValueError) as error:
            problems.append(f"{file}: cannot be read: {error}")
            continue
        wrong = _column_problem(schema, train)
        if wrong is None:
            blocks += [block for block in found if block.rows]
        else:
            problems.append(f"{file}: {wrong}")
    if not blocks and not problems:
        problems.append(f"{train.path}: holds no row")
    held = max(_FEWEST_HELD, (train.window or 0) + 1)
    return ArrowImages(tuple(blocks), train.image_column, train.caption_column, held), problems


def _parquet_blocks(file: Path, columns: list[str]) -> tuple[Any, list[Block]]:
    """Schema and row groups of a parquet file. Raises OSError or ValueError where its end is missing."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(file)
    blocks, first = [], 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows

        def read(group: int = group) -> Any:
            with parquet.ParquetFile(file) as opened:
                return opened.read_row_group(group, columns=columns)

        blocks.append(Block(file, first, rows, read))
        first += rows
    return metadata.schema.to_arrow_schema(), blocks


def _arrow_blocks(file: Path, columns: list[str]) -> tuple[Any, list[Block]]:
    """Schema and record batches of an Arrow stream, mapped. Raises OSError or ValueError where it is truncated."""
    import pyarrow as pa

    mapped = pa.memory_map(str(file))
    if (
        mapped.size() < len(_END_OF_STREAM)
        or mapped.read_at(len(_END_OF_STREAM), mapped.size() - 8) != _END_OF_STREAM
    ):
        raise ValueError("truncated: an Arrow stream ends with a mark, and this does not")
    reader = pa.ipc.open_stream(mapped)
    blocks, first = [], 0
    for batch in reader:

        def read(batch: Any = batch) -> Any:
            return batch

        blocks.append(Block(file, first, batch.num_rows, read))
        first += batch.num_rows
    return reader.schema, blocks


def _column_problem(schema: Any, train: HuggingFaceSet) -> str | None:
    """What is wrong with the two columns of a file, or None."""
    from pyarrow import types

    for name in (train.image_column, train.caption_column):
        if name not in schema.names:
            return f"has no column {name!r}; it has {', '.join(schema.names)}"
    image, caption = schema.field(train.image_column).type, schema.field(train.caption_column).type
    if types.is_struct(image):
        image = image.field("bytes").type if image.get_field_index("bytes") >= 0 else image
    if not (types.is_binary(image) or types.is_large_binary(image)):
        return f"column {train.image_column!r} is {image}; it should hold encoded images (`Image`, or binary)"
    if types.is_list(caption) or types.is_large_list(caption):
        caption = caption.value_type
    if not (types.is_string(caption) or types.is_large_string(caption)):
        return f"column {train.caption_column!r} is {caption}; it should hold text, or lists of text"
    return None
