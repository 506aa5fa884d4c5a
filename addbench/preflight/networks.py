"""Are all networks of a scale there and whole, with the right weights, and do they fit each other and the runs?"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from add.config.system import SystemSpec
from add.config.yaml import Loc
from add.files import write_whole
from add.models.hub import is_commit, is_hub_id, local_directory
from add.models.weights import WeightsError, other_weights, weight_hashes, weight_names
from addbench.preflight import (
    Findings,
    Place,
    Wanted,
    built_here,
    built_later,
    line_of,
    locate,
    size,
    wanted_networks,
)
from addbench.preflight.directories import Pipeline, inception_file, read_encoder, read_pipeline
from eval.metrics.features import INCEPTION_SHA256, INCEPTION_SOURCE


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
    found: Findings,
    scale: Scale,
    table: Table,
    store: HashStore,
    seconds: float,
    systems: Sequence[SystemSpec] = (),
) -> CheckedNetworks:
    """Check all networks, and the pipelines of `systems`; `seconds`: about how long hashing may take in all."""
    networks = CheckedNetworks({}, {})
    hashed: list[tuple[Place, Sequence[str]]] = []
    here: set[str] = set()
    every = list(wanted_networks(scale, systems))
    for wanted in every:
        if built_later(scale, wanted.path):
            found.facts.append(f"{wanted.name}: {wanted.path} will be made by the data stage")
        elif (place := locate(found, wanted, scale)) is not None:
            here.add(wanted.name)
            if wanted.kind == "system":
                _check_pipeline(found, place, wanted.line())
            elif wanted.kind != "part":
                _read(found, place, networks)
            hashed += _countable(place)
    _check_vaes(found, scale, networks)
    _check_resolutions(found, scale, table, networks)
    hashes = check_hashes(found, hashed, store, seconds)
    for wanted in every:
        if not built_here(scale, wanted.path):
            check_pins(found, wanted, hashes.get(wanted.name), wanted.name in here)
    return networks


def _read(found: Findings, place: Place, networks: CheckedNetworks) -> None:
    """Read a network's headers, and enter it where it can be read."""
    wanted = place.wanted
    whole = wanted.kind == "pipeline"
    part = read_pipeline(found, place) if whole else read_encoder(found, place, wanted.line())
    if isinstance(part, Pipeline):
        networks.pipelines[str(wanted.loc[-1])] = part
    if part is not None:
        networks.places[wanted.path] = str(place.path)


def _check_pipeline(found: Findings, place: Place, where: str) -> None:
    """Whether diffusers could load it: any pipeline may be a system."""
    if not (place.path / "model_index.json").is_file():
        what = f"{place.path} has no model_index.json, so it is no diffusers pipeline"
        found.problem(where, what, "name the directory that `save_pretrained` wrote, or its hub id")


def download_missing(scale: Scale, systems: Sequence[SystemSpec] = ()) -> Iterator[str]:
    """Fetch what is not on this machine, and say where each network is now. Raises WeightsError, SpecError."""
    for wanted in wanted_networks(scale, systems):
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
            where = _row(table, run) or line_of(scale, ("training", "resolution"))
            found.problem(where, what, "set another training.resolution")
        if size != measured:
            what = f"{run.name} trains and samples at {size} pixels, evaluation.resolution is {measured}"
            remedy = f"set training.resolution: {measured}, or measure at {size}"
            where = _row(table, run) or line_of(scale, ("evaluation", "resolution"))
            found.problem(where, what, remedy)


def _row(table: Table, run: Run) -> str | None:
    """File and line of the row that sets this run's resolution."""
    cells = (cell for cell in table.cells_of(run.name) if "training.resolution" in cell.overrides)
    return next((f"{cell.file}:{cell.line}" for cell in cells), None)


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


SPEED = 500e6
"""Expected speed of hashing, bytes a second; replaced by the measured speed where that is higher."""


@dataclass(frozen=True)
class Hashed:
    """The hash of all files of a network together, and of each file."""

    whole: str
    each: dict[str, str]


_KNOWN = TypeAdapter(dict[str, Hashed])


class HashStore:
    """Hashes that were taken before, kept in `file`. A file is known by its path, size and time of change."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, Hashed] = {}
        with suppress(OSError, ValidationError):  # the file only saves time
            self.known = _KNOWN.validate_json(file.read_bytes())

    def put(self, key: str, hashed: Hashed) -> None:
        """Keep it, on disk at once: an interrupted check does not hash 20 GB again."""
        self.known[key] = hashed
        write_whole(self.file, _KNOWN.dump_json(self.known, indent=1))


def check_hashes(
    found: Findings,
    places: Sequence[tuple[Place, Sequence[str]]],
    store: HashStore,
    seconds: float,
) -> dict[str, Hashed]:
    """Hold each network's files to its hashes, small ones first, for about `seconds` in all.

    places: each with the relative names of the weight files (none for a single file). Returns the hashes that are
    known now, by the network's name.
    """
    hashes: dict[str, Hashed] = {}
    weighed = [(sum(f.stat().st_size for f in _files(place, names)), place, names) for place, names in places]
    started, speed, done, waiting = time.perf_counter(), SPEED, 0, 0
    for total, place, names in sorted(weighed, key=lambda item: item[0]):
        key = _key(place, names)
        hashed = store.known.get(key)
        if hashed is None:
            spent = time.perf_counter() - started
            speed = max(speed, done / spent) if spent > 1 else speed
            if spent + total / speed > seconds:
                waiting += total
                found.left.append(f"{place.wanted.name}: {size(total)} not hashed yet")
                continue
            hashed = Hashed(*weight_hashes(place.path, place.wanted.files))
            store.put(key, hashed)
            done += total
        hashes[place.wanted.name] = hashed
        _compare(found, place, hashed, place.wanted.line())
    if waiting:
        found.left.append(f"hashes of {size(waiting)} of weights; `addbench check --hash` takes them, once")
    return hashes


def _compare(found: Findings, place: Place, hashed: Hashed, where: str) -> None:
    wanted = place.wanted
    wrong = other_weights(place.path, hashed.whole, hashed.each, wanted.sha256, wanted.files)
    if not wrong:
        pinned = wanted.sha256 is not None or (wanted.files and None not in wanted.files.values())
        said = "as the scale says" if pinned else "recorded at first use"
        line = f"{wanted.name}: {place.path} ({place.source}), sha256 {hashed.whole[:12]}, {said}"
        found.facts.append(line)
    remedy = "restore the weights, or change the scale's hash if the change is meant"
    kind = "other weights than the scale names"
    if wanted.kind == "inception" and wanted.sha256 == INCEPTION_SHA256:
        kind = "not the Inception that FID is defined by"
        remedy = f"every FID would be another number: download {INCEPTION_SOURCE} again"
    for file, now, known in wrong:
        what = f"{wanted.name}: {file} is {kind}: sha256 is {now}, it should be {known}"
        found.problem(where, what, remedy)


def _files(place: Place, names: Sequence[str]) -> list[Path]:
    return [place.path] if place.path.is_file() else [place.path / name for name in names]


def _key(place: Place, names: Sequence[str]) -> str:
    files = zip(_files(place, names), names or [place.path.name], strict=True)
    facts = [
        [str(file.resolve()), name, file.stat().st_size, file.stat().st_mtime_ns] for file, name in files
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def check_pins(found: Findings, wanted: Wanted, hashed: Hashed | None, here: bool) -> None:
    """Warn of every hash that the scale leaves null, with the one to put there where it is known.

    hashed: None where it was not taken. here: whether the network is on this machine.
    """
    for loc, file in unpinned(wanted):
        what = f"{wanted.name}: {f'{file} of ' if file else ''}{wanted.path} is not pinned"
        if hashed is not None:
            remedy = f"put its sha256 here: {hashed.each.get(file, hashed.whole) if file else hashed.whole}"
        elif here:
            remedy = "`addbench check --hash` prints the sha256 to put here"
        else:
            remedy = "once it is on this machine, this check prints the sha256 to put here"
        found.warnings.append(f"{wanted.line(loc)}: {what}; {remedy}")
    if is_hub_id(wanted.path) and not Path(wanted.path).exists() and not is_commit(wanted.revision):
        what = f"{wanted.name}: revision {wanted.revision or 'null'} of {wanted.path} is no commit, so it can move"
        found.warnings.append(
            f"{wanted.line((*wanted.loc, 'revision'))}: {what}; name the commit (40 digits)"
        )


def unpinned(wanted: Wanted) -> list[tuple[Loc, str | None]]:
    """The places in its file that leave a hash null, each with its file; None: all files of the network together."""
    if wanted.kind == "processor" or wanted.sha256 is not None:
        return []
    own = (*wanted.loc, "sha256")
    if not wanted.files:
        return [(own, None)]
    null = [name for name, sha256 in wanted.files.items() if sha256 is None]
    return [(own if wanted.kind == "file" else (*wanted.loc, "files", name), name) for name in null]
