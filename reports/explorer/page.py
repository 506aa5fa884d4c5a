"""The page: numbers as JSON, images as sheets, and a few readable scripts, in one file that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from add.errors import InputError
from add.files import write_whole
from eval.html import self_contained
from reports.explorer.contents import ShownContents, ShownImages, ShownPrompt, read_contents
from reports.explorer.entries import ExplorerEntry
from reports.explorer.sheets import COLUMNS, LOSSLESS_UP_TO, TILES, encoded_sheet, shrunk
from reports.layout import style_of

LIMIT = 30_000_000
"""Bytes of the file; above it, larger images are shrunk further, then fewer prompts are taken."""
SIDES = (192, 128, 96)
"""Pixels: larger images are shrunk to the first of these sides with which the file keeps to its limit."""
PROMPTS = 100

_HERE = Path(__file__).parent
_SCRIPTS = ("data.js", "state.js", "query.js", "chooser.js", "table.js", "images.js", "large.js", "main.js")


@dataclass(frozen=True)
class ExplorerSize:
    """How much the page shows: the first `prompts` of each set, images of at most `side` pixels a side; its bytes."""

    prompts: int
    side: int
    bytes: int


def write_explorer(
    entries: Sequence[ExplorerEntry],
    out: Path,
    *,
    scenes: Path | None = None,
    parti: Mapping[str, Path] | None = None,
    prompts: int = PROMPTS,
    notice: str | None = None,
    limit: int = LIMIT,
) -> ExplorerSize:
    """Write the explorer of these entries to `out`, as whole as it fits in `limit` bytes; same input, same bytes.

    scenes, parti: as `read_contents` has them. prompts: how many of each set are shown at most, the first by their
    order. notice: a sentence that stands on the page. Raises InputError as `read_contents` and decoding do, and where
    one prompt of each set is still too much.
    """
    contents = read_contents(tuple(entries), scenes, parti or {})
    largest = max(shown.resolution for shown in contents.images.values())
    # Another side changes nothing where no image is larger than it.
    sides = [side for k, side in enumerate(SIDES) if k == 0 or side < largest]
    prompts = min(prompts, max(len(found) for found in contents.prompts.values()))
    size = ExplorerSize(prompts, sides.pop(0), 0)
    while len(text := _page(contents, size, prompts, notice)) > limit:
        if sides:
            size = replace(size, side=sides.pop(0))
        elif size.prompts > 1:
            # Nearly all bytes are images.
            size = replace(size, prompts=max(1, min(size.prompts - 1, size.prompts * limit // len(text))))
        else:
            message = f"would have more than {limit} bytes with one prompt of each set; leave entries out"
            raise InputError(out, message)
    write_whole(out, text)
    return replace(size, bytes=len(text))


def view_fragment(
    systems: Sequence[tuple[str, int]], prompts: str, sort: str | None = None, order: str = "low"
) -> str:
    """The part of a link behind explorer.html, "#prompts=...", that opens these systems' images side by side.

    systems: (name, steps), as in the entries. sort: "clip_score", "alignment" or "fid_influence" of the first system;
    order: "low" or "high" first.
    """
    names = [f"{quote(name, safe='')}@{steps}" for name, steps in systems]
    fragment = f"#prompts={quote(prompts, safe='')}&systems={','.join(names)}"
    return fragment if sort is None else f"{fragment}&sort={sort}&of={names[0]}&order={order}"


def _page(contents: ShownContents, size: ExplorerSize, asked: int, notice: str | None) -> bytes:
    prompts = {name: found[: size.prompts] for name, found in contents.prompts.items()}
    places = {key: k for k, key in enumerate(contents.images)}
    sheets: list[bytes] = []
    images = []
    for shown in contents.images.values():
        of_set = prompts[shown.entry.prompts]
        found = _sheets(shown, len(of_set), size.side)
        images.append(
            _images(shown, of_set, size.side) | {"sheets": [len(sheets) + k for k in range(len(found))]}
        )
        sheets += found
    metrics = dict.fromkeys(cell.metric for entry in contents.entries for cell in entry.cells)
    config: dict[str, Any] = {
        "notice": notice,
        "columns": COLUMNS,
        "tiles": TILES,
        "metrics": {name: style_of(name).title for name in metrics},
        "reduced": asked if size.prompts < asked else None,
        "sets": [_prompt_set(name, contents, found) for name, found in prompts.items()],
        "images": images,
        "rows": [
            entry.model_dump(include={"system", "steps", "prompts", "group", "finding"})
            | {"finding": entry.finding and entry.finding.model_dump()}
            | {"cells": {cell.metric: cell.text for cell in entry.cells}}
            | {"images": places[entry.key]}
            for entry in contents.entries
        ],
    }
    # A script of another type is text that the browser neither parses nor shows; the page decodes what it needs.
    extra = "\n".join(
        f'<script type="text/plain" id="sheet-{k}">{base64.b64encode(sheet).decode()}</script>'
        for k, sheet in enumerate(sheets)
    )
    style, template = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.html"))
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return self_contained(template, style, scripts, config, extra, "img-src data:")[0].encode()


def _prompt_set(name: str, contents: ShownContents, prompts: Sequence[ShownPrompt]) -> dict[str, Any]:
    lengths = [len(s.samples) for s in contents.images.values() if s.entry.prompts == name]
    return {
        "name": name,
        "of": max(lengths),
        "prompts": [
            {
                "id": each.prompt.prompt_id,
                "text": each.prompt.prompt,
                "category": each.prompt.category,
                "challenge": each.prompt.challenge,
                "seed": str(each.image_seed),  # above what a number in JavaScript holds
                "asked": each.scene,
            }
            for each in prompts
        ],
    }


def _images(shown: ShownImages, prompts: Sequence[ShownPrompt], side: int) -> dict[str, Any]:
    n, entry = len(prompts), shown.entry
    values: dict[str, Any] = {
        "system": entry.system,
        "steps": entry.steps,
        "prompts": entry.prompts,
        "side": min(shown.resolution, side),
        "resolution": shown.resolution,
        "lossless": _lossless(shown, side),
        "seeds": None,
        "scores": {},
        "answers": {},
    }
    seeds = [sample.image_seed for sample in shown.samples.samples[:n]]
    if seeds != [each.image_seed for each in prompts]:
        values["seeds"] = [str(seed) for seed in seeds]
    if shown.scores is not None:
        values["training_seed"] = shown.scores.seed
        scores = shown.scores.scores
        found: dict[str, Sequence[Any]] = {
            "clip_score": scores.clip_score,
            "alignment": [int(right) for right in scores.alignment],
            "fid_influence": scores.fid,
        }
        values["scores"] = {name: list(column[:n]) for name, column in found.items() if column}
        groups = sorted({group for answer in scores.answers for group in answer})
        values["answers"] = {group: [answer[group] for answer in scores.answers[:n]] for group in groups}
    return values


def _lossless(shown: ShownImages, side: int) -> bool:
    return shown.resolution <= min(side, LOSSLESS_UP_TO)


def _sheets(shown: ShownImages, count: int, side: int) -> list[bytes]:
    tiles = [shrunk(shown.samples.decode(file), side) for file in shown.samples.files[:count]]
    lossless = _lossless(shown, side)
    return [encoded_sheet(tiles[k : k + TILES], lossless) for k in range(0, count, TILES)]
