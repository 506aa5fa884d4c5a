"""Under which protocol did a row's number arise? The whole protocol of each, with the hash that it travels under.

The base's, where it changes nothing, is the protocol under which `eval.score` writes result.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from eval.entries import DEFINITIONS, image_rule
from eval.metrics.protocol import ImageRule, Network, PromptRule, Protocol, Source
from eval.protocols.infinity import POINTS
from eval.protocols.pixels import RESIZES, encoding_text

if TYPE_CHECKING:
    from add.spec_scale import Scale
    from eval.protocols.plan import Plan

INFINITY = (
    f"{DEFINITIONS['fid']}; of {POINTS} random subsets, extrapolated linearly in 1 / n to 0 (FID-infinity)"
)


def protocol_of(
    metric: Literal["fid", "kid"],
    plan: Plan,
    scale: Scale,
    network: Network,
    source: Source,
    prompts: PromptRule | None,
    seed: int | None,
) -> Protocol:
    """The protocol of one metric of a plan's row."""
    definition = INFINITY if metric == "fid" and plan.infinity else DEFINITIONS[metric]
    return Protocol(
        schema=1,
        metric=metric,
        definition=definition,
        images=plan.images,
        sampling_seed=seed,
        prompts=prompts,
        image_rule=_rule(plan, scale),
        network=network,
        reference=source,
    )


def _rule(plan: Plan, scale: Scale) -> ImageRule:
    own = image_rule(scale)
    side = scale.evaluation.resolution
    samples, reference = plan.samples.picture, plan.reference.picture
    names = reference.filter
    return ImageRule(
        resolution=side,
        crop=reference.crop,
        crop_filter=own.crop_filter if names == "bicubic" else f"Pillow {names}, antialiased, 8 bit",
        resize_filter=f"{RESIZES[plan.samples.resize]}; CLIP: its own",
        file_format=encoding_text(samples.encoding),
        samples_resolution=None if samples.side == side else samples.side,
        reference_resolution=None
        if reference.side == side
        else ("native" if reference.side is None else reference.side),
        reference_format=None if reference.encoding == "png" else encoding_text(reference.encoding),
        normalisation="0..255 to -1..1" if plan.samples.symmetric else None,
    )
