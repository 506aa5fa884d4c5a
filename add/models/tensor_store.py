"""Named tensors on disk by key. Several processes may read and write one store at once, and files may be deleted.

A directory holds segments: safetensors files of up to about a thousand entries. A segment appears by renaming and never
changes. Entries of a deleted segment are missing from then on, and are made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from add.errors import InputError
from add.files import write_whole

KEY_BYTES = 16
SEGMENT_ENTRIES = 1024
SEGMENT_BYTES = 1 << 28
"""A segment is written when it reaches one of these sizes; a killed process loses at most that much."""

_KEYS = "keys"
_OPEN = 64


class TensorStore:
    """Entries of one identity. In memory: 16 bytes per entry on disk, entries not yet written, and mapped files.

    identity: everything beside the key that decides an entry's values. A segment of another identity is refused.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory, self.identity = directory, dict(identity)
        self._pending: dict[bytes, dict[str, Tensor]] = {}
        self._pending_bytes = 0
        self._open = lru_cache(_OPEN)(lambda segment: _Segment(self._segments[segment], self.identity))
        self._start()

    def _start(self) -> None:
        """Index the segments that are on disk now."""
        self._segments: list[Path] = []
        self._prefixes = np.zeros(0, np.uint64)  # sorted; the first half of a key
        self._places = np.zeros((0, 2), np.int32)  # of each: segment, row
        self._open.cache_clear()
        self._scan()

    def get(self, keys: Sequence[bytes]) -> dict[str, Tensor] | None:
        """Tensors (len(keys), ...) on the CPU, or None where one of the keys has no entry."""
        rows = self._rows(keys)
        if rows is None and self._scan():  # another process may have written
            rows = self._rows(keys)
        if rows is None:
            return None
        names = rows[0].keys()
        if any(row.keys() != names for row in rows):
            raise InputError(f"{self.directory}: entries hold different tensors; delete the directory")
        return {name: _stacked([row[name] for row in rows]) for name in names}

    def put(self, keys: Sequence[bytes], tensors: Mapping[str, Tensor]) -> None:
        """Keep one entry per key: row i of each tensor. Existing entries do not change."""
        kept = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        for i, key in enumerate(keys):
            if key not in self._pending and self._place(key) is None:
                entry = {name: _row(tensor, i) for name, tensor in kept.items()}
                self._pending[key] = entry
                self._pending_bytes += sum(t.numel() * t.element_size() for t in entry.values())
        if len(self._pending) >= SEGMENT_ENTRIES or self._pending_bytes >= SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        from safetensors.torch import save

        if not self._pending:
            return
        keys = b"".join(self._pending)
        entries = list(self._pending.values())
        content = {name: torch.stack([e[name].contiguous() for e in entries]) for name in entries[0]}
        content[_KEYS] = torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, KEY_BYTES)
        formats = [name for name, tensor in entries[0].items() if _channels_last(tensor[None])]
        note = {"identity": json.dumps(self.identity, sort_keys=True), "channels_last": json.dumps(formats)}
        name = f"segment-{hashlib.sha256(keys).hexdigest()[:24]}.safetensors"
        write_whole(self.directory / name, save(content, metadata=note), durable=True)
        self._pending, self._pending_bytes = {}, 0
        self._scan()

    def _rows(self, keys: Sequence[bytes]) -> list[dict[str, Tensor]] | None:
        found = []
        for key in keys:
            if (entry := self._pending.get(key)) is None:
                place = self._place(key)
                entry = self._read(*place, key) if place is not None else None
            if entry is None:
                return None
            found.append(entry)
        return found

    def _place(self, key: bytes) -> tuple[int, int] | None:
        """Segment and row of a key on disk."""
        prefix = np.frombuffer(key[:8], np.uint64)[0]
        at = int(np.searchsorted(self._prefixes, prefix))
        if at == len(self._prefixes) or self._prefixes[at] != prefix:
            return None
        segment, row = self._places[at].tolist()
        return segment, row

    def _read(self, segment: int, row: int, key: bytes) -> dict[str, Tensor] | None:
        try:
            opened = self._open(segment)
        except FileNotFoundError:  # files were deleted: go on with the remaining ones
            self._start()
            return None
        return opened.row(row) if opened.keys[row].tobytes() == key else None  # the index has half of a key

    def _scan(self) -> bool:
        """Add new segments to the index. Returns whether there were any. Raises InputError for a damaged one."""
        known = set(self._segments)
        new = [f for f in sorted(self.directory.glob("segment-*.safetensors")) if f not in known]
        prefixes, places = [self._prefixes], [self._places]
        for file in new:
            try:
                keys = _Segment(file, self.identity).keys
            except FileNotFoundError:
                continue
            prefixes.append(np.ascontiguousarray(keys[:, :8]).view(np.uint64).reshape(-1))
            rows = np.arange(len(keys), dtype=np.int32)
            places.append(np.stack([np.full_like(rows, len(self._segments)), rows], axis=1))
            self._segments.append(file)
        if len(prefixes) == 1:
            return False
        merged = np.concatenate(prefixes)
        order = np.argsort(merged, kind="stable")
        self._prefixes, self._places = merged[order], np.concatenate(places)[order]
        return True


class _Segment:
    """One mapped file. Raises InputError where it is damaged or of another identity, FileNotFoundError where gone."""

    def __init__(self, file: Path, identity: Mapping[str, Any]) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self._content = safe_open(file, framework="pt")
            note = self._content.metadata() or {}
            stated = json.loads(note["identity"])
            self.channels_last = set(json.loads(note["channels_last"]))
            self.keys = self._content.get_tensor(_KEYS).numpy()
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{file}: not a whole cache file ({error}); delete it") from None
        wrong = [k for k in sorted({*stated, *identity}) if stated.get(k) != identity.get(k)]
        if wrong:
            named = ", ".join(f"{k} {stated.get(k)!r} (here {identity.get(k)!r})" for k in wrong)
            raise InputError(f"{file}: does not belong here, it was made with {named}; delete it")
        self._slices = {
            name: self._content.get_slice(name)
            for name in self._content.keys()  # noqa: SIM118
            if name != _KEYS
        }

    def row(self, i: int) -> dict[str, Tensor]:
        found = {}
        for name, part in self._slices.items():
            tensor = part[i : i + 1]
            if name in self.channels_last:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            found[name] = tensor[0]
        return found


def _row(tensor: Tensor, i: int) -> Tensor:
    """A copy of row i in the same memory format, which decides the bits of later results."""
    return tensor[i : i + 1].clone(memory_format=torch.preserve_format)[0]


def _channels_last(batch: Tensor) -> bool:
    channels_last = batch.ndim == 4 and batch.is_contiguous(memory_format=torch.channels_last)
    return channels_last and not batch.is_contiguous()


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    whole = torch.stack([row.contiguous() for row in rows])
    return whole.contiguous(memory_format=torch.channels_last) if _channels_last(rows[0][None]) else whole
