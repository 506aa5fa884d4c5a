"""Are the training data, prompts and photographs of a scale there and readable, in the numbers that it states?"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open

from add.config.resolve import Table
from add.config.scale import CocoPromptsSpec, PromptsSpec, Scale
from add.config.training import CocoSpec, ShardsSpec, TrainData
from add.config.yaml import Loc, SpecError, raise_all
from add.data.images import left_out_line, pixels
from add.data.shards import shard_paths
from add.data.training_set import scan_training_set
from add.errors import InputError
from addbench.preflight import Findings, built_later, line_of
from addbench.preflight.networks import CheckedNetworks
from addbench.workflow import training_source
from eval.images import image_folder, photograph_folder
from eval.prompts import read_prompts

COMPLETE = "complete the data, or correct what the scale says about them"

REMEDY = (
    "put it there, or correct what the scale says of it (`addbench check` looks at networks and inside files)"
)

SHOWN = 3
"""How many of the missing shards are named; there may be thousands."""

OPENED = 256
"""How many samples are opened by default, evenly spread."""

_SIDE = 8


def check_inputs(found: Findings, scale: Scale, table: Table, networks: CheckedNetworks) -> None:
    """Check everything that is read besides networks."""
    root = scale.data.root
    if built_later(scale, root):
        how = f"`python -m {scale.data.build} --out {root}`"
        found.facts.append(f"data: {how} has still to make {root}, as the workflow's first stage does")
        if not _module(str(scale.data.build)):
            what = f"data.build: there is no Python module {scale.data.build}"
            found.problem(line_of(scale, ("data", "build")), what, "correct it, or leave `build` null")
    _check_training(found, scale, table, networks)
    for name in scale.sampling.prompts:
        _check_prompts(found, scale, name)
    _check_reference(found, scale)
    oracle = scale.evaluation.oracle
    if oracle is not None and not built_later(scale, oracle.scenes) and not Path(oracle.scenes).is_file():
        where = line_of(scale, ("evaluation", "oracle", "scenes"))
        found.problem(where, f"{oracle.scenes}: no such file", COMPLETE)
    _check_cache(found, scale)


def _module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # of a package before the last dot
        return False


def _waits(found: Findings, scale: Scale, path: str, name: str) -> bool:
    later = built_later(scale, path)
    found.facts += [f"{name}: not looked at until it is made"] * later
    return later


def _check_training(found: Findings, scale: Scale, table: Table, networks: CheckedNetworks) -> None:
    if _waits(found, scale, training_source(scale.data.train), "data.train"):
        return
    sizes = [size for run in table.runs.values() if (size := networks.resolution(run)) is not None]
    resolution = max(sizes, default=scale.evaluation.resolution)
    report = check_training_data(scale.data.train, resolution)
    absent, line = absent_shards(scale.data.train)
    each = {f"{path}: no such shard" for path in absent}
    problems = [*([line] if absent else []), *(line for line in report.problems if line not in each)]
    if not report.samples and not problems:
        problems = ["data.train holds no samples"]
    for line in problems:
        found.problem(line_of(scale, ("data", "train")), line, COMPLETE)
    if not report.samples:
        return
    drawn = scale.training.steps * scale.training.batch
    times = f"a run draws {drawn:,}, each about {drawn / report.samples:.3g} times"
    modes = ", ".join(f"{count} {mode}" for mode, count in report.modes.items())
    found.facts += [
        f"data.train: {report.samples:,} images with captions; {times}",
        f"data.train: {report.opened:,} opened, evenly spread: {modes}; {report.captions:,} captions",
    ]
    found.facts += [f"data.train: {report.left_out}"] * (report.left_out is not None)
    if report.smaller:
        part = f"{report.smaller} of {report.opened} opened"
        found.facts.append(f"data.train: {part} are smaller than {resolution} pixels, and are enlarged")
    if report.opened < report.samples:
        found.left.append("data.train: the contents of the images not opened")


def _check_prompts(found: Findings, scale: Scale, name: str) -> None:
    config = scale.sampling.prompts[name]
    file = _prompts_file(config)
    where = line_of(scale, ("sampling", "prompts", name))
    if _waits(found, scale, file, f"sampling.prompts.{name}"):
        return
    prompts = found.attempt(where, COMPLETE, read_prompts, config, said=f"sampling.prompts.{name}: ")
    if prompts is None:
        return
    found.facts.append(f"sampling.prompts.{name}: {len(prompts):,} prompts of {file}")
    if not isinstance(config, CocoPromptsSpec):
        return
    folder = found.attempt(where, COMPLETE, photograph_folder, Path(config.annotations))
    if folder is None:
        return
    there = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    listed = {p.file_name or "" for p in prompts}
    if others := len(there - listed):
        found.facts.append(
            f"sampling.prompts.{name}: {others:,} other files in {folder}, which no prompt uses"
        )
    if absent := sorted(listed - there):
        what = f"{folder}: {len(absent)} of {len(prompts)} photographs are missing, the first is {absent[0]}"
        found.problem(where, what, f"{COMPLETE} (`present` states a part)")


def _prompts_file(prompts: PromptsSpec) -> str:
    if prompts.kind == "repeated":
        return _prompts_file(prompts.of)
    return prompts.annotations if isinstance(prompts, CocoPromptsSpec) else prompts.file


def _check_reference(found: Findings, scale: Scale) -> None:
    reference, evaluation, name = scale.evaluation.reference, scale.evaluation, "evaluation.reference"
    if _waits(found, scale, reference.images, name):
        return
    where, images = line_of(scale, ("evaluation", "reference")), Path(reference.images)
    asked = (images, evaluation.resolution, evaluation.crop, reference.count)
    folder = found.attempt(where, COMPLETE, image_folder, *asked, said=f"{name}: ")
    if folder is not None:
        more = sum(not entry.name.startswith(".") for entry in images.iterdir()) - len(folder)
        part = f", the first by name; {more:,} more are not used" if more else ""
        found.facts.append(f"{name}: {len(folder):,} photographs in {reference.images}{part}")
        found.left.append(f"{name}: whether every photograph can be decoded; the reference stage does")


def _check_cache(found: Findings, scale: Scale) -> None:
    """Find cached encoder output that lies under another encoder's name: training would stop at it, hours on."""
    if scale.data.cache is None:
        return
    remedy = "delete the file; it is made again"
    for file in sorted(Path(scale.data.cache.directory).glob(f"*-{'[0-9a-f]' * 16}/segment-*.safetensors")):
        kind, _, digest = file.parent.name.partition("-")
        try:
            with safe_open(file, framework="np") as opened:
                stated = json.loads((opened.metadata() or {}).get("identity", "null"))
        except (SafetensorError, OSError, ValueError) as error:
            found.problem(file, f"is not a whole cache file: {error}", remedy)
            continue
        if hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16] != digest:
            maker = {"latents": "VAE", "text": "text encoder"}.get(kind, f"encoder of {kind}")
            encoder = str((stated or {}).get("encoder"))[:12]
            what = f"holds {kind} of another {maker} (of encoder {encoder}) than its folder"
            found.problem(file, what, remedy)


def check_inputs_exist(scale: Scale) -> None:
    """Refuse to begin where training data or photographs are missing, or prompts: sampling would find out days later.

    Where a module of the project makes the data, only too few prompts are refused, once it has. Raises SpecError with
    all that is missing.
    """
    found: Iterator[tuple[Loc, str]] = _missing(scale)
    remedy = REMEDY
    if scale.data.build is not None:
        found = iter(()) if built_later(scale, scale.data.root) else _wrong_prompts(scale)
        remedy = f"delete {scale.data.root}/dataset.json to have the data made again, or correct the scale"
    file, line = scale.origin.file, scale.origin.line
    raise_all(SpecError(file, line(loc), f"{message}; {remedy}") for loc, message in found)


def absent_shards(train: TrainData) -> tuple[tuple[Path, ...], str]:
    """The missing ones of the shards that a range names, and a line that says so (empty where none is missing)."""
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
    files: list[tuple[Loc, str]] = []
    loc: Loc = ("data", "train")
    if isinstance(train, ShardsSpec):
        yield from ((loc, wrong) for wrong in shard_paths(train.shards)[1])
        if line := absent_shards(train)[1]:
            yield loc, line
    elif isinstance(train, CocoSpec):
        files += [(loc, train.annotations), (loc, train.images)]
    else:
        files.append((loc, train.path))
    files += [(("sampling", "prompts", k), _prompts_file(v)) for k, v in scale.sampling.prompts.items()]
    yield from _wrong_prompts(scale)
    files.append((("evaluation", "reference"), evaluation.reference.images))
    if evaluation.oracle is not None:
        files.append((("evaluation", "oracle", "scenes"), evaluation.oracle.scenes))
    yield from ((loc, f"{path}: no such file or directory") for loc, path in files if not Path(path).exists())


def _wrong_prompts(scale: Scale) -> Iterator[tuple[Loc, str]]:
    """Files of prompts that are there, and hold too few of them or are wrong."""
    for name, prompts in scale.sampling.prompts.items():
        if Path(_prompts_file(prompts)).exists():
            try:
                read_prompts(prompts)
            except InputError as error:
                yield ("sampling", "prompts", name), str(error)


@dataclass(frozen=True)
class DataReport:
    """What was found: all names were read, but only the contents of the `opened` samples.

    samples: number with image and caption. captions: number among those opened. modes: Pillow's, and how often.
    smaller: number of opened images whose shorter side is below the resolution, so that training enlarges them.
    left_out: a line that says what lies there and is of no sample (`add.data.images.left_out_line`).
    problems: all, by file.
    """

    samples: int
    opened: int
    captions: int
    modes: Mapping[str, int]
    smaller: int
    left_out: str | None
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
            pixels([sample], _SIDE)
            with Image.open(io.BytesIO(sample.image)) as image:
                mode, side = image.mode, min(image.size)
        except InputError as error:
            problems += error.problems
            continue
        modes[mode] += 1
        smaller += side < resolution
    left_out = left_out_line(data)
    return DataReport(n, count, captions, dict(modes.most_common()), smaller, left_out, tuple(problems))
