"""Which prompts, in which order, by which rule: COCO captions and PartiPrompts.

Both readers are strict: what is not exactly as published is refused with file, line or field, and reason. A
prompt is passed on as it stands in the file, with its quotes, trailing spaces and line breaks; tokenizers
drop such white space, and this reader does not guess which of it was meant.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from add.data.coco import read_captions
from add.data.images import text_fault
from add.data.reading import csv_rows
from add.errors import InputError
from add.models.weights import file_hash
from eval.images import stated_subset
from eval.metrics.protocol import PromptRule, Subset

if TYPE_CHECKING:
    from add.config.scale import CocoPromptsSpec, PromptsSpec

CaptionRule = Literal["first", "random"]

PARTI_COLUMNS = ("Prompt", "Category", "Challenge")


@dataclass(frozen=True)
class Prompt:
    """One prompt. `image_id` and `file_name` name the photograph that a COCO caption describes."""

    prompt_id: str
    prompt: str
    category: str | None = None
    challenge: str | None = None
    image_id: int | None = None
    file_name: str | None = None


def read_prompts(config: PromptsSpec) -> tuple[Prompt, ...]:
    """The prompts of one entry of a scale's `sampling.prompts`, one an image. Raises InputError.

    Of a repeated set they follow each other, as often as there are images of each, with ids of their own, and so with
    noise of their own (`eval.sample.image_seed`).
    """
    if config.kind == "repeated":
        return tuple(
            replace(prompt, prompt_id=f"{prompt.prompt_id}-{k}")
            for prompt in read_prompts(config.of)
            for k in range(config.images)
        )
    if config.kind == "coco":
        file = Path(config.annotations)
        return read_coco(file, config.caption_rule, config.rule_seed, config.count, config.present)
    return read_parti(Path(config.file), config.exclude_challenges, config.rule_seed, config.count)


def read_coco(
    file: Path,
    caption_rule: CaptionRule = "first",
    rule_seed: int = 0,
    count: int | None = None,
    present: int | None = None,
) -> tuple[Prompt, ...]:
    """One caption for each of the first `count` images (all if None) of a COCO captions file, by image id.

    caption_rule 'first' takes an image's caption with the lowest annotation id; 'random' takes one by a
    hash of (rule_seed, image id), so the choice for one image does not depend on `count` or on the other
    images. `present` restricts the choice to the photographs that are on disk, and states their number
    (`eval.images`). The prompt id is the image id. Raises InputError.
    """
    read = read_captions(file)
    names = read.names
    if present is not None:
        there = set(stated_subset(file, list(names.values()), present))
        names = {image_id: name for image_id, name in names.items() if name in there}
    chosen = sorted(names)[: _checked_count(file, count, len(names), "images")]
    prompts = []
    for image_id in chosen:
        options = read.texts(image_id)
        pick = 0 if caption_rule == "first" else hash_draw(rule_seed, str(image_id)) % len(options)
        prompts.append(Prompt(str(image_id), options[pick], image_id=image_id, file_name=names[image_id]))
    return tuple(prompts)


def read_parti(
    file: Path, exclude_challenges: Iterable[str] = (), rule_seed: int = 0, count: int | None = None
) -> tuple[Prompt, ...]:
    """`count` prompts (all if None) of a PartiPrompts TSV without the named challenges, in the file's order.

    Quotes are characters like any other. Of the prompts left, those with the `count` lowest hashes of
    (rule_seed, prompt) are taken, so a smaller choice is part of a larger one. The prompt id is 'parti-'
    and the 1-based row, so it does not depend on what was excluded. Raises InputError.
    """
    rows = _parti_rows(file)
    known = {p.challenge or "" for p in rows}
    excluded = set(exclude_challenges)
    for name in sorted(excluded - known):
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
        raise InputError(file, "Challenge", f"no challenge is called {name!r}; the nearest is {close[0]!r}")
    left = [p for p in rows if p.challenge not in excluded]
    wanted = _checked_count(file, count, len(left), "prompts")
    chosen = {p.prompt_id for p in sorted(left, key=lambda p: hash_draw(rule_seed, p.prompt))[:wanted]}
    return tuple(p for p in left if p.prompt_id in chosen)


def hash_draw(seed: int, key: str) -> int:
    """A draw from 0 .. 2^64 - 1 that depends on its arguments alone: lists are ranked and captions picked by it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")


def prompt_rule(config: PromptsSpec, name: str, count: int) -> PromptRule:
    """Where the `count` prompts of set `name` come from. Raises OSError where the file cannot be read."""
    if config.kind == "repeated":
        return prompt_rule(config.of, name, count)
    file = config.annotations if config.kind == "coco" else config.file
    rule: dict[str, Any] = {"rule_seed": config.rule_seed}
    if config.kind == "partiprompts":
        rule |= {"exclude_challenges": config.exclude_challenges}
    else:
        rule |= {"caption_rule": config.caption_rule, "subset": subset_of(config)}
        if config.caption_rule == "first":
            rule["rule_seed"] = None
    sha256 = file_hash(Path(file))
    return PromptRule(name=name, kind=config.kind, file=file, sha256=sha256, count=count, **rule)


def subset_of(config: CocoPromptsSpec) -> Subset | None:
    """The part of the listed photographs that a set is restricted to; None without one. Raises InputError."""
    if config.present is None:
        return None
    file = Path(config.annotations)
    names = list(read_captions(file).names.values())
    there = stated_subset(file, names, config.present)
    digest = hashlib.sha256("\n".join(there).encode()).hexdigest()
    return Subset(present=len(there), listed=len(names), sha256=digest)


def _checked_count(file: Path, count: int | None, available: int, what: str) -> int:
    if count is None:
        return available
    if count < 1:
        raise InputError(file, None, f"count is {count}, and must be at least 1")
    if count > available:
        raise InputError(file, None, f"{count} {what} are asked for, {available} are there")
    return count


def _parti_rows(file: Path) -> list[Prompt]:
    rows = csv_rows(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    _, header = next(rows, (1, []))
    for name in PARTI_COLUMNS:
        if header.count(name) != 1:
            problem = "is missing" if name not in header else "is there twice"
            raise InputError(file, "line 1", f"column {name!r} {problem}; the header is {header}")
    places = [header.index(name) for name in PARTI_COLUMNS]
    prompts: list[Prompt] = []
    first_line: dict[str, int] = {}
    for line, row in rows:
        where = f"line {line}"
        text, category, challenge = (row[k] for k in places)
        for name, value in zip(PARTI_COLUMNS, (text, category, challenge), strict=True):
            if fault := text_fault(value):
                raise InputError(file, where, f"{name} {fault}")
        if text in first_line:
            raise InputError(file, where, f"the prompt is already in line {first_line[text]}: {text!r}")
        first_line[text] = line
        prompts.append(Prompt(f"parti-{len(prompts) + 1:04d}", text, category, challenge))
    if not prompts:
        raise InputError(file, None, "holds no prompts")
    return prompts
