"""Score one run and seed: every set of samples it has, by every metric that applies, into one result.json.

    python -m eval.score --run results/mini/baseline/seed0 --scale config/mini.yaml --out result.json
    python -m eval.score --system results/mini/systems/sd21 --steps 25 --facts '{"system": ...}' --scale ... --out ...

The second form scores any other system by one number of steps. The samples must be whole, and made for just the
prompts and the seed that the scale names.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from add.config.scale import CocoPromptsSpec
from add.config.types import Frozen, Text
from add.device import add_device_option, open_device
from add.errors import InputError, at_least, refuses
from add.files import write_json
from add.lock import only_writer
from eval.image_scores import scores_file, write_features, write_scores
from eval.images import SampleSet, read_samples, samples_directory
from eval.metrics.features import ImageBatch
from eval.metrics.measure import (
    MetricNetworks,
    Reference,
    load_metric_networks,
    score_diversity,
    score_images,
    score_outputs,
)
from eval.metrics.statistics_file import read_statistics
from eval.prompts import Prompt, read_prompts
from eval.reference import load_reference, reference_settings
from eval.result import (
    MeasuredImages,
    Metric,
    Result,
    ResultProvenance,
    ResultSystem,
    SystemResult,
    provenance,
    read_json,
    seconds_since,
)
from eval.stage import MeasureValues, PromptSet, ScoreValues, add_scale_option, read_option


def score_run(
    run: Path,
    values: ScoreValues,
    reference_path: Path,
    device: str = "cpu",
    keep_features: bool = False,
) -> Result:
    """The result.json for the run directory results/<scale>/<run>/seed<k>; writes the scores of single images there.

    reference_path: what eval.reference wrote, or a .npz of mean and covariance, against which there is FID alone.
    keep_features: and FID's features (n, d) of each set, as safetensors.

    Raises InputError (a sample set that is missing, incomplete, broken or made for other prompts), SpecError,
    WeightsError.
    """
    from add.config.load import load_run
    from add.identity import spec_hash

    started = time.perf_counter()
    spec = load_run(run / "spec.json")
    file = run / "train" / "train.json"
    if not file.is_file():
        raise InputError(file, "is missing: training did not finish")
    train = read_json(file)
    found = re.fullmatch(r"seed(\d+)", run.resolve().name)
    if found is None:
        raise InputError(run, "is not a run directory: results/<scale>/<run>/seed<k>")
    seed = int(found[1])
    kinds = [(steps, name) for name in values.prompts for steps in values.steps]
    scored = score_sets(run, kinds, seed, values, reference_path, device, keep_features)
    return Result(
        schema_version=1,
        scale=values.name,
        notice=values.notice,
        run=spec.name,
        seed=seed,
        spec_hash=spec_hash(spec),
        systems=scored.systems,
        protocols=scored.protocols,
        provenance=provenance(
            device, scored.weights, train=train, score_seconds=seconds_since(started), **scored.sampling
        ),
    )


class SystemFacts(Frozen):
    """What a system's result says of it besides its figures: its file's name, its name in tables, its training seed.

    train: train.json of the training that made it, where one of this project did.
    """

    system: Text
    label: Text
    seed: int | None = None
    train: Text | None = None

    def result(
        self,
        values: MeasureValues,
        systems: tuple[ResultSystem, ...],
        protocols: dict[str, dict[str, Any]],
        made_by: ResultProvenance,
    ) -> SystemResult:
        """The result of the system, of these figures under these protocols."""
        return SystemResult(
            schema_version=1,
            scale=values.name,
            notice=values.notice,
            system=self.system,
            label=self.label,
            seed=self.seed,
            systems=systems,
            protocols=protocols,
            provenance=made_by,
        )


def score_system(
    folder: Path,
    steps: int,
    facts: SystemFacts,
    values: MeasureValues,
    reference_path: Path,
    device: str = "cpu",
) -> SystemResult:
    """The result of a system that was sampled into `folder` by `steps` steps: of each prompt set that is there.

    Raises as `score_run`, and InputError where no set is there.
    """
    started = time.perf_counter()
    kinds = [(steps, name) for name in values.prompts if samples_directory(folder, name, steps).is_dir()]
    if not kinds:
        raise InputError(folder / "samples", f"has no images by {steps} step(s)")
    scored = score_sets(folder, kinds, facts.seed, values, reference_path, device)
    train = {} if facts.train is None else read_json(Path(facts.train))
    made_by = provenance(
        device, scored.weights, train=train, score_seconds=seconds_since(started), **scored.sampling
    )
    return facts.result(values, scored.systems, scored.protocols, made_by)


@dataclass(frozen=True)
class ScoredSets:
    """Figures and protocols of several sample sets; `sampling` are fields of `ResultProvenance`."""

    systems: tuple[ResultSystem, ...]
    protocols: dict[str, dict[str, Any]]
    weights: dict[str, str]
    sampling: dict[str, dict[str, Any]]


def score_sets(
    folder: Path,
    kinds: Sequence[tuple[int, str]],
    seed: int | None,
    values: MeasureValues,
    reference_path: Path,
    device: str = "cpu",
    keep_features: bool = False,
) -> ScoredSets:
    """Score the sample sets of each (number of steps, prompt set) below `folder`; writes the images' scores there.

    seed: of the training. Raises InputError, WeightsError.
    """
    prompts = {(steps, name): read_prompts(values.prompts[name].at(steps)) for steps, name in kinds}
    sets = {
        (steps, name): open_samples(folder, name, steps, wanted, values)
        for (steps, name), wanted in prompts.items()
    }
    networks = load_metric_networks(values.evaluation, device)
    reference = _reference(reference_path, values, networks)
    systems: list[ResultSystem] = []
    protocols: dict[str, dict[str, Any]] = {}
    for (steps, name), samples in sorted(sets.items()):
        texts = [p.prompt for p in prompts[steps, name]]
        batches = samples.batches(values.evaluation.batch)
        if values.prompts[name].kind == "repeated":
            one = [p.prompt_id.rpartition("-")[0] for p in prompts[steps, name]]
            scored = score_diversity(batches, one, name, values, networks)
        else:
            scored = score_images(batches, texts, name, values, networks, reference)
        ids, file = [p.prompt_id for p in prompts[steps, name]], scores_file(folder, name, steps)
        write_scores(file, ids, seed, scored.images)
        if keep_features and scored.outputs.features is not None:
            write_features(file.with_suffix(".safetensors"), scored.outputs.features)
        first = None
        if (fewer := _compared_images(values.prompts[name])) is not None and fewer < len(samples):
            part = score_outputs(
                scored.outputs.first(fewer), texts[:fewer], name, values, networks, reference
            )
            first = MeasuredImages(images=fewer, metrics=part.metrics)
            protocols |= part.protocols
        systems.append(
            ResultSystem(steps=steps, prompts=name, images=len(samples), metrics=scored.metrics, first=first)
        )
        protocols |= scored.protocols
        _say(samples, scored.metrics)
    every = {samples.directory.name: samples for samples in sets.values()}
    return ScoredSets(
        tuple(systems),
        protocols,
        networks.weights(),
        {
            "sample_seconds": {name: samples.seconds for name, samples in every.items()},
            "sampling": {name: samples.how for name, samples in every.items()},
            "sample_sha256": {name: samples.sha256() for name, samples in every.items()},
        },
    )


def _compared_images(prompts: PromptSet) -> int | None:
    """How many images of a set all numbers of steps have in common; None where that is all of it."""
    return prompts.count_more_steps if isinstance(prompts, CocoPromptsSpec) else None


def _reference(path: Path, values: MeasureValues, networks: MetricNetworks) -> Reference:
    extractor = networks.extractor
    if path.suffix != ".npz":
        return load_reference(path, values.evaluation, extractor, networks.clip)
    side = values.evaluation.resolution
    dimensions = extractor(ImageBatch(np.zeros((1, side, side, 3), np.uint8))).shape[1]
    settings = reference_settings(values.evaluation, extractor)
    return read_statistics(path, dimensions, {key: settings[key] for key in ("extractor", "image_rule")})


def _say(samples: SampleSet, metrics: Mapping[str, Metric]) -> None:
    figures = ", ".join(f"{metric} {entry.value:.4g}" for metric, entry in metrics.items())
    notes = dict.fromkeys(entry.note for entry in metrics.values() if entry.note)
    said = f"{samples.directory.name}: {len(samples)} images, {figures}"
    print(said, *(f"  {note}" for note in notes), sep="\n", file=sys.stderr, flush=True)


def open_samples(
    run: Path, name: str, steps: int, prompts: Sequence[Prompt], values: MeasureValues
) -> SampleSet:
    """The samples of one prompt set and step count. Raises InputError where they are not what the scale asks for."""
    directory = samples_directory(run, name, steps)
    samples = read_samples(directory, values.evaluation.resolution)
    if samples.steps != steps:
        raise InputError(directory / "samples.json", f"says {samples.steps} steps, the folder says {steps}")
    check_prompts(samples, name, prompts, values.seed)
    return samples


def check_prompts(samples: SampleSet, name: str, prompts: Sequence[Prompt], seed: int) -> None:
    """Raises InputError where the samples were not made for just these prompts, of set `name`, and seed."""
    index = samples.directory / "index.csv"
    if len(samples) != len(prompts):
        raise InputError(index, f"lists {len(samples)} images, set {name!r} has {len(prompts)} prompts")
    for number, (sample, prompt) in enumerate(zip(samples.samples, prompts, strict=True), start=1):
        found, wanted = (sample.prompt_id, sample.prompt), (prompt.prompt_id, prompt.prompt)
        if found != wanted:
            raise InputError(index, f"entry {number} is for {found}, set {name!r} has {wanted}; sample again")
        if sample.seed != seed:
            raise InputError(
                index, f"entry {number} has seed {sample.seed}, not {seed} as stated; sample again"
            )


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 3 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.score", description="Score one run's samples.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, help="results/<scale>/<run>/seed<k>")
    which.add_argument(
        "--system", type=Path, help="the folder of another system: results/<scale>/systems/<name>"
    )
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="result.json")
    text = "directory, or a .npz of mu and sigma; default: results/<scale>/reference, beside the runs"
    parser.add_argument("--reference", type=Path, help=text)
    text = "keep FID's features of each image too, beside its scores"
    parser.add_argument("--features", action="store_true", help=text)
    parser.add_argument("--steps", type=at_least(1), help="with --system: by which it was sampled")
    text = 'with --system: as JSON {"system": its file\'s name, "label": its name in tables, "seed": null or a number}'
    parser.add_argument("--facts", metavar="JSON", help=text)
    add_device_option(parser)
    options = parser.parse_args(arguments)
    if (options.system is None) != (options.steps is None) or (options.system is None) != (
        options.facts is None
    ):
        parser.error("--steps and --facts go with --system")
    folder: Path = options.run or options.system
    reference = options.reference or folder.resolve().parent.parent / "reference"
    with only_writer(options.out):
        values: MeasureValues
        if options.run is not None:
            values = run_values = ScoreValues.read(options.scale)
            device = open_device(options.device, values.device, values.threads)
            result: Result | SystemResult = score_run(folder, run_values, reference, device, options.features)
        else:
            values = MeasureValues.read(options.scale)
            device = open_device(options.device, values.device, values.threads)
            facts = read_option(SystemFacts, "--facts", options.facts)
            result = score_system(folder, options.steps, facts, values, reference, device)
        write_json(options.out, result.values())
    if values.notice:
        print(f"notice: {values.notice}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
