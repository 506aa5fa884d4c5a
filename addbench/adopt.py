"""Write a scale that draws your own COCO captions and PartiPrompts file, once all of them has been read.

Nothing is trained here: the new config/<name>.yaml is what `snakemake --config scale=<name>` runs. It has the
networks and the training of the scale given by --scale (default: mini).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from add.config.load import load_scale
from add.errors import InputError
from addbench.adopted_scale import COMMENTS, FEWEST, adopted_values, scale_yaml
from addbench.project import CONFIG, DEFAULT_SCALE, scale_path

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
    add("--captions", type=int, metavar="N", help="captions to draw (default: up to 50)")
    add("--prompt-count", type=int, metavar="N", help="prompts to draw (default: up to 50)")
    add("--steps", type=int, metavar="N", help="training steps (default: the base scale's)")
    add("--name", default="coco", help="the new scale's name (default: coco)")
    add("--replace", action="store_true", help="overwrite config/<name>.yaml")


def report(options: argparse.Namespace) -> tuple[str, int]:
    """Checks the input, writes config/<name>.yaml and data/<name>/, and says what was found and what to run.

    Raises InputError with what is missing or broken; SpecError where the base scale is.
    """
    base = load_scale(scale_path(options.scale or DEFAULT_SCALE))
    from add.config.yaml import SpecError
    from add.errors import InputError
    from eval.adopted import inspect, write_data
    from eval.stage import MeasureValues

    annotations = options.coco / "annotations" / f"captions_{options.split}.json"
    if problems := [*_absent(options, annotations), *_unmade(base)]:
        raise InputError("\n".join(problems))
    found, prompts = _read(options, annotations)
    file = CONFIG / f"{options.name}.yaml"
    changed = {"training.steps": "by --steps"} if options.steps is not None else {}
    text = scale_yaml(adopted_values(base, options, found, prompts), f"scale {base.name}", COMMENTS | changed)
    _check_replaceable(file, text, options.replace)
    partial = CONFIG / ".adopting" / file.name  # a scale's file must be called as the scale
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(text, encoding="utf-8")
        scale = load_scale(partial)
        facts, listing = inspect(MeasureValues.of(scale))
        partial.replace(file)
    except SpecError as error:
        lines = (problem.message for problem in error.problems)
        raise InputError("the scale that these options make is not valid:\n" + "\n".join(lines)) from error
    except InputError as error:
        raise InputError(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
        partial.parent.rmdir()
    write_data(Path(scale.data.root), facts, listing)
    return _said(scale, facts, len(prompts), file), 0


def _absent(options: argparse.Namespace, annotations: Path) -> Iterator[str]:
    """What the layout lacks, all at once."""
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
    """Networks that the base scale's own data stage would make, and the new scale's does not."""
    root = f"{base.data.root}/"
    networks = base.networks
    both = [*networks.diffusion.values(), *networks.features.values(), networks.c_text, networks.c_img]
    absent = {n.path for n in both if n and n.path.startswith(root) and not Path(n.path).exists()}
    if base.data.build and absent:
        yield (
            f"{min(absent)}: no such network; scale {base.name} makes it: "
            f"snakemake --cores all {root}dataset.json --config scale={base.name}"
        )


def _read(options: argparse.Namespace, annotations: Path) -> tuple[AdoptedPhotographs, tuple[Prompt, ...]]:
    """Captions, photographs on disk, all prompts. Raises InputError with the problems of all."""
    from add.errors import InputError
    from eval.adopted import read_photographs
    from eval.prompts import read_parti

    problems = []
    found: AdoptedPhotographs | None = None
    prompts: tuple[Prompt, ...] = ()
    try:
        found = read_photographs(annotations)
    except InputError as error:
        problems.append(str(error))
    try:
        prompts = read_parti(options.prompts)
    except InputError as error:
        problems.append(str(error))
    if found is not None and len(found.present) < FEWEST:
        problems.append(
            f"{found.folder}: {len(found.present)} of the {len(found.names)} photographs that "
            f"{annotations.name} lists are there; FID and KID need at least {FEWEST}"
        )
    elif found is not None and not options.present_only and (missing := found.missing()):
        problems.append(f"{missing}; add --present-only to work on the {len(found.present)} that are there")
    if problems or found is None:
        raise InputError("\n".join(problems))
    return found, prompts


def _check_replaceable(file: Path, text: str, replace: bool) -> None:
    from eval.adopted import BUILD

    there = file.read_text(encoding="utf-8") if file.exists() else text
    if there != text and f"build: {BUILD}" not in there:
        raise InputError(f"{file}: was not written by adopt; choose another --name")
    if there != text and not replace:
        raise InputError(f"{file}: exists, and differs; give --replace to lose it, or choose another --name")


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
        "one run      " + f"snakemake --cores all {target} --config scale={scale.name}",
        "the report   " + f"snakemake --cores all --config scale={scale.name}",
    ]
    return "\n".join(lines)
