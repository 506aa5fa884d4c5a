"""Are the training data, prompts and photographs of a scale readable, and as many as it says? All problems at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from add.resolve import Table
from add.spec import Scale
from add.spec_scale import CocoPrompts
from addbench.inputs import absent_shards
from addbench.preflight.findings import Findings, Problem, fact, left, problem, together
from addbench.preflight.networks import Networks
from addbench.preflight.places import built_later, line_of
from addbench.workflow import training_source

COMPLETE = "complete the data, or correct what the scale says of them"


def check_inputs(scale: Scale, table: Table, networks: Networks) -> Findings:
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


def _training(scale: Scale, table: Table, networks: Networks) -> Findings:
    from add.data.check import check_training_data

    where = line_of(scale, ("data", "train"))
    if built_later(scale, training_source(scale.data.train)):
        return fact("data.train: not looked at until it is made")
    sizes = [size for run in table.runs.values() if (size := networks.resolution(run)) is not None]
    resolution = max(sizes, default=scale.evaluation.resolution)
    report = check_training_data(scale.data.train, resolution)
    absent, line = absent_shards(scale.data.train)
    each = {f"{path}: no such shard" for path in absent}
    problems = [Problem(where, line, COMPLETE)] if absent else []
    problems += [Problem(where, line, COMPLETE) for line in report.problems if line not in each]
    if not report.samples:
        if not problems:
            problems.append(Problem(where, "data.train holds no samples", COMPLETE))
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
    from eval.decode import ImageSetError
    from eval.prompts import PromptError, read_prompts

    config = scale.sampling.prompts[name]
    file = config.annotations if isinstance(config, CocoPrompts) else config.file
    where = line_of(scale, ("sampling", "prompts", name))
    if built_later(scale, file):
        return fact(f"sampling.prompts.{name}: not looked at until it is made")
    try:
        prompts = read_prompts(config)
    except (PromptError, ImageSetError) as error:
        return problem(where, f"sampling.prompts.{name}: {error}", COMPLETE)
    counted = fact(f"sampling.prompts.{name}: {len(prompts):,} prompts of {file}")
    if not isinstance(config, CocoPrompts):
        return counted
    from eval.subset import photograph_folder

    try:
        folder = photograph_folder(Path(config.annotations))
    except ImageSetError as error:
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
    from eval.decode import ImageSetError
    from eval.images import image_folder

    reference, evaluation = scale.evaluation.reference, scale.evaluation
    where = line_of(scale, ("evaluation", "reference"))
    if built_later(scale, reference.images):
        return fact("evaluation.reference: not looked at until it is made")
    try:
        folder = image_folder(Path(reference.images), evaluation.resolution, evaluation.crop, reference.count)
    except ImageSetError as error:
        return problem(where, f"evaluation.reference: {error}", COMPLETE)
    counted = fact(f"evaluation.reference: {len(folder):,} photographs in {reference.images}")
    return counted + left(
        "evaluation.reference: whether every photograph can be decoded; the reference stage does"
    )


def _cache(scale: Scale) -> Iterator[Problem]:
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
            yield Problem(str(file), f"is not a whole cache file: {error}", remedy)
            continue
        text = json.dumps(stated, sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest()[:16] == digest:
            continue
        maker = {"latents": "VAE", "text": "text encoder"}.get(kind, f"encoder of {kind}")
        encoder = str((stated or {}).get("encoder"))[:12]
        what = f"holds {kind} of another {maker} (of encoder {encoder}) than its folder"
        yield Problem(str(file), what, remedy)
