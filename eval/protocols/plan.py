"""A named protocol at one scale: which road each image takes to which extractor, and how many are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.metrics.protocol import canonical_json
from eval.protocols.pixels import Picture
from eval.protocols.spec import OF_SAMPLES, FeaturesOf, NamedProtocol, Protocols, Settings

if TYPE_CHECKING:
    from add.spec_scale import ImageNetwork, Scale
    from eval.protocols.spec import Resize

SCALE = "scale"
"""The key of the scale's own extractor."""

_HALVES = {"half": 2, "quarter": 4}


class NotScoredError(ValueError):
    """A protocol that cannot be applied to what is there; its row says why, and has no numbers."""


@dataclass(frozen=True)
class Road:
    """An image's way into features: `picture`, the library's resize, normalisation, extractor (by key)."""

    picture: Picture
    resize: Resize
    symmetric: bool
    extractor: str


@dataclass(frozen=True)
class Plan:
    """A protocol resolved; two names of equal plans are one measurement.

    `sample_set` names the protocol whose own samples are scored; None: the common ones.
    """

    samples: Road
    reference: Road
    images: int
    infinity: bool
    sample_set: str | None


def plan(
    document: Protocols, protocol: NamedProtocol, scale: Scale, available: int, own_samples: bool
) -> Plan:
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
    extractor = extractor_key(settings, scale)
    side = scale.evaluation.resolution
    resize, symmetric = settings.resize, settings.normalisation == "symmetric" and normalises(settings, scale)
    samples = Picture(pixels(settings.samples_resolution, side), "none", "bicubic", settings.samples_format)
    reference = Picture(
        pixels(settings.reference_resolution, side),
        scale.evaluation.crop if settings.reference_crop == "scale" else settings.reference_crop,
        settings.reference_filter,
        settings.reference_format,
    )
    return Plan(
        Road(samples, resize, symmetric, extractor),
        Road(reference, resize, symmetric, extractor),
        _count(settings.images, available),
        settings.estimator == "infinity",
        protocol.name if needs_own else None,
    )


def needs_own_samples(settings: Settings) -> bool:
    """Whether the protocol changes what only drawing again can change."""
    return settings.caption_rule != "scale" or settings.sampling_seed is not None


def normalises(settings: Settings, scale: Scale) -> bool:
    """Whether the extractor is Inception, which alone is used with two normalisations."""
    chosen = scale.evaluation.extractor if settings.extractor is None else settings.extractor
    return chosen.kind == "inception"


def other_unit(settings: Settings, base: Settings) -> bool:
    """Whether distances are of two unlike networks, so that their difference means nothing.

    An extractor written out (torchvision's Inception, say) is taken for a variant of the base's.
    """
    return settings.extractor != base.extractor and isinstance(settings.extractor, FeaturesOf)


def pixels(value: int | str, side: int) -> int | None:
    """A resolution in pixels at a scale whose own is `side`; None for 'native'."""
    if value == "native":
        return None
    return value if isinstance(value, int) else max(1, side // _HALVES.get(value, 1))


def extractor_spec(settings: Settings, scale: Scale) -> tuple[str, ImageNetwork]:
    """Kind ('inception', 'transformers') and entry of the extractor. Raises NotScoredError."""
    chosen = settings.extractor
    if chosen is None:
        return scale.evaluation.extractor.kind, scale.evaluation.extractor
    if not isinstance(chosen, FeaturesOf):
        return chosen.kind, chosen
    if chosen.network not in scale.networks.features:
        known = ", ".join(sorted(scale.networks.features))
        raise NotScoredError(
            f"scale {scale.name} has no feature network called '{chosen.network}'; it has {known}"
        )
    return "transformers", scale.networks.features[chosen.network]


def extractor_key(settings: Settings, scale: Scale) -> str:
    """What names the extractor among several. Raises NotScoredError."""
    kind, spec = extractor_spec(settings, scale)
    values: dict[str, Any] = {"kind": kind, **spec.model_dump(mode="json", exclude={"layers", "kind"})}
    own = {"kind": scale.evaluation.extractor.kind}
    own |= scale.evaluation.extractor.model_dump(mode="json", exclude={"kind"})
    return SCALE if canonical_json(values) == canonical_json(own) else canonical_json(values)


def _count(value: int | str, available: int) -> int:
    count = value if isinstance(value, int) else available // _HALVES.get(value, 1)
    if count > available:
        raise NotScoredError(f"{count} images are asked for, {available} are there")
    if count < 3:
        raise NotScoredError(f"{count} images are too few for an interval")
    return count
