"""The results of a study that grows, as data: one small JSON a run, and the protocols that they share.

    replication/mini/protocols.json                       every protocol, by hash
    replication/mini/baseline/seed100-<processor>.json    one run: result.json without what the report of a study
    needs not

A run is known by its name, training seed and processor, and is there once. What is added must be of the present
table: of the same spec, method, weights, data and protocol, and whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import Scale
from add.errors import InputError
from add.files import write_whole
from add.identity import METHOD, spec_hash
from eval.findings.page import processor_of
from eval.result import Result, read_json, read_result, validated

PROTOCOLS = "protocols.json"
VERSIONS = ("python", "torch", "diffusers", "transformers", "numpy", "scipy")
HARDWARE = ("machine", "processor", "device", "accelerator", "threads")
TRAIN = ("method", "spec_hash", "steps", "images", "wall_seconds", "torch", "weights", "data", "diagnosis")


@dataclass(frozen=True)
class Key:
    """What makes a run one run."""

    run: str
    seed: int
    processor: str

    @classmethod
    def of(cls, result: Result) -> Key:
        """Of one result."""
        return cls(result.run, result.seed, processor_of(result))

    def file(self, store: Path) -> Path:
        """Where the store keeps it; two processors whose names read alike keep apart by a digest."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.processor.lower()).strip("-")
        mark = hashlib.sha256(self.processor.encode()).hexdigest()[:6]
        return store / self.run / f"seed{self.seed}-{slug[:40].strip('-')}-{mark}.json"

    def __str__(self) -> str:
        return f"{self.run}, seed {self.seed}, on {self.processor}"


@dataclass(frozen=True)
class ReplicationStore:
    """The runs that are there, by key, and the protocols of their numbers, by hash."""

    folder: Path
    runs: Mapping[Key, Result]
    protocols: Mapping[str, dict[str, Any]]

    def results(self, spec_hashes: Mapping[str, str]) -> dict[str, tuple[Result, ...]]:
        """The results of each run, by seed and processor; those of another spec or method are left out."""
        found: dict[str, list[Result]] = {name: [] for name in spec_hashes}
        for key, result in sorted(self.runs.items(), key=lambda each: (each[0].seed, each[0].processor)):
            method = result.provenance.train.get("method")
            if result.spec_hash == spec_hashes.get(key.run) and method == METHOD:
                found[key.run].append(result)
        return {name: tuple(results) for name, results in found.items()}


def read_store(folder: Path) -> ReplicationStore:
    """What is in a store; nothing where there is none. Raises InputError with the file that is broken or misplaced."""
    file = folder / PROTOCOLS
    protocols = read_json(file) if file.exists() else {}
    runs: dict[Key, Result] = {}
    for path in sorted(folder.glob("*/seed*.json")):
        values = read_json(path)
        if not isinstance(values, dict):
            raise InputError(path, "is no record of a run")
        used = _used(values)
        if missing := sorted(used - set(protocols)):
            raise InputError(path, f"stands under protocol {missing[0]}, which {file} does not describe")
        values |= {"protocols": {name: protocols[name] for name in sorted(used)}}
        result = validated(
            Result, path, values, "a run's record", "take it out, and add its result.json again"
        )
        if (key := Key.of(result)).file(folder) != path:
            raise InputError(path, f"holds {key}, whose place is {key.file(folder)}")
        runs[key] = result
    return ReplicationStore(folder, runs, protocols)


def add_results(
    paths: Sequence[Path], store: ReplicationStore, scale: Scale, table: Table
) -> tuple[list[Key], list[str]]:
    """Take results into a store: the keys added, and why each other one was refused, by file.

    paths: result.json files.
    """
    added: dict[Key, Result] = {}
    refused: list[str] = []
    for path in paths:
        try:
            result = read_result(path)
            known = {**store.runs, **added}
            for reason in problems(result, known, scale, table):
                raise InputError(path, reason)
            added[Key.of(result)] = result
        except InputError as error:
            refused.append(str(error))
    protocols = dict(store.protocols)
    for result in added.values():
        protocols |= result.protocols
    if added:
        write_whole(store.folder / PROTOCOLS, _json(protocols))
    for key, result in added.items():
        file = key.file(store.folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, _json(record(result)))
    return list(added), refused


def record(result: Result) -> dict[str, Any]:
    """One run as the store keeps it."""
    values = result.values()
    kept = values["provenance"]
    train = kept.get("train", {})
    values["provenance"] = {
        "versions": {name: v for name, v in kept.get("versions", {}).items() if name in VERSIONS},
        "hardware": {name: v for name, v in kept.get("hardware", {}).items() if name in HARDWARE},
        "commit": kept.get("commit"),
        "weights": kept.get("weights", {}),
        "train": {name: train[name] for name in TRAIN if name in train},
        "sample_sha256": kept.get("sample_sha256", {}),
    }
    del values["protocols"]
    return values


def problems(result: Result, known: Mapping[Key, Result], scale: Scale, table: Table) -> Iterator[str]:
    """Why a result cannot stand beside the others, each in a sentence."""
    if result.scale != scale.name:
        yield f"is of scale '{result.scale}', the study is of '{scale.name}'"
        return
    if result.run not in table.runs:
        yield f"is of the run '{result.run}', which the table does not have"
        return
    if reason := _other_run(result, table.runs[result.run]):
        yield reason
    yield from _incomplete(result, scale)
    for other in known.values():
        yield from _other_measure(result, other)
    if (key := Key.of(result)) in known:
        same = record(result) == record(known[key])
        yield f"{key}: is there already, {'the same numbers' if same else 'with other numbers'}; a run counts once"


def _other_run(result: Result, run: Run) -> str | None:
    """Why a result is not of this run as it is now; None where it is."""
    train = result.provenance.train
    stated = train.get("weights", {})
    networks = {**run.networks.diffusion, **run.networks.features}
    if run.networks.c_text is not None:
        networks["c_text"] = run.networks.c_text
    if run.networks.c_img is not None:
        networks["c_img"] = run.networks.c_img
    for name, network in networks.items():
        if network.sha256 is not None and name in stated and stated[name] != network.sha256:
            return f"was trained from other weights: {name} is {stated[name][:12]}, here it is {network.sha256[:12]}"
    if train.get("method") != METHOD:
        return f"was trained by version {train.get('method')} of the method, here it is {METHOD}"
    if result.spec_hash != (wanted := spec_hash(run)):
        return f"is of another spec of {result.run}: {result.spec_hash}, here it is {wanted}"
    return None


def _incomplete(result: Result, scale: Scale) -> Iterator[str]:
    there = {(system.prompts, system.steps): system for system in result.systems}
    for name, prompts in scale.sampling.prompts.items():
        for steps in scale.sampling.steps:
            system = there.get((name, steps))
            if system is None:
                yield f"has no samples of '{name}' at {steps} step(s)"
            elif system.images != (count := getattr(prompts, "present", None) or prompts.at(steps).count):
                yield f"measured {system.images} images of '{name}' at {steps} step(s), the scale asks for {count}"
            elif f"{name}-{steps}step" not in result.provenance.sample_sha256:
                yield f"does not say which images of '{name}' at {steps} step(s) were measured"


def _other_measure(result: Result, other: Result) -> Iterator[str]:
    """How a result was measured, or its training data, otherwise than another's."""
    theirs = {(s.prompts, s.steps, name): m for s in other.systems for name, m in s.metrics.items()}
    ours = {(s.prompts, s.steps, name): m for s in result.systems for name, m in s.metrics.items()}
    for prompts, steps, name in sorted(set(theirs) - set(ours)):
        yield f"has no {name} of '{prompts}' at {steps} step(s)"
    for place, metric in ours.items():
        if place in theirs and metric.protocol != theirs[place].protocol:
            prompts, steps, name = place
            yield (
                f"was measured under another protocol: {name} of '{prompts}' at {steps} step(s) stands under "
                f"{metric.protocol}, the study's under {theirs[place].protocol}"
            )
            return
    data, known = (each.provenance.train.get("data") for each in (result, other))
    if data != known:
        yield f"was trained on other data: {str(data)[:12]}, the study's are {str(known)[:12]}"


def _used(values: dict[str, Any]) -> set[str]:
    return {
        metric.get("protocol", "")
        for system in values.get("systems", [])
        for metric in system.get("metrics", {}).values()
    }


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
