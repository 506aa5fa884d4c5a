"""FID and KID by each protocol, and how far each is from the base: as figures, and as text, Markdown and CSV.

A difference comes with what the same images' noise explains; each number stands beside its protocol's hash.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.metrics.distances import Array, Estimated, KernelDistance
from eval.metrics.measure import ImageDistance

HEAD = ("protocol", "images", "FID", "FID - base", "KID", "KID - base", "FID protocol", "KID protocol")

NOTE = (
    "Brackets: 95% over the scored images (FID: influence function, KID: jackknife; the reference is "
    "fixed); an FID of no more images than features has none. A difference "
    "is paired, image by image, unless it is marked 'unpaired'; '~' marks one within noise. Rows are measurements "
    "under different protocols: compare them here, and never put them into one column of another table."
)


@dataclass(frozen=True)
class Figure:
    """A value and its 95% interval over images, where one can be stated."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, error: float | None) -> Figure:
        """From a standard error."""
        return cls(value, *((None, None) if error is None else Estimated(value, error).interval))


@dataclass(frozen=True)
class Difference:
    """From the base, FID and KID; `paired`: both were taken of images for the same prompts."""

    fid: Figure
    kid: Figure
    paired: bool


@dataclass(frozen=True)
class FeatureDistances:
    """How far one image set is from a reference."""

    fid: ImageDistance
    kid: KernelDistance


def difference(one: FeatureDistances, base: FeatureDistances, paired: bool) -> Difference:
    """`one` less `base`: `paired` where one's images have the keys of the other's first, or else both errors in full.

    Pairing takes the noise that both share out of the interval: of FID by the difference of each image's influence, of
    KID by that of leaving it out. An image that one of both lacks counts in full. An extrapolation adds the error of
    its fit. FID's has no interval where one of both has none.
    """
    fid_error: float | None = None
    kid_error = math.hypot(one.kid.error, base.kid.error)
    if paired:
        kid_error = _paired_error(_jackknifed(one.kid.left_out), _jackknifed(base.kid.left_out))
    if one is base:
        fid_error = 0.0
    elif one.fid.error is not None and base.fid.error is not None:
        fid_error = math.hypot(one.fid.error, base.fid.error)
        if paired:
            spread = _paired_error(one.fid.influence, base.fid.influence)
            fid_error = math.hypot(spread, one.fid.fit_error, base.fid.fit_error)
    return Difference(
        Figure.of(one.fid.value - base.fid.value, fid_error),
        Figure.of(one.kid.value - base.kid.value, kid_error),
        paired,
    )


def _paired_error(one: Array, base: Array) -> float:
    """The standard error of a difference, of each image's influence (n,), (m,); the first are of the same images."""
    apart = np.zeros(max(len(one), len(base)))
    for sign, influence in ((1, one), (-1, base)):
        n = len(influence)
        apart[:n] += sign * (influence - influence.mean()) / np.sqrt(n * (n - 1))
    return float(np.linalg.norm(apart))


def _jackknifed(left_out: Array) -> Array:
    """Each image's influence on an estimate whose values without it are left_out (n,), but for a constant."""
    return (1 - len(left_out)) * left_out


@dataclass(frozen=True)
class ProtocolRow:
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

    @property
    def changed(self) -> str:
        """What it changes, in one line."""
        return "; ".join(self.changes) or "as the scale has it"

    def cells(self) -> tuple[str, ...]:
        """Its cells below `HEAD`."""
        if self.fid is None or self.kid is None:
            return (self.name, "", "not scored", *[""] * 5)
        d = self.difference
        without = "another unit" if self.other_unit else "base"
        return (
            self.name,
            str(self.images),
            _figure(self.fid),
            without if d is None else _difference(d.fid, d.paired),
            _figure(self.kid),
            without if d is None else _difference(d.kid, d.paired),
            self.fid_protocol or "",
            self.kid_protocol or "",
        )


@dataclass(frozen=True)
class ProtocolComparison:
    """The rows, base first, and all protocols by id. `facts` says what was scored against what."""

    rows: tuple[ProtocolRow, ...]
    protocols: dict[str, dict[str, Any]]
    facts: dict[str, Any]

    def title(self) -> str:
        """One line: what was scored against what."""
        samples, reference = self.facts["samples"][""], self.facts["reference"]
        prompts = f"prompts '{samples['prompts']}'" if samples["prompts"] else "prompts not stated"
        return (
            f"{samples['images']} images of {samples['directory']} ({prompts}) against {reference['count']} of "
            f"{reference['file']}, scale {self.facts['scale']}"
        )

    def notes(self) -> list[str]:
        """What a reader must know of all rows."""
        notice = self.facts["notice"]
        found = [NOTE, *(row.note for row in self.rows), self.facts["note"], notice and f"notice: {notice}"]
        return [note for note in dict.fromkeys(found) if note]


def text_table(comparison: ProtocolComparison) -> str:
    """For a terminal: columns, then for each row what it changes and why that moves FID, then notes."""
    rows = [HEAD, *(row.cells() for row in comparison.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [comparison.title(), ""]
    lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    for row in comparison.rows:
        details = [row.why, *row.published, *([f"not scored: {row.not_scored}"] if row.not_scored else [])]
        lines += [f"{row.name}: {row.changed}", *(f"    {line}" for line in details)]
    return "\n".join([*lines, "", *comparison.notes()])


def markdown_table(comparison: ProtocolComparison) -> str:
    """One table with a column for the reason; the same notes."""
    head = ("protocol", "changes", *HEAD[1:], "why")
    lines = [f"# One set of images, {len(comparison.rows)} protocols", "", comparison.title(), ""]
    lines += [_markdown_row(head), _markdown_row(["---"] * len(head))]
    for row in comparison.rows:
        name, *cells = row.cells()
        why = f"{row.why} Not scored: {row.not_scored}" if row.not_scored else row.why
        lines.append(_markdown_row([name, row.changed, *cells, why]))
    for row in comparison.rows:
        if row.published:
            lines += ["", f"`{row.name}`, axis by axis:", "", *(f"- {line}" for line in row.published)]
    return "\n".join([*lines, "", *(f"{note}\n" for note in comparison.notes())])


def csv_table(comparison: ProtocolComparison) -> str:
    """One line a row, full precision; empty where there is no number."""
    lines = [_csv_values(row) for row in comparison.rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_values(row: ProtocolRow) -> dict[str, Any]:
    d = row.difference
    return {
        "protocol": row.name,
        "changes": "; ".join(row.changes),
        "images": row.images,
        **_numbers("fid", row.fid),
        **_numbers("kid", row.kid),
        **_numbers("fid_difference", d.fid if d else None),
        **_numbers("kid_difference", d.kid if d else None),
        "paired": None if d is None else str(d.paired).lower(),
        "other_unit": str(row.other_unit).lower(),
        "fid_protocol": row.fid_protocol,
        "kid_protocol": row.kid_protocol,
        "note": row.note,
        "not_scored": row.not_scored,
        "why": row.why,
    }


def _numbers(name: str, figure: Figure | None) -> dict[str, float | None]:
    values = (None, None, None) if figure is None else (figure.value, figure.low, figure.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _figure(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return _short(figure.value)
    return f"{_short(figure.value)} [{_short(figure.low)}, {_short(figure.high)}]"


def _difference(figure: Figure, paired: bool) -> str:
    if figure.value == figure.low == figure.high == 0:
        return "0"
    unpaired = "" if paired else " unpaired"
    if figure.low is None or figure.high is None:
        return f"{_short(figure.value, '+')}{unpaired}"
    value, low, high = (_short(number, "+") for number in (figure.value, figure.low, figure.high))
    within_noise = figure.low <= 0 <= figure.high
    return f"{'~' if within_noise else ''}{value} [{low}, {high}]{unpaired}"


def _short(value: float, sign: str = "") -> str:
    """Two decimals, or where that shows nothing two digits."""
    digits = ".2f" if abs(value) >= 0.1 or value == 0 else ".2g"
    return f"{value:{sign}{digits}}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
