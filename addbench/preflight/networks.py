"""Are all networks of a scale there, whole, of the right weights, and do they fit together and the runs?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from add.models.weights import WeightsError, local_directory, weight_names
from addbench.preflight import Findings, PreflightProblem, fact, together
from addbench.preflight.directories import Pipeline, PipelinePart, inception_file, read_encoder, read_pipeline
from addbench.preflight.hashes import HashStore, check_hashes, check_pins
from addbench.preflight.places import (
    Place,
    Wanted,
    built_here,
    built_later,
    line_of,
    locate,
    wanted_networks,
)


@dataclass(frozen=True)
class CheckedNetworks:
    """The networks that can be read, by their names in the scale: what the other checks compute with.

    places: of each address (`path`) that can be read, the directory in which it was found.
    """

    pipelines: Mapping[str, Pipeline]
    features: Mapping[str, PipelinePart]
    others: Mapping[str, PipelinePart]
    places: Mapping[str, str]

    def resolution(self, run: Run) -> int | None:
        """Pixels that a run's student makes; None where its pipeline cannot be read."""
        pipeline = self.pipelines.get(run.variant.student)
        return run.training.resolution or (pipeline.native_resolution if pipeline else None)


def check_networks(
    scale: Scale, table: Table, store: HashStore, seconds: float
) -> tuple[Findings, CheckedNetworks]:
    """Everything about networks; `seconds`: about how long hashing may take in all."""
    found: list[Findings] = []
    pipelines: dict[str, Pipeline] = {}
    features: dict[str, PipelinePart] = {}
    others: dict[str, PipelinePart] = {}
    hashed: list[tuple[Place, Sequence[str]]] = []
    places: dict[str, str] = {}
    here: set[str] = set()
    for wanted in wanted_networks(scale):
        if built_later(scale, wanted.path):
            found.append(fact(f"{wanted.name}: {wanted.path} will be made by the data stage"))
            continue
        place = locate(wanted, scale)
        if isinstance(place, Findings):
            found.append(place)
            continue
        here.add(wanted.name)
        if wanted.kind == "pipeline":
            pipeline, problems = read_pipeline(place)
            if pipeline is not None:
                pipelines[str(wanted.loc[-1])] = pipeline
                places[wanted.path] = str(place.path)
        else:
            part, problems = read_encoder(place, line_of(scale, wanted.loc))
            if part is not None:
                (features if wanted.kind == "features" else others)[str(wanted.loc[-1])] = part
                places[wanted.path] = str(place.path)
        found.append(Findings(problems=tuple(problems)))
        hashed += _countable(place)
    networks = CheckedNetworks(pipelines, features, others, places)
    found.append(Findings(problems=tuple(_fit(scale, table, networks))))
    where = partial(line_of, scale)
    of_hashes, hashes = check_hashes(hashed, store, seconds, where)
    pins = [
        check_pins(wanted, hashes.get(wanted.name), wanted.name in here, where)
        for wanted in wanted_networks(scale)
        if not built_here(scale, wanted.path)
    ]
    return together([*found, of_hashes, *pins]), networks


def download_missing(scale: Scale) -> Iterator[str]:
    """Fetch what is not on this machine, and say of each network where it is now. Raises WeightsError, SpecError."""
    for wanted in wanted_networks(scale):
        if not built_later(scale, wanted.path) and isinstance(locate(wanted, scale), Findings):
            yield f"{wanted.name}: {local_directory(wanted.path, wanted.revision, wanted.files)}"


def _countable(place: Place) -> list[tuple[Place, Sequence[str]]]:
    """What is hashed of a place: nothing where it has no weights to speak of, which was said already."""
    wanted: Wanted = place.wanted
    if wanted.kind == "processor":
        return []
    if wanted.kind == "inception":
        file = inception_file(place.path)
        return [(Place(wanted, file, place.source), ())] if file.is_file() else []
    if place.path.is_file():
        return [(place, ())]
    try:
        return [(place, weight_names(place.path, wanted.files))]
    except WeightsError:
        return []


def _fit(scale: Scale, table: Table, networks: CheckedNetworks) -> Iterator[PreflightProblem]:
    """What does not fit between networks, or between a network and the runs."""
    yield from _one_vae(scale, networks)
    measured = scale.evaluation.resolution
    where = line_of(scale, ("evaluation", "resolution"))
    for name in dict.fromkeys(run.variant.student for run in table.runs.values()):
        pipeline = networks.pipelines.get(name)
        if pipeline is None:
            continue
        for run in (run for run in table.runs.values() if run.variant.student == name):
            resolution = networks.resolution(run)
            if resolution is None:
                continue
            if resolution % pipeline.factor:
                what = (
                    f"{run.name}: {resolution} pixels are no multiple of the factor {pipeline.factor} "
                    f"of {name}'s VAE"
                )
                yield PreflightProblem(line_of(scale, ("training",)), what, "set another training.resolution")
            if resolution != measured:
                what = f"{run.name} trains and samples at {resolution} pixels, evaluation.resolution is {measured}"
                remedy = f"set training.resolution: {measured}, or measure at {resolution}"
                yield PreflightProblem(where, what, remedy)


def _one_vae(scale: Scale, networks: CheckedNetworks) -> Iterator[PreflightProblem]:
    """Networks of one `latents` name must have one VAE: a distance of latents of two means nothing."""
    for first, second in combinations(networks.pipelines, 2):
        name = scale.networks.diffusion[first].latents
        if name is None or name != scale.networks.diffusion[second].latents:
            continue
        ours, theirs = (networks.pipelines[n] for n in (first, second))
        if _vae(ours) == _vae(theirs):
            continue
        where = line_of(scale, ("networks", "diffusion", second, "latents"))
        what = f"{first} and {second} both have latents '{name}', but their VAEs are different ones"
        remedy = (
            "the latents of another VAE mean other pictures: give them different names, and compare pixels"
        )
        yield PreflightProblem(where, what, remedy)


def _vae(pipeline: Pipeline) -> tuple[object, ...]:
    """What decides a VAE's latents: their scaling and the encoder's weights. Decoders may differ."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    for name in pipeline.vae.files:
        with safe_open(pipeline.place.path / name, framework="np") as opened:
            for key in sorted(opened.keys()):
                if key.startswith(("encoder.", "quant_conv.")):
                    digest.update(key.encode() + opened.get_tensor(key).tobytes())
    keys = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "block_out_channels")
    return (*(str(pipeline.vae.config.get(key)) for key in keys), digest.hexdigest())
