"""The reference's features, and what real images score: the floor under every FID of a scale.

    python -m eval.reference --scale config/mini.yaml --out results/mini/reference

writes features.safetensors ('reference' (m, d) float32, and 'real.<prompt set>' for the photographs that the
prompts describe) and, last, reference.json: for each such set all metrics of the real images and how much FID
rises when they are blurred, which says whether the extractor sees texture at all. `floor` (what a perfect
generator would score) and `blur_factor` repeat those of the first set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError, refuses
from add.files import write_json
from add.models.weights import file_hash
from eval.entries import ReferenceFeatures, image_rule, score_images, subset_of
from eval.images import ReferenceImages, image_folder, named_images, photograph_folder, present
from eval.metrics.features import Extractor
from eval.metrics.frechet import frechet_distance, statistics
from eval.metrics.kid import mean_kernel
from eval.metrics.networks import MetricNetworks, load_metric_networks, measure
from eval.metrics.protocol import SourceIdentity, canonical_json
from eval.prompts import read_prompts
from eval.provenance import commit, hardware, versions
from eval.stage import MeasureValues, add_scale_option

if TYPE_CHECKING:
    from add.config.scale import CocoPromptsSpec, EvaluationSpec

BLUR = 0.5
"""Standard deviation in pixels of the Gaussian that the real images are blurred with."""


def make_reference(
    values: MeasureValues, out: Path, device: str = "cpu", present_only: bool = False
) -> dict[str, Any]:
    """Measure the real images and write both files; returns reference.json's content.

    present_only works on those photographs of a prompt set that are on disk, and states how many they are.
    Raises InputError, WeightsError.
    """
    started = time.perf_counter()
    evaluation = values.evaluation
    folder = image_folder(
        Path(evaluation.reference.images), evaluation.resolution, evaluation.crop, evaluation.reference.count
    )
    panel = load_metric_networks(evaluation, device)
    measured = measure(folder.batches(evaluation.batch), extractor=panel.extractor)
    source = SourceIdentity(file=evaluation.reference.images, sha256=folder.sha256(), count=len(folder))
    reference = _reference(source, measured.features)
    features = {"reference": reference.features}
    real: list[dict[str, Any]] = []
    protocols: dict[str, dict[str, Any]] = {}
    for name, config in values.prompts.items():
        if config.kind == "coco":
            entry, found, used = _real(name, config, values, panel, reference, present_only)
            real.append(entry)
            features[f"real.{name}"] = found
            protocols |= used
    if not real:
        raise InputError(
            Path(evaluation.reference.images), "no prompt set is of kind coco: nothing to compare with"
        )
    first = real[0]
    _save(out / "features.safetensors", features)
    content = {
        "schema": 1,
        "scale": values.name,
        "notice": values.notice,
        "settings": _settings(evaluation, panel.extractor),
        "reference": source.model_dump(mode="json"),
        "features_sha256": file_hash(out / "features.safetensors"),
        "floor": {metric: entry["value"] for metric, entry in first["metrics"].items()},
        "blur_factor": first["blur"]["factor"],
        "real": real,
        "protocols": protocols,
        "provenance": {
            "versions": versions(),
            "commit": commit(),
            "hardware": hardware(device),
            "weights": panel.weights(),
            "seconds": round(time.perf_counter() - started, 3),
        },
    }
    write_json(out / "reference.json", content)
    return content


def load_reference(directory: Path, evaluation: EvaluationSpec, extractor: Extractor) -> ReferenceFeatures:
    """The reference that `make_reference` wrote. Raises InputError where it was made under other
    settings.
    """
    from safetensors.numpy import load_file

    file = directory / "reference.json"
    if not file.is_file():
        raise InputError(file, f"is missing; make it: python -m eval.reference --scale ... --out {directory}")
    content = json.loads(file.read_text(encoding="utf-8"))
    wanted = _settings(evaluation, extractor)
    for key, value in wanted.items():
        if canonical_json(content["settings"].get(key)) != canonical_json(value):
            found = content["settings"].get(key)
            raise InputError(file, f"was made with {key} = {found}, now it is {value}; make it again")
    tensors = directory / "features.safetensors"
    if not tensors.is_file() or file_hash(tensors) != content["features_sha256"]:
        raise InputError(tensors, "is missing, or is not what reference.json was made with; make both again")
    return _reference(SourceIdentity(**content["reference"]), load_file(tensors)["reference"])


def photographs(config: CocoPromptsSpec) -> Path:
    """The folder of the images that a set's captions describe. Raises InputError."""
    return photograph_folder(Path(config.annotations))


def _real(
    name: str,
    config: CocoPromptsSpec,
    values: MeasureValues,
    panel: MetricNetworks,
    reference: ReferenceFeatures,
    present_only: bool,
) -> tuple[dict[str, Any], NDArray[np.float32], dict[str, dict[str, Any]]]:
    evaluation = values.evaluation
    prompts = read_prompts(config)
    directory = photographs(config)
    if present_only:
        there = set(present(directory, [p.file_name or "" for p in prompts]))
        prompts = tuple(p for p in prompts if p.file_name in there)
    names = [p.file_name or "" for p in prompts]
    folder = named_images(directory, names, evaluation.resolution, evaluation.crop)
    texts = [p.prompt for p in prompts]
    scored = score_images(folder.batches(evaluation.batch), texts, name, values, panel, reference)
    if scored.features is None:
        raise ValueError(f"{name}: no features were taken")
    soft = measure(_blurred(folder, evaluation.batch), extractor=panel.extractor).features
    if soft is None:
        raise ValueError(f"{name}: no features were taken")
    blurred = frechet_distance(statistics(soft), reference.statistics)
    floor = scored.metrics["fid"]["value"]
    same = folder.sha256() == reference.source.sha256  # then the floor is nought, and no measure of anything
    subset = subset_of(config)
    entry = {
        "prompts": name,
        "images": len(folder),
        "listed": config.count,
        "subset": subset.model_dump(mode="json") if subset else None,
        "metrics": scored.metrics,
        "blur": {"sigma_pixels": BLUR, "fid": blurred, "factor": None if same else blurred / floor},
    }
    return entry, scored.features, scored.protocols


def _reference(source: SourceIdentity, features: NDArray[np.float32] | None) -> ReferenceFeatures:
    if features is None:
        raise ValueError("the reference has no features")
    return ReferenceFeatures(source, features, statistics(features), mean_kernel(features))


def _settings(evaluation: EvaluationSpec, extractor: Extractor) -> dict[str, Any]:
    return {
        "extractor": extractor.network.model_dump(mode="json", exclude={"id", "revision"}),
        "image_rule": image_rule(evaluation).model_dump(mode="json"),
        "images": evaluation.reference.images,
        "count": evaluation.reference.count,
    }


def _blurred(folder: ReferenceImages, size: int) -> Iterator[NDArray[np.uint8]]:
    from scipy.ndimage import gaussian_filter

    for images in folder.batches(size):
        soft = gaussian_filter(images.astype(np.float32), sigma=(0, BLUR, BLUR, 0), mode="nearest")
        yield np.rint(soft).clip(0, 255).astype(np.uint8)


def _save(path: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, part)
    part.replace(path)


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.reference", description="Measure the real images.")
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="directory for the two files")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--present-only", action="store_true", help="measure those listed photographs that are on disk"
    )
    options = parser.parse_args(arguments)
    import torch

    values = MeasureValues.read(options.scale)
    torch.set_num_threads(values.threads)
    content = make_reference(values, options.out, options.device, options.present_only)
    for entry in content["real"]:
        fid, factor, subset = entry["metrics"]["fid"], entry["blur"]["factor"], entry["subset"]
        rise = ", the very reference" if factor is None else f", times {factor:.2f} when blurred"
        part = f" of the {subset['present']} on disk ({subset['listed']} are listed)" if subset else ""
        line = f"{entry['prompts']}: {entry['images']} real images{part}, FID {round(fid['value'], 2) + 0.0:.2f}{rise}"
        print(line + (f"\n  {fid['note']}" if "note" in fid else ""), file=sys.stderr)
    if values.notice:
        print(f"notice: {values.notice}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
