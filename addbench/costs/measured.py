"""How long did earlier runs of a scale take? From what training, sampling and Snakemake leave under results/."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any


@dataclass(frozen=True)
class Training:
    """One finished training. spec: the hash of what was trained; setup: seconds before the first step."""

    run: str
    spec: str
    seconds_per_step: float
    setup: float
    device: str


@dataclass(frozen=True)
class Measured:
    """trainings: by run's name, each seed's. samples: seconds an image, by run's name and number of steps.

    jobs: mean seconds of Snakemake's other rules (score, reference, ...), and of training beyond its steps.
    """

    trainings: Mapping[str, tuple[Training, ...]]
    samples: Mapping[tuple[str, int], float]
    jobs: Mapping[str, float]

    @property
    def devices(self) -> tuple[str, ...]:
        """What the trainings ran on."""
        return tuple(sorted({t.device for each in self.trainings.values() for t in each}))


def read_measured(results: Path) -> Measured:
    """What is under results/<scale>; a file that is not as this version writes it is passed over, and costs nothing."""
    trainings: dict[str, list[Training]] = defaultdict(list)
    for file in sorted(results.glob("*/seed*/train/train.json")):
        if (training := _training(file)) is not None:
            trainings[training.run].append(training)
    samples: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for file in sorted(results.glob("*/seed*/samples/*/samples.json")):
        facts = _json(file)
        if {"steps", "seconds", "count"} <= facts.keys() and facts["count"]:
            run = file.parents[3].name
            samples[run, int(facts["steps"])].append((float(facts["seconds"]), int(facts["count"])))
    rates = {key: sum(s for s, _ in each) / sum(n for _, n in each) for key, each in samples.items()}
    return Measured({k: tuple(v) for k, v in trainings.items()}, rates, dict(_jobs(results / "benchmarks")))


def _training(file: Path) -> Training | None:
    facts = _json(file)
    if not {"seconds_per_step", "spec_hash", "device"} <= facts.keys():
        return None
    setup = float(facts.get("setup_seconds", 0.0))
    rate = float(facts["seconds_per_step"])
    return Training(file.parents[2].name, str(facts["spec_hash"]), rate, setup, str(facts["device"]))


def _jobs(benchmarks: Path) -> Iterator[tuple[str, float]]:
    """Mean seconds by rule: the first word of each benchmark's name."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for file in sorted(benchmarks.glob("*.tsv")):
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        try:
            seconds[file.stem.partition("-")[0]] += [float(row["s"]) for row in rows]
        except (KeyError, ValueError):
            continue
    for rule, each in seconds.items():
        if each:
            yield rule, mean(each)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
