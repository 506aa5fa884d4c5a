"""The comparison as text for a terminal, as Markdown, CSV and JSON: each number beside its protocol's hash."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from eval.protocols.compare import Figure, ProtocolComparison, ProtocolRow

HEAD = ("protocol", "images", "FID", "FID - base", "KID", "KID - base", "FID protocol", "KID protocol")

NOTE = (
    "Brackets: 95% over the scored images (FID: bootstrap, KID: jackknife; the reference is fixed). A difference "
    "is paired, image by image, unless it is marked 'unpaired'; '~' marks one within noise. Rows are measurements "
    "under different protocols: compare them here, and never put them into one column of another table."
)

COLUMNS = (
    "protocol",
    "changes",
    "images",
    *(f"{metric}{part}" for metric in ("fid", "kid") for part in ("", "_low", "_high")),
    *(f"{metric}_difference{part}" for metric in ("fid", "kid") for part in ("", "_low", "_high")),
    "paired",
    "other_unit",
    "fid_protocol",
    "kid_protocol",
    "note",
    "not_scored",
    "why",
)


def text_table(comparison: ProtocolComparison) -> str:
    """Columns, then for each row what it changes and why that moves FID, then notes."""
    rows = [HEAD, *(_cells(row) for row in comparison.rows)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEAD))]
    lines = [_header(comparison), ""]
    lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    for row in comparison.rows:
        lines.append(f"{row.name}: {_changed(row)}")
        lines.append(f"    {row.why}")
        lines += [f"    {line}" for line in row.published]
        if row.not_scored:
            lines.append(f"    not scored: {row.not_scored}")
    lines += ["", *notes(comparison)]
    return "\n".join(lines)


def markdown_table(comparison: ProtocolComparison) -> str:
    """One table with a column for the reason; the same notes."""
    head = ("protocol", "changes", *HEAD[1:], "why")
    lines = [f"# One set of images, {len(comparison.rows)} protocols", "", _header(comparison), ""]
    lines += [_markdown_row(head), _markdown_row(["---"] * len(head))]
    for row in comparison.rows:
        name, *cells = _cells(row)
        why = f"{row.why} Not scored: {row.not_scored}" if row.not_scored else row.why
        lines.append(_markdown_row([name, _changed(row), *cells, why]))
    for row in comparison.rows:
        if row.published:
            lines += ["", f"`{row.name}`, axis by axis:", "", *(f"- {line}" for line in row.published)]
    lines.append("")
    for note in notes(comparison):
        lines += [note, ""]
    return "\n".join(lines)


def csv_table(comparison: ProtocolComparison) -> str:
    """One line a row, full precision; empty where there is no number."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        d = row.difference
        writer.writerow(
            {
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
        )
    return stream.getvalue()


def notes(comparison: ProtocolComparison) -> list[str]:
    """What a reader must know of all rows."""
    found = [NOTE, *dict.fromkeys(row.note for row in comparison.rows if row.note)]
    if note := comparison.facts["note"]:
        found.append(note)
    if notice := comparison.facts["notice"]:
        found.append(f"notice: {notice}")
    return found


def _header(comparison: ProtocolComparison) -> str:
    samples, reference = comparison.facts["samples"][""], comparison.facts["reference"]
    prompts = f"prompts '{samples['prompts']}'" if samples["prompts"] else "prompts not stated"
    return (
        f"{samples['images']} images of {samples['directory']} ({prompts}) against {reference['count']} of "
        f"{reference['file']}, scale {comparison.facts['scale']}"
    )


def _cells(row: ProtocolRow) -> Sequence[str]:
    if row.fid is None or row.kid is None:
        return (row.name, "", "not scored", "", "", "", "", "")
    d = row.difference
    without = "another unit" if row.other_unit else "base"
    return (
        row.name,
        str(row.images),
        _figure(row.fid),
        without if d is None else _difference(d.fid, d.paired),
        _figure(row.kid),
        without if d is None else _difference(d.kid, d.paired),
        row.fid_protocol or "",
        row.kid_protocol or "",
    )


def _figure(figure: Figure) -> str:
    return f"{_short(figure.value)} [{_short(figure.low)}, {_short(figure.high)}]"


def _difference(figure: Figure, paired: bool) -> str:
    if figure.value == figure.low == figure.high == 0:
        return "0"
    sign = "" if figure.beyond_noise else "~"
    low, high = f"{_short(figure.low, '+')}", f"{_short(figure.high, '+')}"
    return f"{sign}{_short(figure.value, '+')} [{low}, {high}]{'' if paired else ' unpaired'}"


def _short(value: float, sign: str = "") -> str:
    """Two decimals, or where that shows nothing two digits."""
    digits = ".2f" if abs(value) >= 0.1 or value == 0 else ".2g"
    return f"{value:{sign}{digits}}"


def _numbers(name: str, figure: Figure | None) -> dict[str, Any]:
    values = (None, None, None) if figure is None else (figure.value, figure.low, figure.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _changed(row: ProtocolRow) -> str:
    return "; ".join(row.changes) or "as the scale has it"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
