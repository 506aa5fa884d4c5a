"""Are all networks of a scale there and whole, with the right weights, and do they fit each other and the runs?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from add.models.hub import local_directory
from add.models.weights import WeightsError, weight_names
from addbench.preflight import Findings, Place, built_here, built_later, line_of, locate, wanted_networks
from addbench.preflight.directories import Pipeline, PipelinePart, inception_file, read_encoder, read_pipeline
from addbench.preflight.hashes import HashStore, check_hashes, check_pins


@dataclass(frozen=True)
class CheckedNetworks:
    """The networks that can be read: what the other checks compute with.

    pipelines: by name in the scale. places: by address (`path`), the directory in which the network was found.
    """

    pipelines: dict[str, Pipeline]
    places: dict[str, str]

    def resolution(self, run: Run) -> int | None:
        """Pixels that a run's student makes; None where its pipeline cannot be read."""
        pipeline = self.pipelines.get(run.variant.student)
        return run.training.resolution or (pipeline.native_resolution if pipeline else None)


def check_networks(
    found: Findings, scale: Scale, table: Table, store: HashStore, seconds: float
) -> CheckedNetworks:
    """Check all networks; `seconds`: about how long hashing may take in all."""
    networks = CheckedNetworks({}, {})
    hashed: list[tuple[Place, Sequence[str]]] = []
    here: set[str] = set()
    for wanted in wanted_networks(scale):
        if built_later(scale, wanted.path):
            found.facts.append(f"{wanted.name}: {wanted.path} will be made by the data stage")
        elif (place := locate(found, wanted, scale)) is not None:
            here.add(wanted.name)
            if wanted.kind == "pipeline":
                part: Pipeline | PipelinePart | None = read_pipeline(found, place)
            else:
                part = read_encoder(found, place, line_of(scale, wanted.loc))
            if isinstance(part, Pipeline):
                networks.pipelines[str(wanted.loc[-1])] = part
            if part is not None:
                networks.places[wanted.path] = str(place.path)
            hashed += _countable(place)
    _check_vaes(found, scale, networks)
    _check_resolutions(found, scale, table, networks)
    where = partial(line_of, scale)
    hashes = check_hashes(found, hashed, store, seconds, where)
    for wanted in wanted_networks(scale):
        if not built_here(scale, wanted.path):
            check_pins(found, wanted, hashes.get(wanted.name), wanted.name in here, where)
    return networks


def download_missing(scale: Scale) -> Iterator[str]:
    """Fetch what is not on this machine, and say where each network is now. Raises WeightsError, SpecError."""
    for wanted in wanted_networks(scale):
        if not built_later(scale, wanted.path) and locate(Findings(), wanted, scale) is None:
            yield f"{wanted.name}: {local_directory(wanted.path, wanted.revision, wanted.files)}"


def _countable(place: Place) -> list[tuple[Place, Sequence[str]]]:
    """What is hashed of a place: nothing where it has no weights, which is said elsewhere."""
    wanted = place.wanted
    if wanted.kind == "inception":
        place = Place(wanted, inception_file(place.path), place.source)
    elif wanted.kind == "processor":
        return []
    if place.path.is_file():
        return [(place, ())]
    try:
        return [(place, weight_names(place.path, wanted.files))]
    except WeightsError:
        return []


def _check_resolutions(found: Findings, scale: Scale, table: Table, networks: CheckedNetworks) -> None:
    """Whether each run's resolution fits its student's VAE and the evaluation."""
    measured = scale.evaluation.resolution
    for run in table.runs.values():
        name, size = run.variant.student, networks.resolution(run)
        pipeline = networks.pipelines.get(name)
        if pipeline is None or size is None:
            continue
        if size % pipeline.factor:
            what = (
                f"{run.name}: {size} pixels are no multiple of the factor {pipeline.factor} of {name}'s VAE"
            )
            found.problem(line_of(scale, ("training",)), what, "set another training.resolution")
        if size != measured:
            what = f"{run.name} trains and samples at {size} pixels, evaluation.resolution is {measured}"
            remedy = f"set training.resolution: {measured}, or measure at {size}"
            found.problem(line_of(scale, ("evaluation", "resolution")), what, remedy)


def _check_vaes(found: Findings, scale: Scale, networks: CheckedNetworks) -> None:
    """Networks of one `latents` name must have one VAE: a distance between latents of two VAEs means nothing."""
    for (first, one), (second, other) in combinations(networks.pipelines.items(), 2):
        name = scale.networks.diffusion[first].latents
        same = name is not None and name == scale.networks.diffusion[second].latents
        if same and _vae(one) != _vae(other):
            what = f"{first} and {second} both have latents '{name}', but their VAEs differ"
            remedy = "the latents of another VAE mean other pictures: give them different names, and compare pixels"
            found.problem(line_of(scale, ("networks", "diffusion", second, "latents")), what, remedy)


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
