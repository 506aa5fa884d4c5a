"""Score one set of images under every protocol of a file: one decode of each image, one row a protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from add.errors import InputError
from eval.metrics.features import Extractor, load_extractor, load_pooled
from eval.protocols.compare import (
    Figure,
    MeasuredFigures,
    ProtocolComparison,
    ProtocolRow,
    ReferenceFigures,
    TooFewImagesError,
    difference,
    measured,
)
from eval.protocols.pixels import features_by_preprocessing
from eval.protocols.plan import (
    NotScoredError,
    ProtocolPlan,
    changes,
    extractor_key,
    extractor_spec,
    needs_own_samples,
    other_unit,
    plan,
    protocol_of,
    published,
)
from eval.protocols.sources import Images, Samples, open_reference, open_set, prompt_set, prompts_note

if TYPE_CHECKING:
    from add.config.scale import Scale
    from eval.metrics.protocol import SourceIdentity
    from eval.protocols.spec import Protocols

Sets = Mapping[str | None, Samples]
"""Sample sets by the protocol that they were drawn for; the common one under None."""


@dataclass(frozen=True)
class Request:
    """What to score, by which of the scale's prompt sets (None: the first of photographs), against what.

    `any_prompts` does not look at what the samples were drawn for. `reference` None: the scale's.
    `own_samples`: a directory for each protocol that needs its own. `resamples` None: the scale's number.
    """

    samples: Path
    prompts: str | None = None
    any_prompts: bool = False
    reference: Path | None = None
    own_samples: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    resamples: int | None = None


def score_protocols(document: Protocols, scale: Scale, request: Request) -> ProtocolComparison:
    """All rows. Raises InputError, WeightsError where the input is wrong.

    A protocol that cannot be applied to this input has a row that says why; the base must be applicable.
    """
    prompts = None if request.any_prompts else prompt_set(scale, request.prompts)
    sets = _sets(document, scale, request, prompts)
    images, source = open_reference(scale, request.reference)
    plans, refused = _plans(document, scale, sets)
    extractors = _extractors(document, scale, plans, request.device)
    resamples = request.resamples or scale.evaluation.bootstrap
    with tempfile.TemporaryDirectory(prefix="addbench-protocols-") as name:
        results, also = _results(
            plans, sets, images, extractors, scale.evaluation.batch, resamples, Path(name)
        )
    refused |= also
    base = document.base.name
    if base in refused:
        raise InputError(request.samples, f"the base protocol '{base}' cannot be applied: {refused[base]}")
    rows: list[ProtocolRow] = []
    protocols: dict[str, dict[str, Any]] = {}
    for protocol in document.everything():
        words: dict[str, Any] = {
            "name": protocol.name,
            "why": protocol.why.strip(),
            "changes": changes(document, protocol, scale),
            "published": published(document, protocol, scale, len(sets[None].keys)),
        }
        if protocol.name in refused:
            rows.append(ProtocolRow(**words, not_scored=refused[protocol.name]))
            continue
        chosen = plans[protocol.name]
        used = _protocols(chosen, scale, extractors, source, sets[chosen.sample_set])
        found = results[chosen]
        strange = other_unit(document.settings(protocol), document.settings(document.base))
        apart = None if protocol is document.base or strange else difference(found, results[plans[base]])
        figures: dict[str, Any] = {
            "images": chosen.images,
            "fid": Figure.of(found.fid, found.fid_error),
            "kid": Figure.of(found.kid.value, found.kid.error),
            "note": found.note,
            "difference": apart,
            "other_unit": strange,
        }
        fid, kid = used
        rows.append(ProtocolRow(**words, **figures, fid_protocol=fid, kid_protocol=kid))
        protocols |= used
    facts = _facts(document, scale, sets, source, resamples) | {"note": prompts_note(scale, prompts)}
    return ProtocolComparison(tuple(rows), protocols, facts)


def _plans(document: Protocols, scale: Scale, sets: Sets) -> tuple[dict[str, ProtocolPlan], dict[str, str]]:
    plans: dict[str, ProtocolPlan] = {}
    refused: dict[str, str] = {}
    for protocol in document.everything():
        own = sets.get(protocol.name)
        available = len((own or sets[None]).images)
        try:
            plans[protocol.name] = plan(document, protocol, scale, available, own is not None)
        except NotScoredError as error:
            refused[protocol.name] = str(error)
    return plans, refused


def _results(
    plans: Mapping[str, ProtocolPlan],
    sets: Sets,
    images: Images,
    extractors: Mapping[str, Extractor],
    batch: int,
    resamples: int,
    folder: Path,
) -> tuple[dict[ProtocolPlan, MeasuredFigures], dict[str, str]]:
    """The figures of each plan, and the names of those that have none with the reason."""
    preprocessings = [p.reference for p in plans.values()]
    found = features_by_preprocessing(images, preprocessings, extractors, batch, folder / "reference")
    references = {each: ReferenceFigures(features) for each, features in found.items()}
    features = {}
    for key, samples in sets.items():
        preprocessings = [p.samples for p in plans.values() if p.sample_set == key]
        place = folder / ("samples" if key is None else f"samples of {key}")
        features[key] = features_by_preprocessing(samples.images, preprocessings, extractors, batch, place)
    results: dict[ProtocolPlan, MeasuredFigures] = {}
    refused: dict[str, str] = {}
    for name, p in plans.items():
        if p in results:  # two names for one measurement
            continue
        keys = sets[p.sample_set].keys[: p.images]
        taken = features[p.sample_set][p.samples][: p.images]
        try:
            results[p] = measured(taken, keys, references[p.reference], resamples, p.infinity)
        except TooFewImagesError as error:
            refused[name] = str(error)
    return results, refused


def _protocols(
    plan: ProtocolPlan,
    scale: Scale,
    extractors: Mapping[str, Extractor],
    source: SourceIdentity,
    samples: Samples,
) -> dict[str, dict[str, Any]]:
    """FID's and KID's protocols of a plan by id, in this order."""
    network = extractors[plan.samples.extractor].network
    of = (
        protocol_of("fid", plan, scale, network, source, samples.prompts, samples.seed),
        protocol_of("kid", plan, scale, network, source, samples.prompts, samples.seed),
    )
    return {protocol.id(): protocol.values() for protocol in of}


def _sets(document: Protocols, scale: Scale, request: Request, prompts: str | None) -> Sets:
    settings = {p.name: document.settings(p) for p in document.everything()}
    sets: dict[str | None, Samples] = {
        None: open_set(request.samples, scale, prompts, settings[document.base.name])
    }
    takers = [name for name, its in settings.items() if needs_own_samples(its)]
    for name, directory in request.own_samples.items():
        if name not in takers:
            known = ", ".join(takers) or "none"
            reason = f"is given for '{name}', which takes no samples of its own; those that do: {known}"
            raise InputError(directory, reason)
        if prompts is None or not (directory / "index.csv").is_file():
            reason = f"has no record of its prompts that could be held against what '{name}' asks for"
            raise InputError(directory, reason)
        sets[name] = open_set(directory, scale, prompts, settings[name])
    return sets


def _extractors(
    document: Protocols, scale: Scale, plans: Mapping[str, ProtocolPlan], device: str
) -> dict[str, Extractor]:
    found: dict[str, Extractor] = {}
    for protocol in document.everything():
        settings = document.settings(protocol)
        if protocol.name in plans and extractor_key(settings, scale) not in found:
            _, spec = extractor_spec(settings, scale)
            load: Any = load_extractor if hasattr(spec, "kind") else load_pooled
            found[extractor_key(settings, scale)] = load(spec, device)
    return found


def _facts(
    document: Protocols, scale: Scale, sets: Sets, source: SourceIdentity, resamples: int
) -> dict[str, Any]:
    return {
        "protocols": document.origin.file,
        "scale": scale.name,
        "notice": scale.notice,
        "samples": {
            name or "": {
                "directory": samples.directory.as_posix(),
                "images": len(samples.images),
                "sha256": samples.sha256,
                "prompts": samples.prompts.name if samples.prompts else None,
            }
            for name, samples in sets.items()
        },
        "reference": source.model_dump(mode="json"),
        "resamples": resamples,
    }
