"""One row a protocol, and the whole comparison: what `run` makes and `table` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.protocols.compare import Difference, Figure


@dataclass(frozen=True)
class Row:
    """One protocol: what it changes in the base, why that moves FID, and the figures or why there are none.

    `published`: for a paper's protocol, axis by axis what it states. `note`: what the figures rest on.
    `other_unit`: another network's distances, from which no difference is taken.
    """

    name: str
    changes: tuple[str, ...]
    why: str
    published: tuple[str, ...] = ()
    images: int | None = None
    fid: Figure | None = None
    kid: Figure | None = None
    difference: Difference | None = None
    other_unit: bool = False
    fid_protocol: str | None = None
    kid_protocol: str | None = None
    note: str | None = None
    not_scored: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The rows, base first, and all protocols by id. `facts` says what was scored against what."""

    rows: tuple[Row, ...]
    protocols: dict[str, dict[str, Any]]
    facts: dict[str, Any]
