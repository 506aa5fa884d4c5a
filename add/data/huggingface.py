"""A Hugging Face dataset directory: what `datasets` saved (Arrow files), or parquet files as on the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from add.config.training import HuggingFaceSpec
from add.data.images import CaptionedSet, Sample, captions_of, kinds_of
from add.data.reading import file_bytes, json_object
from add.errors import InputError
from add.files import files_below

_NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)\.parquet")
"""train-00000-of-00004.parquet"""


def dataset_files(root: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The data files of one split, in order, and all problems, such as a listed or numbered file that is missing."""
    if not root.is_dir():
        return [], [f"{root}: no such folder; it should hold a Hugging Face dataset"]
    try:
        if (root / "dataset_dict.json").exists():
            splits = _content(root / "dataset_dict.json").get("splits", [])
            return _saved(root / str(split)) if split in splits else ([], [_wrong_split(root, split, splits)])
        if (root / "state.json").exists():
            whole = split is None
            return _saved(root) if whole else ([], [f"{root}: is one split; leave data.train.split out"])
    except InputError as error:
        return [], list(error.problems)
    return _parquet(root, split)


def _saved(root: Path) -> tuple[list[Path], list[str]]:
    """The Arrow files that a directory of save_to_disk lists."""
    state = _content(root / "state.json")
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
    expected: dict[Path, None] = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file.name):
            split, number, total = match.groups()
            numbers = (str(k).zfill(len(number)) for k in range(int(total)))
            expected |= dict.fromkeys(file.with_name(f"{split}-{k}-of-{total}.parquet") for k in numbers)
    absent = expected.keys() - set(files)
    return [f"{file}: no such file, though its neighbours count it" for file in expected if file in absent]


def _content(file: Path) -> dict[str, Any]:
    return json_object(file_bytes(file), file)


def _wrong_split(root: Path, split: str | None, splits: Any) -> str:
    asked = "data.train.split is not set" if split is None else f"there is no split {split!r}"
    return f"{root}: {asked}; it has {', '.join(sorted(map(str, splits)))}"


_STATED = frozenset({"dataset_dict.json", "dataset_info.json", "state.json"})
"""What `datasets` says about its files."""

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
class ArrowImages(CaptionedSet):
    """Rows of Arrow or parquet files, in the order of files. Memory: one object per block, and `held` blocks.

    A parquet row group is read and kept in memory; an Arrow batch is memory-mapped.
    """

    parts: tuple[RowBlock, ...]
    image_column: str
    caption_column: str
    held: int
    left_out: Mapping[str, int]

    @property
    def blocks(self) -> Sequence[int]:
        """Number of rows in each part."""
        return [part.rows for part in self.parts]

    @cached_property
    def _table(self) -> Callable[[int], Any]:
        """Reads a block; the last `held` ones are remembered."""
        return lru_cache(self.held)(lambda block: _read(self.parts[block]))

    def sample(self, block: int, row: int) -> Sample:
        """As `CaptionedSet`; the error also names the column."""
        part = self.parts[block]
        name = f"{part.file}: row {part.first + row}"
        table = self._table(block)
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


def _read(part: RowBlock) -> Any:
    try:
        return part.read()
    except (OSError, ValueError) as error:  # pyarrow's errors are of these two kinds
        raise InputError(f"{part.file}: cannot be read from row {part.first}: {error}") from None


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
        if wrong := _column_problem(schema, train):
            problems.append(f"{file}: {wrong}")
            continue
        firsts = accumulate((rows for rows, _ in found), initial=0)
        pairs = zip(firsts, found, strict=False)
        blocks += [RowBlock(file, first, rows, read) for first, (rows, read) in pairs if rows]
    if not blocks and not problems:
        problems.append(f"{train.path}: holds no row")
    held = max(_FEWEST_HELD, (train.window or 0) + 1)
    root = Path(train.path)
    read = {file.relative_to(root).as_posix() for file in files}
    others = kinds_of(
        name for name in files_below(root) if name not in read and Path(name).name not in _STATED
    )
    return ArrowImages(tuple(blocks), train.image_column, train.caption_column, held, others), problems


def _parquet_blocks(file: Path, columns: list[str]) -> tuple[Any, list[tuple[int, Callable[..., Any]]]]:
    """Schema, and size and reader of each row group. Raises OSError or ValueError where the file is truncated."""
    from pyarrow import parquet

    def read(group: int) -> Any:
        with parquet.ParquetFile(file) as opened:
            return opened.read_row_group(group, columns=columns)

    metadata = parquet.read_metadata(file)
    groups = range(metadata.num_row_groups)
    blocks: list[tuple[int, Callable[..., Any]]]
    blocks = [(metadata.row_group(group).num_rows, partial(read, group)) for group in groups]
    return metadata.schema.to_arrow_schema(), blocks


def _arrow_blocks(file: Path, columns: list[str]) -> tuple[Any, list[tuple[int, Callable[..., Any]]]]:
    """The same of the record batches of a memory-mapped Arrow stream."""
    import pyarrow as pa

    mapped = pa.memory_map(str(file))
    size = len(_END_OF_STREAM)
    if mapped.size() < size or mapped.read_at(size, mapped.size() - size) != _END_OF_STREAM:
        raise ValueError("truncated: an Arrow stream ends with a mark, and this does not")
    reader = pa.ipc.open_stream(mapped)
    return reader.schema, [(batch.num_rows, batch.slice) for batch in reader]  # a slice copies nothing


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
