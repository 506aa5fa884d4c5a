"""Votes of Pick-a-Pic (v1, v2): caption, image_0_uid, image_1_uid, model_0, model_1, label_0, label_1, has_label.

The data set is published as Parquet; save it as CSV or as JSON lines, without the columns of image bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from eval.preferences.importers.build import Builder, Imported
from eval.preferences.importers.entries import ForeignEntry, ForeignFile, Options

COLUMNS = ("caption", "image_0_uid", "image_1_uid", "model_0", "model_1", "label_0", "label_1")

_LABELS: Mapping[tuple[float | None, float | None], str] = {
    (1.0, 0.0): "a",
    (0.0, 1.0): "b",
    (0.5, 0.5): "tie",
}
_TRUTHS: Mapping[str, bool] = {"True": True, "true": True, "False": False, "false": False}


def convert(source: ForeignFile, options: Options) -> Imported:
    """Image 0 becomes a. prompt_id is a hash of the caption, for the file numbers no prompts.

    Many of its pairs show two images of one model: they need --same-system leave-out. Raises PreferenceError.
    """
    builder = Builder(source, options, {"rater": "user_id", "prompt": "caption", "prompt_id": "caption"})
    for entry in source.entries:
        if "has_label" in source.columns:
            labelled = _TRUTHS.get(str(entry.values.get("has_label")))
            if labelled is None:
                builder.refuse(entry, "has_label", "must be true or false")
                continue
            if not labelled:
                builder.decide(entry, "unanswered")
                continue
        winner = _winner(builder, entry)
        if winner is None:
            continue
        more = {"image_a": builder.text(entry, "image_0_uid"), "image_b": builder.text(entry, "image_1_uid")}
        if options.prompt_id_column is None:
            more["prompt_id"] = prompt_hash(builder.text(entry, "caption"))
        systems = builder.text(entry, "model_0"), builder.text(entry, "model_1")
        builder.add(entry, systems, winner, time=builder.time(entry, "created_at"), **more)
    return builder.finish()


def prompt_hash(prompt: str) -> str:
    """An id for a prompt that has none: 'p' and the first 16 digits of the sha256 of its UTF-8."""
    return f"p{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def _winner(builder: Builder, entry: ForeignEntry) -> str | None:
    labels = _number(entry.values.get("label_0")), _number(entry.values.get("label_1"))
    winner = _LABELS.get(labels)
    if winner is None:
        reason = "label_0 and label_1 must be 1 and 0, 0 and 1, or 0.5 and 0.5"
        builder.refuse(
            entry, "label_0", reason, value=", ".join(str(entry.values.get(f"label_{k}")) for k in (0, 1))
        )
        return None
    best = entry.values.get("best_image_uid")
    other = {"a": entry.values.get("image_1_uid"), "b": entry.values.get("image_0_uid")}.get(winner)
    if best is not None and best == other:
        builder.refuse(entry, "best_image_uid", "contradicts label_0 and label_1")
        return None
    return winner


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
