"""A Hugging Face dataset directory: what `datasets` saved (Arrow files), or parquet files as on the Hub."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from add.config.data import HuggingFaceSpec
from add.data.images import Sample, captions_of
from add.errors import InputError

_NUMBERED = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<total>\d+)\.parquet")
"""train-00000-of-00004.parquet"""


def dataset_files(root: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The data files of one split, in order, and all problems, such as a listed or numbered file that is missing."""
    if not root.is_dir():
        return [], [f"{root}: no such folder; it should hold a Hugging Face dataset"]
    try:
        if (root / "dataset_dict.json").exists():
            splits = _json(root / "dataset_dict.json").get("splits", [])
            return _saved(root / str(split)) if split in splits else ([], [_wrong_split(root, split, splits)])
        if (root / "state.json").exists():
            return (
                _saved(root) if split is None else ([], [f"{root}: is one split; leave data.train.split out"])
            )
    except InputError as error:
        return [], list(error.problems)
    return _parquet(root, split)


def _saved(root: Path) -> tuple[list[Path], list[str]]:
    """The Arrow files that a directory of save_to_disk lists."""
    state = _json(root / "state.json")
    entries = state.get("_data_files")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "filename" in e for e in entries):
        return [], [f"{root / 'state.json'}: lists no _data_files; is this what save_to_disk wrote?"]
    if state.get("_indices_data_files"):
        return [], [f"{root}: holds an indices mapping; load and save it again with a newer `datasets`"]
    files = [root / entry["filename"] for entry in entries]
    missing = [f"{file}: no such file, though state.json lists it" for file in files if not file.exists()]
    return [file for file in files if file.exists()], missing


def _parquet(root: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The parquet files of a split, which is the first part of a file's name, as on the Hub."""
    files = [f for f in root.rglob("*.parquet") if not f.relative_to(root).as_posix().startswith(".")]
    by_split: dict[str, list[Path]] = {}
    for file in sorted(files):
        by_split.setdefault(re.split(r"[-.]", file.name)[0], []).append(file)
    if not files:
        return [], [f"{root}: holds neither state.json (save_to_disk) nor a parquet file"]
    if split is None and len(by_split) == 1:
        (split,) = by_split
    if split not in by_split:
        return [], [_wrong_split(root, split, by_split)]
    return by_split[split], _missing_parts(by_split[split])


def _missing_parts(files: list[Path]) -> list[str]:
    """Problems: the missing files of a numbered set."""
    there = set(files)
    expected: dict[Path, None] = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file.name):
            names = (
                f"{match['split']}-{str(k).zfill(len(match['number']))}-of-{match['total']}.parquet"
                for k in range(int(match["total"]))
            )
            expected |= dict.fromkeys(file.with_name(name) for name in names)
    return [f"{file}: no such file, though its neighbours count it" for file in expected if file not in there]


def _wrong_split(root: Path, split: str | None, splits: Any) -> str:
    asked = "data.train.split is not set" if split is None else f"there is no split {split!r}"
    return f"{root}: {asked}; it has {', '.join(sorted(map(str, splits)))}"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not JSON in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds no JSON object")
    return content


_FEWEST_HELD = 4
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@dataclass(frozen=True)
class RowBlock:
    """Rows of one file (an Arrow record batch or a parquet row group) and a function that reads the two columns."""

    file: Path
    first: int
    rows: int
    read: Callable[[], Any]


@dataclass(frozen=True)
class ArrowImages:
    """Rows of Arrow or parquet files, in the order of files. Memory: one object per block, and `held` blocks.

    A parquet row group is read and kept in memory; an Arrow batch is memory-mapped.
    """

    parts: tuple[RowBlock, ...]
    image_column: str
    caption_column: str
    held: int
    _blocks: _Held = field(default_factory=lambda: _Held(), compare=False, repr=False)

    def __len__(self) -> int:
        return sum(self.blocks)

    @property
    def blocks(self) -> Sequence[int]:
        """Number of rows in each block."""
        return [part.rows for part in self.parts]

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`, block by block. Raises InputError naming file, row and column."""
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
                raise InputError(
                    f"{name}: holds the path {path}, not the image; save it with its images embedded"
                )
            image = data
        if not isinstance(image, bytes):
            raise InputError(f"{name}: a caption without an image: {self.image_column} is null")
        caption = table.column(self.caption_column)[row].as_py()
        if caption is None:
            raise InputError(f"{name}: an image without a caption: {self.caption_column} is null")
        return Sample(name, image, captions_of(caption, f"{name}, {self.caption_column}"))


@dataclass
class _Held:
    """The last used blocks."""

    tables: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, owner: int, part: RowBlock, held: int) -> Any:
        with self.lock:
            if owner not in self.tables:
                while len(self.tables) >= held:
                    self.tables.popitem(last=False)
                try:
                    self.tables[owner] = part.read()
                except (OSError, ValueError) as error:  # pyarrow's errors are of these two kinds
                    raise InputError(f"{part.file}: cannot be read from row {part.first}: {error}") from None
            self.tables.move_to_end(owner)
            return self.tables[owner]


def scan_huggingface(train: HuggingFaceSpec) -> tuple[ArrowImages, list[str]]:
    """The set's rows and all problems of its files: metadata is read, no image is opened."""
    files, problems = dataset_files(Path(train.path), train.split)
    blocks: list[RowBlock] = []
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


def _parquet_blocks(file: Path, columns: list[str]) -> tuple[Any, list[RowBlock]]:
    """Schema and row groups of a parquet file. Raises OSError or ValueError where it is truncated."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(file)
    blocks, first = [], 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows

        def read(group: int = group) -> Any:
            with parquet.ParquetFile(file) as opened:
                return opened.read_row_group(group, columns=columns)

        blocks.append(RowBlock(file, first, rows, read))
        first += rows
    return metadata.schema.to_arrow_schema(), blocks


def _arrow_blocks(file: Path, columns: list[str]) -> tuple[Any, list[RowBlock]]:
    """Schema and record batches of a memory-mapped Arrow stream. Raises OSError or ValueError where it is truncated."""
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

        blocks.append(RowBlock(file, first, batch.num_rows, read))
        first += batch.num_rows
    return reader.schema, blocks


def _column_problem(schema: Any, train: HuggingFaceSpec) -> str | None:
    """The problem of a file's two columns, or None."""
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
