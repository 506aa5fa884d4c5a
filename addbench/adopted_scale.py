"""What does a scale on your own captions, photographs and prompts say? Its values, and its file with comments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from add.errors import InputError
from addbench.text import scalar

if TYPE_CHECKING:
    from add.config.scale import Scale
    from eval.adopted import AdoptedPhotographs
    from eval.prompts import Prompt

DEFAULT_COUNT = 50
FEWEST = 3
"""KID's unbiased estimate and its error need three images."""

BASIC = "Basic"
"""The Challenge that the paper leaves out."""


def adopted_values(
    base: Scale, options: argparse.Namespace, found: AdoptedPhotographs, prompts: tuple[Prompt, ...]
) -> dict[str, Any]:
    """The new scale as JSON values: the base's, but for data, prompts, reference, crop, oracle and study."""
    from eval.adopted import BUILD, TRAINING_LIST
    from eval.images import SUFFIXES

    name, root = options.name, f"data/{options.name}"
    part = len(found.present) if len(found.present) < len(found.names) else None
    available = sum(1 for prompt in prompts if prompt.challenge != BASIC)
    pictures = [f for f in found.folder.iterdir() if f.suffix.lower() in SUFFIXES and f.name[0] != "."]
    values = base.model_dump(mode="json")
    values.pop("study", None)  # its raters need scenes
    values |= {
        "name": name,
        "description": _description(base, found, options),
        "notice": _notice(base, name),
        "data": {
            "build": BUILD,
            "root": root,
            "train": {"images": found.folder.as_posix(), "annotations": f"{root}/{TRAINING_LIST}"},
        },
    }
    if options.steps is not None:
        values["training"]["steps"] = options.steps
    values["sampling"]["prompts"] = {
        "coco": {
            "kind": "coco",
            "annotations": found.annotations.as_posix(),
            "caption_rule": "first",
            "rule_seed": 0,
            "count": _count(options.captions, len(found.present if part else found.names), "captions"),
            **({"present": part} if part else {}),
        },
        "parti": {
            "kind": "partiprompts",
            "file": options.prompts.as_posix(),
            "exclude_challenges": [BASIC] if available < len(prompts) else [],
            "count": _count(options.prompt_count, available, "prompts"),
            "rule_seed": 0,
        },
    }
    values["evaluation"] |= {
        "reference": {"images": found.folder.as_posix(), "count": len(pictures)},
        "crop": "center",  # as training crops: photographs are not square
        "oracle": None,
    }
    return values


def _count(asked: int | None, available: int, what: str) -> int:
    count = min(DEFAULT_COUNT, available) if asked is None else asked
    if not FEWEST <= count <= available:
        raise InputError(f"{what}: {count} are to be drawn; choose {FEWEST} to {available}, which are there")
    return count


def _built_in(base: Scale) -> bool:
    """Whether the base's networks know the built-in world only: they were made together with its data."""
    return (base.data.build or "").startswith("mini.")


def _notice(base: Scale, name: str) -> str | None:
    if not _built_in(base):
        return base.notice
    return f"scale {name}: the networks of scale {base.name} know only the built-in world; the numbers mean nothing"


def _description(base: Scale, found: AdoptedPhotographs, options: argparse.Namespace) -> str:
    here, listed = len(found.present), len(found.names)
    photographs = f"the {listed} photographs" if here == listed else f"{here} of the {listed} photographs"
    text = (
        f"The networks of scale {base.name} on captions of {found.annotations.name}, {photographs} that it "
        f"lists and prompts of {options.prompts.name}."
    )
    if _built_in(base):
        text += (
            " These networks know only the built-in world of captioned scenes: what they draw for such prompts, "
            "and every number about it, means nothing; that every stage takes them is the point."
        )
    return text + (
        " An FID of no more images than the extractor has features rests on singular covariances: result.json "
        "notes it where it is so."
    )


def scale_yaml(values: dict[str, Any], base: str, comments: Mapping[str, str]) -> str:
    """The scale's file; reading it gives the values again. `base` says whose those without comment are.

    `comments`: by dotted key, on the line of the value.
    """
    head = [
        "# Written by `addbench adopt`; edit it as you like.",
        f"# Values are those of {base} but where a comment says otherwise.",
        "",
    ]
    return "\n".join([*head, *_lines(values, comments, "", 0)]) + "\n"


COMMENTS = {
    "name": "the directory under results/",
    "description": "on the report's first page",
    "notice": "printed on every page of the report",
    "data.build": "the data stage: reads everything once, and lists what to train on",
    "data.train.images": "yours",
    "data.train.annotations": "photographs on disk, all their captions",
    "sampling.prompts.coco.annotations": "yours",
    "sampling.prompts.coco.count": "images, by id, one caption each",
    "sampling.prompts.coco.present": "so many of the listed photographs are on disk; only these are used",
    "sampling.prompts.parti.file": "yours",
    "sampling.prompts.parti.count": "prompts, drawn with rule_seed",
    "evaluation.reference.images": "yours",
    "evaluation.crop": "photographs are not square; training crops alike",
    "evaluation.oracle": "none: only the built-in scenes have one",
}


def _lines(node: dict[str, Any], comments: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    for key, value in node.items():
        if depth == 0 and isinstance(value, dict):
            yield ""
        comment = f"  # {comments[prefix + key]}" if prefix + key in comments else ""
        if isinstance(value, dict) and value:
            yield f"{'  ' * depth}{scalar(key)}:{comment}"
            yield from _lines(value, comments, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{'  ' * depth}{scalar(key)}: {scalar(value)}{comment}"
