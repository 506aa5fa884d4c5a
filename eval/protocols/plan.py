"""A named protocol at one scale: how each image reaches which extractor, how many count, and the protocol's hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from add.config.scale import ExtractorSpec
from add.errors import InputError
from eval.metrics.catalogue import METRICS
from eval.metrics.distances import POINTS
from eval.metrics.protocol import ImageRule, NetworkIdentity, PromptRule, Protocol, SourceIdentity
from eval.protocols.pixels import RESIZES, Picture, encoding_text
from eval.protocols.spec import OF_SAMPLES, FeaturesOf, NamedProtocol, Protocols, ProtocolSettings

if TYPE_CHECKING:
    from add.config.scale import Scale
    from eval.protocols.spec import ResizeName


_SUBSETS = f"of {POINTS} random subsets, extrapolated linearly in 1 / n to 0 (FID-infinity)"
INFINITY = f"{METRICS['fid'].definition}; {_SUBSETS}"

_HALVES = {"half": 2, "quarter": 4}


class NotScoredError(InputError):
    """A protocol that cannot be applied to what is there; its row says why, and has no numbers."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes features: `picture`, the library's resize, normalisation, extractor (its entry as JSON)."""

    picture: Picture
    resize: ResizeName
    symmetric: bool
    extractor: str


@dataclass(frozen=True)
class ProtocolPlan:
    """A protocol resolved; two names of equal plans are one measurement.

    `sample_set` names the protocol whose own samples are scored; None: the common ones.
    """

    samples: Preprocessing
    reference: Preprocessing
    images: int
    infinity: bool
    sample_set: str | None


def plan(
    document: Protocols, protocol: NamedProtocol, scale: Scale, available: int, own_samples: bool
) -> ProtocolPlan:
    """The protocol with every value resolved. `available`: images of the set that it scores.

    Raises NotScoredError with the reason where it cannot be applied.
    """
    settings = document.settings(protocol)
    needs_own = needs_own_samples(settings)
    if needs_own and not own_samples:
        changed = " and ".join(axis for axis in OF_SAMPLES if getattr(settings, axis) not in (None, "scale"))
        raise NotScoredError(
            f"{changed} is a property of the samples, which must be drawn again: sample the system with it, "
            f"and name the directory by --samples-for {protocol.name}=DIRECTORY"
        )
    extractor = extractor_spec(settings, scale).model_dump_json()
    side = scale.evaluation.resolution
    resize, symmetric = settings.resize, settings.normalisation == "symmetric" and normalises(settings, scale)
    samples = Picture(pixels(settings.samples_resolution, side), "none", "bicubic", settings.samples_format)
    reference = Picture(
        pixels(settings.reference_resolution, side),
        scale.evaluation.crop if settings.reference_crop == "scale" else settings.reference_crop,
        settings.reference_filter,
        settings.reference_format,
    )
    return ProtocolPlan(
        Preprocessing(samples, resize, symmetric, extractor),
        Preprocessing(reference, resize, symmetric, extractor),
        _count(settings.images, available),
        settings.estimator == "infinity",
        protocol.name if needs_own else None,
    )


def needs_own_samples(settings: ProtocolSettings) -> bool:
    """Whether the protocol changes something that needs newly sampled images."""
    return settings.caption_rule != "scale" or settings.sampling_seed is not None


def normalises(settings: ProtocolSettings, scale: Scale) -> bool:
    """Whether the extractor is Inception, which alone is used with two normalisations."""
    chosen = scale.evaluation.extractor if settings.extractor is None else settings.extractor
    return chosen.kind == "inception"


def other_unit(settings: ProtocolSettings, base: ProtocolSettings) -> bool:
    """Whether the distances come from two unlike networks, so that their difference means nothing.

    An extractor that is written out (such as torchvision's Inception) counts as a variant of the base's.
    """
    return settings.extractor != base.extractor and isinstance(settings.extractor, FeaturesOf)


def pixels(value: int | str, side: int) -> int | None:
    """A resolution in pixels at a scale whose own is `side`; None for 'native'."""
    if value == "native":
        return None
    return value if isinstance(value, int) else max(1, side // _HALVES.get(value, 1))


def extractor_spec(settings: ProtocolSettings, scale: Scale) -> ExtractorSpec:
    """The extractor's entry. Raises NotScoredError where the scale has no such network."""
    chosen = settings.extractor
    if chosen is None:
        return scale.evaluation.extractor
    if not isinstance(chosen, FeaturesOf):
        return chosen
    if chosen.network not in scale.networks.features:
        known = ", ".join(sorted(scale.networks.features))
        raise NotScoredError(
            f"scale {scale.name} has no feature network called '{chosen.network}'; it has {known}"
        )
    values = scale.networks.features[chosen.network].model_dump(exclude={"layers"})
    return ExtractorSpec(kind="transformers", **values)


def _count(value: int | str, available: int) -> int:
    count = value if isinstance(value, int) else available // _HALVES.get(value, 1)
    if count > available:
        raise NotScoredError(f"{count} images are asked for, {available} are there")
    if count < 3:
        raise NotScoredError(f"{count} images are too few for an interval")
    return count


def protocols_of(
    plan: ProtocolPlan,
    scale: Scale,
    network: NetworkIdentity,
    source: SourceIdentity,
    prompts: PromptRule | None,
    seed: int | None,
) -> tuple[Protocol, Protocol]:
    """The protocols of FID and of KID of a plan's row."""
    side, samples, reference = scale.evaluation.resolution, plan.samples.picture, plan.reference.picture
    rule = ImageRule(
        resolution=side,
        crop=reference.crop,
        crop_filter=f"Pillow {reference.filter}, antialiased, 8 bit",
        resize_filter=f"{RESIZES[plan.samples.resize]}; CLIP: its own",
        file_format=encoding_text(samples.encoding),
        samples_resolution=None if samples.side == side else samples.side,
        reference_resolution=None if reference.side == side else reference.side or "native",
        reference_format=None if reference.encoding == "png" else encoding_text(reference.encoding),
        normalisation="0..255 to -1..1" if plan.samples.symmetric else None,
    )
    fid = Protocol(
        schema=1,
        metric="fid",
        definition=INFINITY if plan.infinity else METRICS["fid"].definition,
        images=plan.images,
        sampling_seed=seed,
        prompts=prompts,
        image_rule=rule,
        network=network,
        reference=source,
    )
    return fid, fid.model_copy(update={"metric": "kid", "definition": METRICS["kid"].definition})


def changes(document: Protocols, protocol: NamedProtocol, scale: Scale) -> tuple[str, ...]:
    """One text an axis whose value at this scale is not the base's, such as 'resize pytorch'."""
    settings, base = document.settings(protocol), document.settings(document.base)
    values = ((axis, _value(axis, settings, scale)) for axis in ProtocolSettings.model_fields)
    return tuple(
        f"{axis.replace('_', ' ')} {value}" for axis, value in values if value != _value(axis, base, scale)
    )


def published(document: Protocols, protocol: NamedProtocol, scale: Scale, available: int) -> tuple[str, ...]:
    """For a paper's protocol: each axis it states with what is here, then the axes that it does not state."""
    if protocol.published is None:
        return ()
    settings, stated = document.settings(protocol), protocol.published
    lines = []
    for axis in ProtocolSettings.model_fields:
        here, met = _value(axis, settings, scale), "ours / not published"
        if axis in stated.model_fields_set:
            wanted = _value(axis, stated, scale)
            if axis == "images":
                here = str(available if settings.images == "all" else settings.images)
            met = "as published" if wanted == here else f"published {wanted}, NOT MET here"
        lines.append(f"{axis.replace('_', ' ')}: {here} ({met})")
    return tuple(lines)


def _value(axis: str, settings: ProtocolSettings, scale: Scale) -> str:
    value: Any = getattr(settings, axis)
    if axis.endswith("_resolution"):
        side = pixels(value, scale.evaluation.resolution)
        return "native" if side is None else f"{side} px"
    if axis == "reference_crop" and value == "scale":
        return scale.evaluation.crop
    if axis == "normalisation" and not normalises(settings, scale):
        return "extractor"
    if axis == "extractor":
        chosen = scale.evaluation.extractor if value is None else value
        return chosen.network if isinstance(chosen, FeaturesOf) else f"{chosen.kind}, {chosen.path}"
    if axis in OF_SAMPLES and value in ("scale", None):
        coco = next((c for c in scale.sampling.prompts.values() if c.kind == "coco"), None)
        rule = coco.caption_rule if coco else "none"
        drawn = coco.rule_seed if coco and rule == "random" else "none"
        return str({"caption_rule": rule, "rule_seed": drawn, "sampling_seed": scale.sampling.seed}[axis])
    return str(value)
