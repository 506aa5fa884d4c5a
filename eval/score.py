"""Score one run and seed: every set of samples it has, by every metric that applies, into one result.json.

    python -m eval.score --run results/mini/baseline/seed0 --scale config/mini.yaml --out result.json

The samples must be whole, and made for just the prompts and the seed that the scale names.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from add.device import add_device_option, open_device
from add.errors import InputError, refuses
from add.files import write_json
from add.lock import only_writer
from eval.image_scores import scores_file, write_features, write_scores
from eval.images import SampleSet, read_samples
from eval.metrics.features import ImageBatch
from eval.metrics.measure import MetricNetworks, Reference, load_metric_networks, score_images
from eval.metrics.statistics_file import read_statistics
from eval.prompts import Prompt, read_prompts
from eval.reference import load_reference, reference_settings
from eval.result import Metric, Result, ResultSystem, provenance, read_json, seconds_since
from eval.stage import ScoreValues, add_scale_option


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
    prompts = {name: read_prompts(config) for name, config in values.prompts.items()}
    sets = {
        (steps, name): open_samples(run, name, steps, prompts[name], values)
        for name in prompts
        for steps in values.steps
    }
    networks = load_metric_networks(values.evaluation, device)
    reference = _reference(reference_path, values, networks)
    systems: list[ResultSystem] = []
    protocols: dict[str, dict[str, Any]] = {}
    for (steps, name), samples in sorted(sets.items()):
        texts = [p.prompt for p in prompts[name]]
        batches = samples.batches(values.evaluation.batch)
        scored = score_images(batches, texts, name, values, networks, reference)
        ids = [p.prompt_id for p in prompts[name]]
        write_scores(scores_file(run, name, steps), ids, seed, scored.images)
        if keep_features and scored.outputs.features is not None:
            write_features(scores_file(run, name, steps).with_suffix(".safetensors"), scored.outputs.features)
        systems.append(ResultSystem(steps=steps, prompts=name, images=len(samples), metrics=scored.metrics))
        protocols |= scored.protocols
        _say(samples, scored.metrics)
    return Result(
        schema_version=1,
        scale=values.name,
        notice=values.notice,
        run=spec.name,
        seed=seed,
        spec_hash=spec_hash(spec),
        systems=tuple(systems),
        protocols=protocols,
        provenance=provenance(
            device,
            networks.weights(),
            train=train,
            sample_seconds={samples.directory.name: samples.seconds for samples in sets.values()},
            sampling={samples.directory.name: samples.how for samples in sets.values()},
            sample_sha256={samples.directory.name: samples.sha256() for samples in sets.values()},
            score_seconds=seconds_since(started),
        ),
    )


def _reference(path: Path, values: ScoreValues, networks: MetricNetworks) -> Reference:
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
    run: Path, name: str, steps: int, prompts: Sequence[Prompt], values: ScoreValues
) -> SampleSet:
    """The samples of one prompt set and step count. Raises InputError where they are not what the scale asks for."""
    directory = run / "samples" / f"{name}-{steps}step"
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
    parser.add_argument("--run", type=Path, required=True, help="results/<scale>/<run>/seed<k>")
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="result.json")
    text = "directory, or a .npz of mu and sigma; default: results/<scale>/reference, beside the runs"
    parser.add_argument("--reference", type=Path, help=text)
    text = "keep FID's features of each image too, beside its scores"
    parser.add_argument("--features", action="store_true", help=text)
    add_device_option(parser)
    options = parser.parse_args(arguments)
    values = ScoreValues.read(options.scale)
    device = open_device(options.device, values.device, values.threads)
    reference = options.reference or options.run.resolve().parent.parent / "reference"
    with only_writer(options.out):
        result = score_run(options.run, values, reference, device, options.features)
        write_json(options.out, result.values())
    if values.notice:
        print(f"notice: {values.notice}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
