"""A protocol in words: what it changes in the base, and what of a paper's protocol can be met here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eval.protocols.plan import normalises, pixels
from eval.protocols.spec import FeaturesOf, NamedProtocol, Protocols, Settings

if TYPE_CHECKING:
    from add.spec_scale import Scale

_SIDES = ("samples_resolution", "reference_resolution")


def changes(document: Protocols, protocol: NamedProtocol, scale: Scale) -> tuple[str, ...]:
    """One text an axis whose value at this scale is not the base's, such as 'resize pytorch'."""
    settings, base = document.settings(protocol), document.settings(document.base)
    values = ((axis, _value(axis, settings, scale)) for axis in Settings.model_fields)
    return tuple(
        f"{axis.replace('_', ' ')} {value}" for axis, value in values if value != _value(axis, base, scale)
    )


def published(document: Protocols, protocol: NamedProtocol, scale: Scale, available: int) -> tuple[str, ...]:
    """For a paper's protocol: each axis it states with what is here, then the axes that it does not state."""
    if protocol.published is None:
        return ()
    settings, stated = document.settings(protocol), protocol.published
    lines = []
    for axis in Settings.model_fields:
        if axis in stated.model_fields_set:
            wanted, here = _value(axis, stated, scale), _value(axis, settings, scale)
            if axis == "images":
                here = str(available if settings.images == "all" else settings.images)
            met = "as published" if wanted == here else f"published {wanted}, NOT MET here"
            lines.append(f"{axis.replace('_', ' ')}: {here} ({met})")
        else:
            lines.append(f"{axis.replace('_', ' ')}: {_value(axis, settings, scale)} (ours / not published)")
    return tuple(lines)


def _value(axis: str, settings: Settings, scale: Scale) -> str:
    value: Any = getattr(settings, axis)
    if axis in _SIDES:
        side = pixels(value, scale.evaluation.resolution)
        return "native" if side is None else f"{side} px"
    if axis == "reference_crop" and value == "scale":
        return scale.evaluation.crop
    if axis == "normalisation" and not normalises(settings, scale):
        return "extractor"
    if axis == "extractor":
        if value is None:
            return f"{scale.evaluation.extractor.kind}, {scale.evaluation.extractor.path}"
        return value.network if isinstance(value, FeaturesOf) else f"{value.kind}, {value.path}"
    if axis in ("caption_rule", "rule_seed", "sampling_seed") and value in ("scale", None):
        return _of_scale(axis, scale)
    return str(value)


def _of_scale(axis: str, scale: Scale) -> str:
    if axis == "sampling_seed":
        return str(scale.sampling.seed)
    for config in scale.sampling.prompts.values():
        if config.kind == "coco":
            if axis == "caption_rule":
                return config.caption_rule
            return str(config.rule_seed) if config.caption_rule == "random" else "none"
    return "none"
