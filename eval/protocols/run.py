"""Score one set of images under every protocol of a file: one decode of each image, one row a protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from add.config.scale import ExtractorSpec
from add.config.yaml import nearest
from add.errors import InputError
from eval.images import Images, decode_image, image_folder, read_samples
from eval.metrics.distances import TooFewImagesError
from eval.metrics.features import Extractor, load_extractor
from eval.metrics.measure import ReferenceFeatures, image_distance, image_kernel_distance
from eval.metrics.protocol import PromptRule, SourceIdentity
from eval.prompts import prompt_rule, read_prompts
from eval.protocols.compare import FeatureDistances, Figure, ProtocolComparison, ProtocolRow, difference
from eval.protocols.pixels import features_by_preprocessing
from eval.protocols.plan import (
    NotScoredError,
    ProtocolPlan,
    changes,
    needs_own_samples,
    other_unit,
    plan,
    protocols_of,
    published,
)
from eval.score import check_prompts

if TYPE_CHECKING:
    from add.config.scale import Scale
    from eval.protocols.spec import Protocols, ProtocolSettings


@dataclass(frozen=True)
class Request:
    """What to score, by which of the scale's prompt sets (None: the first of photographs), against what.

    `any_prompts` does not look at what the samples were drawn for. `reference` None: the scale's.
    `own_samples`: a directory for each protocol that needs its own.
    """

    samples: Path
    prompts: str | None = None
    any_prompts: bool = False
    reference: Path | None = None
    own_samples: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class Samples:
    """Images to score. `keys`: what image k was drawn for; two sets with equal keys are compared in pairs.

    `prompts` and `seed` are None for images without a record of them.
    """

    directory: Path
    images: Images
    keys: tuple[str, ...]
    prompts: PromptRule | None = None
    seed: int | None = None


Sets = Mapping[str | None, Samples]
"""Sample sets by the protocol that they were drawn for; the common one under None."""


def score_protocols(document: Protocols, scale: Scale, request: Request) -> ProtocolComparison:
    """All rows. Raises InputError, WeightsError where the input is wrong.

    A protocol that cannot be applied to this input has a row that says why; the base must be applicable.
    """
    prompts = None if request.any_prompts else _prompt_set(scale, request.prompts)
    sets = _sets(document, scale, request, prompts)
    images, source = open_reference(scale, request.reference)
    plans, refused = _plans(document, scale, sets)
    entries = dict.fromkeys(each.samples.extractor for each in plans.values())
    extractors = {
        entry: load_extractor(ExtractorSpec.model_validate_json(entry), request.device) for entry in entries
    }
    results, too_few = _results(plans, sets, images, source, extractors, scale.evaluation.batch)
    refused |= too_few
    base = document.base.name
    if base in refused:
        raise InputError(request.samples, f"the base protocol '{base}' cannot be applied: {refused[base]}")
    rows: list[ProtocolRow] = []
    protocols: dict[str, dict[str, Any]] = {}
    for protocol in document.everything():
        name = protocol.name
        row = ProtocolRow(
            name,
            changes(document, protocol, scale),
            protocol.why.strip(),
            published(document, protocol, scale, len(sets[None].images)),
        )
        if name in refused:
            rows.append(replace(row, not_scored=refused[name]))
            continue
        chosen, found, samples = plans[name], results[plans[name]], sets[plans[name].sample_set]
        network = extractors[chosen.samples.extractor].network
        fid, kid = protocols_of(chosen, scale, network, source, samples.prompts, samples.seed)
        protocols |= {fid.id(): fid.values(), kid.id(): kid.values()}
        strange = other_unit(document.settings(protocol), document.settings(document.base))
        shared = min(chosen.images, plans[base].images)
        paired = samples.keys[:shared] == sets[None].keys[:shared]
        apart = None if name == base or strange else difference(found, results[plans[base]], paired)
        rows.append(
            replace(
                row,
                images=chosen.images,
                fid=Figure.of(found.fid.value, found.fid.error),
                kid=Figure.of(found.kid.value, found.kid.error),
                difference=apart,
                other_unit=strange,
                fid_protocol=fid.id(),
                kid_protocol=kid.id(),
                note=found.fid.note,
            )
        )
    return ProtocolComparison(tuple(rows), protocols, _facts(document, scale, sets, prompts, source))


def open_reference(scale: Scale, directory: Path | None) -> tuple[Images, SourceIdentity]:
    """The real images as they are on disk: the scale's, or all of another folder. Raises InputError."""
    wanted, side, crop = scale.evaluation.reference, scale.evaluation.resolution, scale.evaluation.crop
    name, count = (wanted.images, wanted.count) if directory is None else (directory.as_posix(), None)
    folder = image_folder(Path(name), side, crop, count)
    source = SourceIdentity(file=name, sha256=folder.sha256(), count=len(folder))
    return Images(folder.files, lambda file: np.asarray(decode_image(file))), source


def _sets(document: Protocols, scale: Scale, request: Request, prompts: str | None) -> Sets:
    settings = {p.name: document.settings(p) for p in document.everything()}
    sets: dict[str | None, Samples] = {
        None: _open_set(request.samples, scale, prompts, settings[document.base.name])
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
        sets[name] = _open_set(directory, scale, prompts, settings[name])
    return sets


def _open_set(directory: Path, scale: Scale, prompts: str | None, settings: ProtocolSettings) -> Samples:
    """A sample directory (index.csv), or a folder of images, at the scale's resolution.

    A sample directory's prompts and seed must be those of the scale's set `prompts`, by the caption rule and
    the sampling seed of `settings`; with None they are not looked at, and the protocol says that they are not
    stated. Images of a plain folder are cropped and resized as the scale's photographs are. Raises
    InputError.
    """
    side = scale.evaluation.resolution
    if not (directory / "index.csv").is_file() and not (directory / "samples.json").is_file():
        folder = image_folder(directory, side, scale.evaluation.crop)
        return Samples(directory, folder, tuple(file.name for file in folder.files))
    found = read_samples(directory, side)
    keys = tuple(sample.prompt_id for sample in found.samples)
    if prompts is None:
        return Samples(directory, found, keys)
    config, seed = scale.sampling.prompts[prompts].at(found.steps), scale.sampling.seed
    if settings.caption_rule != "scale":
        if config.kind != "coco":
            reason = f"prompt set '{prompts}' has no captions to choose from by another rule"
            raise InputError(Path(scale.origin.file), reason)
        rule_seed = config.rule_seed if settings.rule_seed is None else settings.rule_seed
        update = {"caption_rule": settings.caption_rule, "rule_seed": rule_seed}
        config = config.model_copy(update=update)
    if settings.sampling_seed is not None:
        seed = settings.sampling_seed
    wanted = read_prompts(config)
    check_prompts(found, prompts, wanted, seed)
    return Samples(directory, found, keys, prompt_rule(config, prompts, len(wanted)), seed)


def _prompt_set(scale: Scale, name: str | None) -> str:
    """The scale's prompt set called `name`; None: the first that describes photographs. Raises InputError."""
    sets, file = scale.sampling.prompts, Path(scale.origin.file)
    first = next((key for key, config in sets.items() if config.kind == "coco"), None)
    chosen = first if name is None else name
    if chosen is None:
        reason = "has no prompt set of kind coco; name the one that the samples were drawn for by --prompts"
        raise InputError(file, reason)
    if chosen not in sets:
        raise InputError(file, f"has no prompt set '{chosen}'{nearest(chosen, sets)}")
    return chosen


def _plans(document: Protocols, scale: Scale, sets: Sets) -> tuple[dict[str, ProtocolPlan], dict[str, str]]:
    """The plan of each protocol, and the names of those that have none with the reason."""
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
    source: SourceIdentity,
    extractors: Mapping[str, Extractor],
    batch: int,
) -> tuple[dict[ProtocolPlan, FeatureDistances], dict[str, str]]:
    """The figures of each plan, and the names of those that have none with the reason."""
    results: dict[ProtocolPlan, FeatureDistances] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="addbench-protocols-") as temporary:
        folder = Path(temporary)
        ways = [each.reference for each in plans.values()]
        real = features_by_preprocessing(images, ways, extractors, batch, folder / "reference")
        references = {way: ReferenceFeatures(source, features) for way, features in real.items()}
        drawn = {}
        for key, samples in sets.items():
            ways = [each.samples for each in plans.values() if each.sample_set == key]
            place = folder / ("samples" if key is None else f"samples of {key}")
            drawn[key] = features_by_preprocessing(samples.images, ways, extractors, batch, place)
        for name, each in plans.items():
            if each in results:  # two names for one measurement
                continue
            features = drawn[each.sample_set][each.samples][: each.images]
            try:
                to = references[each.reference]
                fid = image_distance(features, to, each.infinity)
                results[each] = FeatureDistances(fid, image_kernel_distance(features, to))
            except TooFewImagesError as error:
                refused[name] = str(error)
    return results, refused


def _facts(
    document: Protocols,
    scale: Scale,
    sets: Sets,
    prompts: str | None,
    source: SourceIdentity,
) -> dict[str, Any]:
    note = None
    if prompts is not None and scale.sampling.prompts[prompts].kind != "coco":
        note = (
            f"prompts '{prompts}' describe no photographs: FID and KID say how far the images are from the "
            "reference, not how well they are drawn; result.json has neither for this set"
        )
    return {
        "protocols": document.origin.file,
        "scale": scale.name,
        "notice": scale.notice,
        "samples": {
            name or "": {
                "directory": samples.directory.as_posix(),
                "images": len(samples.images),
                "sha256": samples.images.sha256(),
                "prompts": samples.prompts.name if samples.prompts else None,
            }
            for name, samples in sets.items()
        },
        "reference": source.model_dump(mode="json"),
        "note": note,
    }
