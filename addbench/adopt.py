"""The subcommand adopt: a scale on your own photographs, captions and prompts.

The new scale has the networks and the training of the one given by --scale (default: mini).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from add.config.load import load_scale
from add.config.yaml import SpecError
from add.errors import InputError, at_least
from addbench.project import CONFIG, attempt, is_section, scale_path, walk, yaml_line

if TYPE_CHECKING:
    from add.config.scale import Scale
    from eval.adopted import AdoptedPhotographs
    from eval.prompts import Prompt


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`adopt --coco FOLDER --prompts FILE` and how much of them."""
    add = command.add_argument
    layout = "holds annotations/captions_<split>.json and <split>/*.jpg, as COCO is published"
    add("--coco", type=Path, required=True, metavar="FOLDER", help=layout)
    add("--prompts", type=Path, required=True, metavar="FILE", help="PartiPrompts.tsv")
    add("--split", default="val2017", help="default: val2017")
    part = "where photographs are missing: work on those that are on disk, and say so"
    add("--present-only", action="store_true", help=part)
    add("--captions", type=at_least(1), metavar="N", help="captions to draw (default: up to 50)")
    add("--prompt-count", type=at_least(1), metavar="N", help="prompts to draw (default: up to 50)")
    add("--steps", type=int, metavar="N", help="training steps (default: the base scale's)")
    add("--name", default="coco", help="the new scale's name (default: coco)")
    add("--replace", action="store_true", help="overwrite config/<name>.yaml")


def adopt(options: argparse.Namespace) -> tuple[str, int]:
    """Write a scale on your own COCO captions and PartiPrompts file, after all of them have been read.

    Writes config/<name>.yaml and data/<name>/, and says what was found and what to run; trains nothing.
    Raises InputError with all that is missing or broken, SpecError where the base scale is wrong.
    """
    from eval.adopted import BUILD, inspect, refuse_others, write_data
    from eval.stage import MeasureValues

    base = load_scale(scale_path(options.scale))
    annotations = options.coco / "annotations" / f"captions_{options.split}.json"
    if problems := [*_absent(options, annotations), *_unmade(base)]:
        raise InputError("\n".join(problems))
    found, prompts = _read(options, annotations)
    file = CONFIG / f"{options.name}.yaml"
    changed = {"training.steps": "by --steps"} if options.steps is not None else {}
    text = scale_yaml(adopted_values(base, options, found, prompts), f"scale {base.name}", COMMENTS | changed)
    there = file.read_text(encoding="utf-8") if file.exists() else text
    if there != text and f"build: {BUILD}" not in there:
        raise InputError(f"{file}: was not written by adopt; choose another --name")
    if there != text and not options.replace:
        raise InputError(f"{file}: exists, and differs; give --replace to lose it, or choose another --name")
    refuse_others(Path("data") / options.name)
    with TemporaryDirectory(dir=CONFIG, prefix=".adopting-") as folder:
        partial = Path(folder) / file.name  # a scale's file has the scale's name
        partial.write_text(text, encoding="utf-8")
        try:
            scale = load_scale(partial)
            facts, listing = inspect(MeasureValues.of(scale))
        except SpecError as error:
            lines = (problem.message for problem in error.problems)
            raise InputError("\n".join(["the scale that these options make is not valid:", *lines])) from None
        partial.replace(file)
    write_data(Path(scale.data.root), facts, listing)
    return _said(scale, facts, len(prompts), file), 0


def _absent(options: argparse.Namespace, annotations: Path) -> Iterator[str]:
    """Files and folders that are missing, all at once."""
    if not options.coco.is_dir():
        yield f"{options.coco}: no such folder; --coco takes the one that holds annotations/ and {options.split}/"
    else:
        if not annotations.is_file():
            there = sorted(file.name for file in annotations.parent.glob("captions_*.json"))
            hint = f"there is {', '.join(there)}; choose by --split" if there else "COCO's captions go there"
            yield f"{annotations}: no such file; {hint}"
        if not (options.coco / options.split).is_dir():
            yield f"{options.coco / options.split}: no such folder; the split's photographs go there"
    if not options.prompts.is_file():
        yield f"{options.prompts}: no such file; --prompts takes a TSV as PartiPrompts is published"


def _unmade(base: Scale) -> Iterator[str]:
    """A missing network that the base scale's own data stage makes, but the new scale's does not."""
    root, networks = f"{base.data.root}/", base.networks
    both = [*networks.diffusion.values(), *networks.features.values(), networks.c_text, networks.c_img]
    absent = {n.path for n in both if n and n.path.startswith(root) and not Path(n.path).exists()}
    if base.data.build and absent:
        command = f"snakemake --cores all {root}dataset.json --config scale={base.name}"
        yield f"{min(absent)}: this network is missing; scale {base.name} makes it: {command}"


def _read(options: argparse.Namespace, annotations: Path) -> tuple[AdoptedPhotographs, tuple[Prompt, ...]]:
    """Captions with the photographs on disk, and all prompts. Raises InputError with the problems of both."""
    from eval.adopted import read_photographs
    from eval.prompts import read_parti

    errors: list[InputError] = []
    found = attempt(InputError, errors, read_photographs, annotations)
    prompts = attempt(InputError, errors, read_parti, options.prompts)
    problems = [str(error) for error in errors]
    if found is not None and len(found.present) < FEWEST:
        have = f"{len(found.present)} of the {len(found.names)} photographs of {annotations.name} are there"
        problems.append(f"{found.folder}: {have}; FID and KID need at least {FEWEST}")
    elif found is not None and not options.present_only and (missing := found.missing()):
        problems.append(f"{missing}; add --present-only to work on the {len(found.present)} that are there")
    if problems or found is None or prompts is None:
        raise InputError("\n".join(problems))
    return found, prompts


def _said(scale: Scale, facts: dict[str, Any], prompts: int, file: Path) -> str:
    captions, photographs, drawn = facts["captions"], facts["photographs"], facts["prompts"]
    modes = ", ".join(f"{count} {mode}" for mode, count in photographs["modes"].items())
    only = "" if photographs["present"] == photographs["listed"] else "; only these are used"
    target = f"results/{scale.name}/baseline/seed{scale.training.seeds[0]}/result.json"
    lines = [
        f"captions     {captions['images']} images, {captions['captions']} captions; {drawn['coco']} are drawn",
        f"photographs  {photographs['present']} of {photographs['listed']} are on disk (modes: {modes}){only}",
        f"prompts      {prompts}; {drawn['parti']} are drawn",
        f"training     {facts['training']['images']} photographs, {facts['training']['captions']} captions",
        f"reference    {facts['reference']['images']} photographs",
        f"wrote        {file} and {scale.data.root}/",
        *([f"notice       {scale.notice}"] if scale.notice else []),
        "",
        f"one run      snakemake --cores all {target} --config scale={scale.name}",
        f"the report   snakemake --cores all --config scale={scale.name}",
    ]
    return "\n".join(lines)


DEFAULT_COUNT = 50
FEWEST = 3
"""Images that KID's unbiased estimate and its error need."""

BASIC = "Basic"
"""The Challenge that the paper leaves out."""


def adopted_values(
    base: Scale, options: argparse.Namespace, found: AdoptedPhotographs, prompts: tuple[Prompt, ...]
) -> dict[str, Any]:
    """The new scale as JSON values: those of `base`, except data, prompts, reference, crop, oracle and study."""
    from eval.adopted import BUILD, TRAINING_LIST
    from eval.images import SUFFIXES

    name, root = options.name, f"data/{options.name}"
    part = {"present": len(found.present)} if len(found.present) < len(found.names) else {}
    available = sum(prompt.challenge != BASIC for prompt in prompts)
    pictures = [f for f in found.folder.iterdir() if f.suffix.lower() in SUFFIXES and f.name[0] != "."]
    values = base.model_dump(mode="json")
    values.pop("study", None)  # its raters need scenes
    train = {"images": found.folder.as_posix(), "annotations": f"{root}/{TRAINING_LIST}"}
    values |= {
        "name": name,
        "description": _description(base, found, options),
        "notice": base.notice,
        "data": {"build": BUILD, "root": root, "train": train},
    }
    if _built_in(base):
        own = f"the networks of scale {base.name} know only the built-in world"
        values["notice"] = f"scale {name}: {own}; the numbers mean nothing"
    if options.steps is not None:
        values["training"]["steps"] = options.steps
    values["sampling"]["prompts"] = {
        "coco": {
            "kind": "coco",
            "annotations": found.annotations.as_posix(),
            "caption_rule": "first",
            "rule_seed": 0,
            "count": _count(options.captions, len(found.present), "captions"),
            **part,
        },
        "parti": {
            "kind": "partiprompts",
            "file": options.prompts.as_posix(),
            "exclude_challenges": [BASIC] if available < len(prompts) else [],
            "count": _count(options.prompt_count, available, "prompts"),
            "rule_seed": 0,
        },
    }
    values["evaluation"] |= {
        "reference": {"images": found.folder.as_posix(), "count": len(pictures)},
        "crop": "center",  # as training crops: photographs are not square
        "oracle": None,
    }
    return values


def _count(asked: int | None, available: int, what: str) -> int:
    count = min(DEFAULT_COUNT, available) if asked is None else asked
    if not FEWEST <= count <= available:
        raise InputError(f"{what}: {count} are to be drawn; choose {FEWEST} to {available} (all there are)")
    return count


def _built_in(base: Scale) -> bool:
    """Whether the base's networks know the built-in world only: they were made together with its data."""
    return (base.data.build or "").startswith("mini.")


def _description(base: Scale, found: AdoptedPhotographs, options: argparse.Namespace) -> str:
    here, listed = len(found.present), len(found.names)
    part = "" if here == listed else f"{here} of "
    text = (
        f"The networks of scale {base.name} on captions of {found.annotations.name}, {part}the {listed} "
        f"photographs that it lists and prompts of {options.prompts.name}."
    )
    if _built_in(base):
        text += (
            " These networks know only the built-in world of captioned scenes: what they draw for such prompts, "
            "and every number about it, means nothing; that every stage takes them is the point."
        )
    return text + (
        " An FID of no more images than the extractor has features rests on singular covariances; result.json "
        "then notes it."
    )


def scale_yaml(values: dict[str, Any], base: str, comments: Mapping[str, str]) -> str:
    """The scale's file; reading it gives the values again.

    base: where values without a comment come from. comments: by dotted key, for the line of the value.
    """
    head = (
        "# yaml-language-server: $schema=schema/scale.json\n# Written by `addbench adopt`; edit it as you like.\n"
        f"# Values come from {base} unless a comment says otherwise.\n\n"
    )
    lines = []
    for path, value in walk(values):
        if len(path) == 1 and is_section(value):
            lines.append("")
        comment = comments.get(".".join(path))
        lines.append(yaml_line(path, value) + (f"  # {comment}" if comment else ""))
    return head + "".join(f"{line}\n" for line in lines)


COMMENTS = {
    "name": "the directory under results/",
    "description": "on the report's first page",
    "notice": "printed on every page of the report",
    "data.build": "the data stage: reads everything once, and lists what to train on",
    "data.train.images": "yours",
    "data.train.annotations": "photographs on disk, all their captions",
    "sampling.prompts.coco.annotations": "yours",
    "sampling.prompts.coco.count": "images, by id, one caption each",
    "sampling.prompts.coco.present": "number of the listed photographs that are on disk; only these are used",
    "sampling.prompts.parti.file": "yours",
    "sampling.prompts.parti.count": "prompts, drawn with rule_seed",
    "evaluation.reference.images": "yours",
    "evaluation.reference.count": "all photographs in the folder",
    "evaluation.crop": "photographs are not square; training crops alike",
    "evaluation.oracle": "none: only the built-in scenes have one",
}
