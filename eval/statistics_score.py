"""Score a system of which there are mean and covariance alone: `python -m eval.statistics_score --statistics FILE ...`.

The .npz holds `mu` and `sigma` of FID's features of its images (`eval.metrics.statistics_file`). There is FID of them,
and nothing else; an interval would need the images. How many images they are of, and for which prompts, says whoever
hands them in. The extractor and the image rule of a file that this project wrote are checked; those of another file
cannot be, which its protocol says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from add.config.scale import CocoPromptsSpec, PromptsSpec
from add.device import add_device_option, open_device
from add.errors import InputError, at_least, refuses
from add.files import write_json
from add.lock import only_writer
from eval.metrics.catalogue import METRICS
from eval.metrics.distances import frechet_distance
from eval.metrics.features import ImageBatch, load_extractor
from eval.metrics.measure import image_rule, rank_note
from eval.metrics.protocol import Protocol
from eval.metrics.statistics_file import read_statistics
from eval.prompts import prompt_rule, read_prompts
from eval.reference import load_reference, reference_settings
from eval.result import Metric, ResultSystem, SystemResult, provenance, seconds_since
from eval.score import SystemFacts
from eval.stage import MeasureValues, add_scale_option, read_option

UNCHECKED = "; of mu and sigma from elsewhere, whose extractor and resizing nothing states"
"""Ends the definition of an FID of such a file: it shares no protocol with what was measured here."""
NOTE = "of handed-in mean and covariance: there is no interval, and nothing but FID"


@dataclass(frozen=True)
class GivenStatistics:
    """A .npz, and what its owner says of it: made for prompt set `prompts` by `steps` steps, of `count` images."""

    file: Path
    prompts: str
    steps: int
    count: int

    def prompt_set(self, sets: Mapping[str, PromptsSpec]) -> CocoPromptsSpec:
        """Its prompts among the scale's `sets`. Raises InputError for a set without photographs."""
        rule = sets.get(self.prompts)
        if rule is None or rule.kind != "coco":
            raise InputError(self.file, f"FID needs a prompt set of kind coco, which {self.prompts!r} is not")
        return rule

    def refuse_other_count(self, prompts: CocoPromptsSpec) -> None:
        """Raise InputError where the set has another number of prompts than this has images."""
        if (images := len(read_prompts(prompts.at(self.steps)))) != self.count:
            measured = f"of '{self.prompts}' by {self.steps} step(s) {images} are measured"
            reason = f"is of {self.count} images, and {measured}; FID depends on how many"
            raise InputError(self.file, reason)


def score_statistics(
    given: GivenStatistics,
    facts: SystemFacts,
    values: MeasureValues,
    reference_path: Path,
    device: str = "cpu",
) -> SystemResult:
    """The result with FID alone.

    Raises InputError for a prompt set without photographs or with another number of prompts, and as `read_statistics`
    and `load_reference` do.
    """
    started, name, images = time.perf_counter(), given.prompts, given.count
    prompts = given.prompt_set(values.prompts)
    given.refuse_other_count(prompts)
    extractor, side = load_extractor(values.evaluation.extractor, device), values.evaluation.resolution
    reference = load_reference(reference_path, values.evaluation, extractor)
    dimensions = extractor(ImageBatch(np.zeros((1, side, side, 3), np.uint8))).shape[1]
    settings = reference_settings(values.evaluation, extractor)
    read = read_statistics(
        given.file, dimensions, {key: settings[key] for key in ("extractor", "image_rule")}
    )
    protocol = Protocol(
        schema=1,
        metric="fid",
        definition=METRICS["fid"].definition + ("" if read.checked else UNCHECKED),
        images=images,
        sampling_seed=values.seed,
        prompts=prompt_rule(prompts, name, images),
        image_rule=image_rule(values.evaluation),
        network=extractor.network,
        reference=reference.source,
    )
    notes = (rank_note(images, len(reference.features), dimensions), NOTE)
    fid = Metric(
        value=frechet_distance(read.statistics, reference.statistics),
        note="; ".join(filter(None, notes)),
        protocol=protocol.id(),
    )
    measured = ResultSystem(steps=given.steps, prompts=name, images=images, metrics={"fid": fid})
    weights = {"extractor": extractor.network.sha256, f"{name} statistics": read.source.sha256}
    made_by = provenance(device, weights, score_seconds=seconds_since(started))
    return facts.result(values, (measured,), {protocol.id(): protocol.values()}, made_by)


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 3 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.statistics_score", description="FID of a .npz.")
    parser.add_argument("--statistics", type=Path, required=True, help=".npz of mu and sigma")
    parser.add_argument("--set", required=True, help="the prompt set that its images were made for")
    parser.add_argument("--steps", type=at_least(1), required=True, help="by which they were made")
    parser.add_argument("--count", type=at_least(1), required=True, help="how many images")
    parser.add_argument("--facts", metavar="JSON", required=True, help="as eval.score has them")
    add_scale_option(parser)
    parser.add_argument("--reference", type=Path, required=True, help="results/<scale>/reference")
    parser.add_argument("--out", type=Path, required=True, help="the result")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    values = MeasureValues.read(options.scale)
    facts = read_option(SystemFacts, "--facts", options.facts)
    device = open_device(options.device, values.device, values.threads)
    given = GivenStatistics(options.statistics, options.set, options.steps, options.count)
    with only_writer(options.out):
        result = score_statistics(given, facts, values, options.reference, device)
        write_json(options.out, result.values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
