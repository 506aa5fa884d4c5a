"""The reference's features, and what real images score: the floor under every FID of a scale.

    python -m eval.reference --scale config/mini.yaml --out results/mini/reference

writes features.safetensors ('reference' (m, d) float32, CLIP's 'reference.clip' (m, e) of length 1, and
'real.<prompt set>' for the photographs that the prompts describe) and, last, reference.json: for each such set all
metrics of the real images and how much FID rises when they are blurred, which says whether the extractor sees texture
at all. `floor` (what a perfect generator would score) and `blur_factor` repeat those of the first set. `--npz FILE`
instead writes the mean and covariance of a reference that is there, for clean-fid, pytorch-fid and
`python -m eval.score --reference FILE`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from add.device import add_device_option, open_device
from add.errors import InputError, refuses
from add.files import whole_file, write_json
from add.lock import only_writer
from add.models.weights import file_hash
from eval.images import Images, image_folder, named_images, on_disk, photograph_folder
from eval.metrics.alignment import Clip
from eval.metrics.distances import frechet_distance, statistics
from eval.metrics.features import Extractor, ImageBatch, all_finite, load_extractor
from eval.metrics.measure import (
    MetricNetworks,
    ReferenceFeatures,
    ScoredSet,
    image_rule,
    load_metric_networks,
    measure,
    score_images,
)
from eval.metrics.protocol import SourceIdentity, canonical_json
from eval.metrics.statistics_file import write_statistics
from eval.prompts import read_prompts, subset_of
from eval.result import Blur, RealImages, ReferenceResult, provenance, read_reference, seconds_since
from eval.stage import MeasureValues, add_scale_option

if TYPE_CHECKING:
    from add.config.scale import CocoPromptsSpec, EvaluationSpec

FEATURES_FILE = "features.safetensors"

EMBEDDINGS = "reference.clip"

BLUR = 0.5
"""Standard deviation in pixels of the Gaussian that the real images are blurred with."""


def make_reference(
    values: MeasureValues, out: Path, device: str = "cpu", present_only: bool = False
) -> ReferenceResult:
    """Measure the real images and write both files; returns reference.json.

    present_only works on those photographs of a prompt set that are on disk, and states how many they are.
    Raises InputError, WeightsError.
    """
    started = time.perf_counter()
    evaluation = values.evaluation
    folder = image_folder(
        Path(evaluation.reference.images), evaluation.resolution, evaluation.crop, evaluation.reference.count
    )
    networks = load_metric_networks(evaluation, device)
    source = SourceIdentity(file=evaluation.reference.images, sha256=folder.sha256(), count=len(folder))
    batches = folder.batches(evaluation.batch)
    seen = measure(batches, extractor=networks.extractor, clip=networks.clip)
    if seen.features is None or seen.embeddings is None:
        raise InputError(evaluation.reference.images, "no image was measured")
    reference = ReferenceFeatures(source, seen.features, seen.embeddings)
    features = {"reference": seen.features, EMBEDDINGS: seen.embeddings}
    real: list[RealImages] = []
    protocols: dict[str, dict[str, Any]] = {}
    for name, config in values.prompts.items():
        if config.kind == "coco":
            entry, scored = _real(name, config, values, networks, reference, present_only)
            real.append(entry)
            protocols |= scored.protocols
            if scored.outputs.features is not None:
                features[f"real.{name}"] = scored.outputs.features
    if not real:
        raise InputError(
            evaluation.reference.images, "no prompt set is of kind coco: nothing to compare with"
        )
    first = real[0]
    with whole_file(out / FEATURES_FILE) as partial:
        save_file({key: np.ascontiguousarray(value) for key, value in features.items()}, partial)
    made = ReferenceResult(
        schema_version=1,
        scale=values.name,
        notice=values.notice,
        settings=reference_settings(evaluation, networks.extractor, networks.clip),
        reference=source,
        features_sha256=file_hash(out / FEATURES_FILE),
        floor={metric: entry.value for metric, entry in first.metrics.items()},
        blur_factor=first.blur.factor if first.blur else None,
        real=tuple(real),
        protocols=protocols,
        provenance=provenance(device, networks.weights(), seconds=seconds_since(started)),
    )
    write_json(out / "reference.json", made.values())
    return made


def load_reference(
    directory: Path, evaluation: EvaluationSpec, extractor: Extractor, clip: Clip | None = None
) -> ReferenceFeatures:
    """The features that `make_reference` wrote, with CLIP's embeddings where `clip` is given.

    Raises InputError where they were made under other settings, or before there were embeddings.
    """
    file = directory / "reference.json"
    made = read_reference(file)
    if made is None:
        raise InputError(file, f"is missing; make it: python -m eval.reference --scale ... --out {directory}")
    if clip is not None and "clip" not in made.settings:
        raise InputError(
            file,
            "was made by an older version, without CLIP's embeddings of the real images, which CMMD compares with; "
            f"make it again: python -m eval.reference --scale ... --out {directory}",
        )
    for key, value in reference_settings(evaluation, extractor, clip).items():
        found = made.settings.get(key)
        if canonical_json(found) != canonical_json(value):
            raise InputError(file, f"was made with {key} = {found}, now it is {value}; make it again")
    tensors = directory / FEATURES_FILE
    if not tensors.is_file() or file_hash(tensors) != made.features_sha256:
        raise InputError(tensors, "is missing, or is not what reference.json was made with; make both again")
    content = load_file(tensors)
    wanted = ["reference"] if clip is None else ["reference", EMBEDDINGS]
    return ReferenceFeatures(made.reference, *(all_finite(content[key], str(tensors)) for key in wanted))


def _real(
    name: str,
    config: CocoPromptsSpec,
    values: MeasureValues,
    networks: MetricNetworks,
    reference: ReferenceFeatures,
    present_only: bool,
) -> tuple[RealImages, ScoredSet]:
    evaluation = values.evaluation
    prompts = read_prompts(config)
    directory = photograph_folder(Path(config.annotations))
    if present_only:
        there = on_disk(Path(config.annotations), [p.file_name or "" for p in prompts])
        prompts = tuple(p for p in prompts if p.file_name in there)
    names = [p.file_name or "" for p in prompts]
    folder = named_images(directory, names, evaluation.resolution, evaluation.crop)
    texts = [p.prompt for p in prompts]
    scored = score_images(folder.batches(evaluation.batch), texts, name, values, networks, reference)
    blurred = frechet_distance(
        statistics(_features(_blurred(folder, evaluation.batch), networks.extractor)), reference.statistics
    )
    floor = scored.metrics["fid"].value
    same = folder.sha256() == reference.source.sha256  # then the floor is nought, and no measure of anything
    entry = RealImages(
        prompts=name,
        images=len(folder),
        listed=config.count,
        subset=subset_of(config),
        metrics=scored.metrics,
        blur=Blur(sigma_pixels=BLUR, fid=blurred, factor=None if same else blurred / floor),
    )
    return entry, scored


def _features(batches: Iterator[NDArray[np.uint8]], extractor: Extractor) -> NDArray[np.float32]:
    return np.concatenate([extractor(ImageBatch(images)) for images in batches])


def reference_settings(
    evaluation: EvaluationSpec, extractor: Extractor, clip: Clip | None = None
) -> dict[str, Any]:
    """What decides a reference's features, and with `clip` its embeddings; labels are left out."""
    networks = {"extractor": extractor, "clip": clip}
    return {
        name: network.network.model_dump(mode="json", exclude={"id", "revision"})
        for name, network in networks.items()
        if network is not None
    } | {
        "image_rule": image_rule(evaluation).model_dump(mode="json"),
        "images": evaluation.reference.images,
        "count": evaluation.reference.count,
    }


def _blurred(folder: Images, size: int) -> Iterator[NDArray[np.uint8]]:
    from scipy.ndimage import gaussian_filter

    for images in folder.batches(size):
        soft = gaussian_filter(images.astype(np.float32), sigma=(0, BLUR, BLUR, 0), mode="nearest")
        yield np.rint(soft).clip(0, 255).astype(np.uint8)


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 3 and one line on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.reference", description="Measure the real images.")
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="directory for the two files")
    add_device_option(parser)
    parser.add_argument(
        "--present-only", action="store_true", help="measure those listed photographs that are on disk"
    )
    parser.add_argument(
        "--npz",
        type=Path,
        metavar="FILE",
        help="measure nothing: write mean and covariance of the reference in --out to FILE",
    )
    options = parser.parse_args(arguments)
    values = MeasureValues.read(options.scale)
    device = open_device(options.device, values.device, values.threads)
    if options.npz is not None:
        extractor = load_extractor(values.evaluation.extractor, device)
        reference = load_reference(options.out, values.evaluation, extractor)
        settings = reference_settings(values.evaluation, extractor) | {"count": len(reference.features)}
        write_statistics(options.npz, reference.statistics, settings)
        return 0
    with only_writer(options.out):
        made = make_reference(values, options.out, device, options.present_only)
    for entry in made.real:
        fid, subset = entry.metrics["fid"], entry.subset
        factor = entry.blur.factor if entry.blur else None
        rise = ", the very reference" if factor is None else f", times {factor:.2f} when blurred"
        part = f" of the {subset.present} on disk ({subset.listed} are listed)" if subset else ""
        line = f"{entry.prompts}: {entry.images} real images{part}, FID {round(fid.value, 2) + 0.0:.2f}{rise}"
        print(line + (f"\n  {fid.note}" if fid.note else ""), file=sys.stderr)
    if values.notice:
        print(f"notice: {values.notice}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
