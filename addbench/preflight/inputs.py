"""Are the training data, prompts and photographs of a scale there, readable, and as many as it says?"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from add.config.data import CocoSpec, ShardsSpec, TrainData
from add.config.resolve import Table
from add.config.scale import CocoPromptsSpec, Scale
from add.config.yaml import Loc, SpecError, raise_all
from add.data.images import Sample, pixels
from add.data.training_set import scan_training_set
from add.errors import InputError
from addbench.preflight import Findings, PreflightProblem, fact, left, problem, together
from addbench.preflight.networks import CheckedNetworks
from addbench.preflight.places import built_later, line_of
from addbench.workflow import training_source

COMPLETE = "complete the data, or correct what the scale says of them"


def check_inputs(scale: Scale, table: Table, networks: CheckedNetworks) -> Findings:
    """Everything that is read besides networks."""
    found = []
    if scale.data.build is not None and built_later(scale, scale.data.root):
        how = f"`python -m {scale.data.build} --out {scale.data.root}`"
        found.append(
            fact(f"data: {how} has still to make {scale.data.root}, as the workflow's first stage does")
        )
    found.append(_training(scale, table, networks))
    found += [_prompts(scale, name) for name in scale.sampling.prompts]
    found.append(_reference(scale))
    oracle = scale.evaluation.oracle
    if oracle is not None and not built_later(scale, oracle.scenes) and not Path(oracle.scenes).is_file():
        where = line_of(scale, ("evaluation", "oracle", "scenes"))
        found.append(problem(where, f"{oracle.scenes}: no such file", COMPLETE))
    found.append(Findings(problems=tuple(_cache(scale))))
    return together(found)


def _training(scale: Scale, table: Table, networks: CheckedNetworks) -> Findings:

    where = line_of(scale, ("data", "train"))
    if built_later(scale, training_source(scale.data.train)):
        return fact("data.train: not looked at until it is made")
    sizes = [size for run in table.runs.values() if (size := networks.resolution(run)) is not None]
    resolution = max(sizes, default=scale.evaluation.resolution)
    report = check_training_data(scale.data.train, resolution)
    absent, line = absent_shards(scale.data.train)
    each = {f"{path}: no such shard" for path in absent}
    problems = [PreflightProblem(where, line, COMPLETE)] if absent else []
    problems += [PreflightProblem(where, line, COMPLETE) for line in report.problems if line not in each]
    if not report.samples:
        if not problems:
            problems.append(PreflightProblem(where, "data.train holds no samples", COMPLETE))
        return Findings(problems=tuple(problems))
    training = scale.training
    seen = training.steps * training.batch
    modes = ", ".join(f"{count} {mode}" for mode, count in report.modes.items())
    lines = [
        f"data.train: {report.samples:,} images with captions; a run draws {seen:,}, each about "
        f"{seen / report.samples:.3g} times",
        f"data.train: {report.opened:,} opened, evenly spread: {modes}; {report.captions:,} captions",
    ]
    if report.smaller:
        share = f"{report.smaller} of {report.opened} opened"
        lines.append(f"data.train: {share} are smaller than {resolution} pixels, and are enlarged")
    rest = () if report.opened == report.samples else ("data.train: the contents of the images not opened",)
    return Findings(tuple(problems), tuple(lines), rest)


def _prompts(scale: Scale, name: str) -> Findings:
    from add.errors import InputError
    from eval.prompts import read_prompts

    config = scale.sampling.prompts[name]
    file = config.annotations if isinstance(config, CocoPromptsSpec) else config.file
    where = line_of(scale, ("sampling", "prompts", name))
    if built_later(scale, file):
        return fact(f"sampling.prompts.{name}: not looked at until it is made")
    try:
        prompts = read_prompts(config)
    except InputError as error:
        return problem(where, f"sampling.prompts.{name}: {error}", COMPLETE)
    counted = fact(f"sampling.prompts.{name}: {len(prompts):,} prompts of {file}")
    if not isinstance(config, CocoPromptsSpec):
        return counted
    from eval.images import photograph_folder

    try:
        folder = photograph_folder(Path(config.annotations))
    except InputError as error:
        return counted + problem(where, str(error), COMPLETE)
    there = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    absent = sorted({p.file_name or "" for p in prompts} - there)
    if absent:
        what = (
            f"{folder}: {len(absent)} of the {len(prompts)} photographs that the prompts of {name} describe are "
            f"missing, the first is {absent[0]}"
        )
        return counted + problem(where, what, f"{COMPLETE} (`present` states a part)")
    return counted


def _reference(scale: Scale) -> Findings:
    from add.errors import InputError
    from eval.images import image_folder

    reference, evaluation = scale.evaluation.reference, scale.evaluation
    where = line_of(scale, ("evaluation", "reference"))
    if built_later(scale, reference.images):
        return fact("evaluation.reference: not looked at until it is made")
    try:
        folder = image_folder(Path(reference.images), evaluation.resolution, evaluation.crop, reference.count)
    except InputError as error:
        return problem(where, f"evaluation.reference: {error}", COMPLETE)
    counted = fact(f"evaluation.reference: {len(folder):,} photographs in {reference.images}")
    return counted + left(
        "evaluation.reference: whether every photograph can be decoded; the reference stage does"
    )


def _cache(scale: Scale) -> Iterator[PreflightProblem]:
    """Kept output of encoders that lies under another encoder's name: training would stop at it, hours on."""
    if scale.data.cache is None:
        return
    from safetensors import SafetensorError, safe_open

    remedy = "delete the file; it is made again"
    for file in sorted(Path(scale.data.cache.directory).glob("*-*/segment-*.safetensors")):
        kind, _, digest = file.parent.name.partition("-")
        if not re.fullmatch(r"[0-9a-f]{16}", digest):
            continue
        try:
            with safe_open(file, framework="np") as opened:
                stated = json.loads((opened.metadata() or {}).get("identity", "null"))
        except (SafetensorError, OSError, ValueError) as error:
            yield PreflightProblem(str(file), f"is not a whole cache file: {error}", remedy)
            continue
        text = json.dumps(stated, sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest()[:16] == digest:
            continue
        maker = {"latents": "VAE", "text": "text encoder"}.get(kind, f"encoder of {kind}")
        encoder = str((stated or {}).get("encoder"))[:12]
        what = f"holds {kind} of another {maker} (of encoder {encoder}) than its folder"
        yield PreflightProblem(str(file), what, remedy)


REMEDY = "put it there, or correct the path (`addbench check` looks for networks and inside files, too)"

SHOWN = 3
"""So many of the missing shards are named; there may be thousands."""


def check_inputs_exist(scale: Scale) -> None:
    """Refuse to begin where training data, prompts or photographs are missing: sampling would find out days later.

    Nothing where a module of the project makes the data. Raises SpecError with all that is missing.
    """
    if scale.data.build is not None:
        return
    file, line = scale.origin.file, scale.origin.line
    raise_all(SpecError(file, line(loc), f"{message}; {REMEDY}") for loc, message in _missing(scale))


def absent_shards(train: TrainData) -> tuple[tuple[Path, ...], str]:
    """The shards that a range names and that are not there, and one line that says so (empty: none is absent)."""
    from add.data.shards import shard_paths

    if not isinstance(train, ShardsSpec):
        return (), ""
    named, _ = shard_paths(train.shards)
    there = {
        entry for folder in {path.parent for path in named} if folder.is_dir() for entry in folder.iterdir()
    }
    absent = tuple(path for path in named if path not in there)
    shown = ", ".join(path.name for path in absent[:SHOWN]) + (", ..." if len(absent) > SHOWN else "")
    what = f"{train.shards}: {len(absent)} of its {len(named)} shards are missing: {shown}"
    return absent, what if absent else ""


def _missing(scale: Scale) -> Iterator[tuple[Loc, str]]:
    train, evaluation = scale.data.train, scale.evaluation
    loc: Loc = ("data", "train")
    if isinstance(train, ShardsSpec):
        from add.data.shards import shard_paths

        yield from ((loc, wrong) for wrong in shard_paths(train.shards)[1])
        if line := absent_shards(train)[1]:
            yield loc, line
    else:
        sources = (train.annotations, train.images) if isinstance(train, CocoSpec) else (train.path,)
        yield from _absent(loc, *sources)
    for name, prompts in scale.sampling.prompts.items():
        file = prompts.annotations if isinstance(prompts, CocoPromptsSpec) else prompts.file
        yield from _absent(("sampling", "prompts", name), file)
    yield from _absent(("evaluation", "reference"), evaluation.reference.images)
    if evaluation.oracle is not None:
        yield from _absent(("evaluation", "oracle", "scenes"), evaluation.oracle.scenes)


def _absent(loc: Loc, *paths: str) -> Iterator[tuple[Loc, str]]:
    yield from ((loc, f"{path}: no such file or directory") for path in paths if not Path(path).exists())


OPENED = 256
"""So many samples are opened by default, evenly spread."""

_SIDE = 8


@dataclass(frozen=True)
class DataReport:
    """What was found. Names are complete; of the contents, only of the `opened` samples.

    samples: with image and caption; captions: of those opened; modes: Pillow's, and how often; smaller: opened
    images whose shorter side is below the resolution, so that training enlarges them. problems: all, by file.
    """

    samples: int
    opened: int
    captions: int
    modes: Mapping[str, int]
    smaller: int
    problems: tuple[str, ...]


def check_training_data(train: TrainData, resolution: int, opened: int | None = OPENED) -> DataReport:
    """Verify and count a data set: all names, and the images and captions of `opened` samples (None: of all)."""
    data, problems = scan_training_set(train)
    n = len(data)
    count = n if opened is None else min(n, opened)
    modes: Counter[str] = Counter()
    captions = smaller = 0
    for k in range(count):
        try:
            (sample,) = data.samples([k * n // count])
            captions += len(sample.captions)
            mode, side = _decoded(sample)
        except InputError as error:
            problems += error.problems
            continue
        modes[mode] += 1
        smaller += side < resolution
    return DataReport(n, count, captions, dict(modes.most_common()), smaller, tuple(problems))


def _decoded(sample: Sample) -> tuple[str, int]:
    """Mode and shorter side of an image, which is decoded whole. Raises InputError where it cannot be."""
    import io

    from PIL import Image

    pixels([sample], _SIDE)
    with Image.open(io.BytesIO(sample.image)) as image:
        return image.mode, min(image.size)
