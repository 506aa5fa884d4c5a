"""The results of a study that grows, as data: one small JSON a run, and the protocols that they share.

    replication/mini/protocols.json                       every protocol, by hash
    replication/mini/baseline/seed100-<processor>.json    one run: result.json without what the report of a study
    needs not

A run is known by its name, training seed and processor, and is there once. What is added must be of the present
table (`eval.findings.present`) and measured and trained as those records are that still count. One that counts no
longer stays until the same run is added again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.errors import InputError
from add.files import write_whole
from eval.findings.measured import processor_of
from eval.findings.plan import FIRST_SEED
from eval.findings.present import Kind, PresentStudy, mismatches
from eval.findings.verdicts import transformed
from eval.metrics.protocol import protocol_id
from eval.result import MeasuredImages, Result, ResultSystem, read_json, read_result, validated

PROTOCOLS = "protocols.json"
VERSIONS = ("python", "torch", "diffusers", "transformers", "numpy", "scipy")
HARDWARE = ("machine", "processor", "family", "model", "stepping", "simd", "device", "accelerator", "threads")
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

    def counted(self, study: PresentStudy) -> CountedRuns:
        """The runs that are of the present table, and why the others are not.

        Raises InputError where two of them were measured, or trained on data, that a scale's values cannot tell apart.
        """
        found: dict[str, list[Result]] = {name: [] for name in study.specs}
        left_out: Counter[Kind] = Counter()
        first: Key | None = None
        for key, result in sorted(self.runs.items(), key=lambda each: (each[0].seed, each[0].processor)):
            if (reason := next(mismatches(result, study), None)) is not None:
                left_out[reason.kind] += 1
                continue
            first = first or key
            for message in _other_measure(result, self.runs[first]):
                other = first.file(self.folder)
                raise InputError(key.file(self.folder), f"{message} ({other}); take the older kind out")
            found[key.run].append(result)
        return CountedRuns({name: tuple(results) for name, results in found.items()}, dict(left_out))


@dataclass(frozen=True)
class CountedRuns:
    """What a store holds of the present table: each run's results by seed and processor.

    left_out: how many records do not count, by what they are of another one of.
    """

    results: Mapping[str, tuple[Result, ...]]
    left_out: Mapping[Kind, int]

    @property
    def there(self) -> dict[str, tuple[Result, ...]]:
        """The results of the runs that have some."""
        return {run: found for run, found in self.results.items() if found}

    @property
    def left_out_text(self) -> str:
        """A sentence on the records that do not count; empty where all do."""
        older = {kind: number for kind, number in self.left_out.items() if kind != "run"}
        parts = [f"{number} {_WORDS[kind]}" for kind, number in older.items()]
        said = (
            [f"{sum(older.values())} older record(s) in the store do not count: {', '.join(parts)}."]
            if older
            else []
        )
        if others := self.left_out.get("run"):
            said.append(f"{others} record(s) in the store are of runs that this table does not have.")
        return " ".join(said)


_WORDS: Mapping[Kind, str] = {
    "scale": "of another scale",
    "weights": "trained from other weights",
    "method": "trained by another version of the method",
    "spec": "of another spec",
    "images": "of other numbers of images",
    "protocol": "measured under another protocol",
}


def read_store(folder: Path) -> ReplicationStore:
    """What is in a store; nothing where there is none. Raises InputError with the file that is broken or misplaced."""
    file = folder / PROTOCOLS
    protocols = read_json(file) if file.exists() else {}
    if altered := _altered(protocols):
        raise InputError(file, f"what stands under {altered} has another id; restore the file")
    runs: dict[Key, Result] = {}
    for path in sorted(folder.glob("*/seed*.json")):
        values = read_json(path)
        if not isinstance(values, dict):
            raise InputError(path, "is no record of a run")
        result = validated(
            Result,
            path,
            values | {"protocols": protocols},
            "a run's record",
            "take it out, and add its result.json again",
        )
        used = _used(result)
        if missing := sorted(used - set(protocols)):
            raise InputError(path, f"stands under protocol {missing[0]}, which {file} does not describe")
        result = result.model_copy(update={"protocols": {name: protocols[name] for name in sorted(used)}})
        if (key := Key.of(result)).file(folder) != path:
            raise InputError(path, f"holds {key}, whose place is {key.file(folder)}")
        runs[key] = result
    return ReplicationStore(folder, runs, protocols)


def add_results(
    paths: Sequence[Path], store: ReplicationStore, study: PresentStudy
) -> tuple[list[Key], list[str]]:
    """Take results into a store: the keys added, and why each other one was refused, by file.

    paths: result.json files. A record of the same run that no longer counts is replaced.
    """
    added: dict[Key, Result] = {}
    refused: list[str] = []
    counted = {Key.of(r): r for found in store.counted(study).results.values() for r in found}
    for path in paths:
        try:
            result = read_result(path)
            if altered := _altered(result.protocols):
                raise InputError(
                    path, f"what stands under protocol {altered} has another id: score the run again"
                )
            for reason in problems(result, {**counted, **added}, study):
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


def holds(store: ReplicationStore, result: Result) -> bool:
    """Whether a store has this result, with these numbers."""
    known = store.runs.get(Key.of(result))
    return known is not None and record(known) == record(result)


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
        "sample_seconds": kept.get("sample_seconds"),
        "score_seconds": kept.get("score_seconds"),
    }
    del values["protocols"]
    return values


def problems(result: Result, known: Mapping[Key, Result], study: PresentStudy) -> Iterator[str]:
    """Why a result cannot stand beside the `known`, which count, each reason in a sentence."""
    for mismatch in mismatches(result, study):
        yield mismatch.message
    if result.seed < FIRST_SEED:
        yield f"has training seed {result.seed}: smaller ones than {FIRST_SEED} are of tables and calibrations"
    for system in result.systems:
        for part in _parts(system):
            for name, metric in part.metrics.items():
                try:
                    transformed(name, metric.value)
                except ValueError as error:
                    yield f"{error} ('{system.prompts}' at {system.steps} step(s))"
    for other in list(known.values())[:1]:  # they are of one kind
        yield from _other_measure(result, other)
    if (key := Key.of(result)) in known:
        same = record(result) == record(known[key])
        yield f"{key}: is there already, {'the same numbers' if same else 'with other numbers'}; a run counts once"
    elif same_images := [
        str(other)
        for other, there in known.items()
        if other.run == key.run and there.provenance.sample_sha256 == result.provenance.sample_sha256
    ]:
        yield f"{key}: its images are those of {same_images[0]}, byte by byte; a run counts once"


def _other_measure(result: Result, other: Result) -> Iterator[str]:
    """How a result was measured, or its training data, otherwise than another's."""
    theirs, ours = _protocols_by_place(other), _protocols_by_place(result)
    for prompts, steps, name, _ in sorted(set(theirs) - set(ours)):
        yield f"has no {name} of '{prompts}' at {steps} step(s)"
    for place, protocol in ours.items():
        if place in theirs and protocol != theirs[place]:
            prompts, steps, name, _ = place
            yield (
                f"was measured under another protocol: {name} of '{prompts}' at {steps} step(s) stands under "
                f"{protocol}, the study's under {theirs[place]}"
            )
            return
    data, known = (each.provenance.train.get("data") for each in (result, other))
    if data != known:
        yield f"was trained on other data: {str(data)[:12]}, the study's are {str(known)[:12]}"


def _protocols_by_place(result: Result) -> dict[tuple[str, int, str, bool], str]:
    """The protocol of each figure, by prompt set, steps, metric, and whether it is of the first images alone."""
    return {
        (system.prompts, system.steps, name, part is not system): metric.protocol
        for system in result.systems
        for part in _parts(system)
        for name, metric in part.metrics.items()
    }


def _parts(system: ResultSystem) -> tuple[MeasuredImages, ...]:
    return (system,) if system.first is None else (system, system.first)


def _used(result: Result) -> set[str]:
    return {
        metric.protocol
        for system in result.systems
        for part in _parts(system)
        for metric in part.metrics.values()
    }


def _altered(protocols: Any) -> str | None:
    """The first id whose protocol has another one, since somebody changed it; None where all are as they were."""
    if not isinstance(protocols, dict):
        return "the document"
    wrong = (
        name
        for name, values in protocols.items()
        if not isinstance(values, dict) or protocol_id(values) != name
    )
    return next(wrong, None)


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
