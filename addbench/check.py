"""The subcommand check: networks, data, disk and memory, before anything is trained."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from add.config.resolve import Table
from add.config.scale import Scale
from add.errors import amount, at_least
from add.files import user_cache
from addbench.cost.shapes import storage
from addbench.preflight import Findings, line_of
from addbench.project import load_project
from addbench.workflow import StudyFiles

HASHING_SECONDS = 25.0
IMAGES_SECONDS = 15.0
"""What each may take, so that the whole check stays below a minute: hashing, and opening images."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`check [--run RUN] [--hash] [--download] [--gpu-memory GB] [--jobs N]`."""
    add = command.add_argument
    add("--run", metavar="RUN", help="look at what this one run needs, without the study and the other rows")
    add("--hash", action="store_true", help="hash all weights and open all images, however long it takes")
    add("--download", action="store_true", help="first fetch the networks that are not on this machine")
    add("--gpu-memory", type=amount, metavar="GB", help="check for a GPU of this size (10^9 bytes) instead")
    add(
        "--jobs",
        type=at_least(1),
        default=1,
        metavar="N",
        help="trainings at a time (default: 1), for the disk",
    )


def check(options: argparse.Namespace) -> tuple[str, int]:
    """Look at all that a scale assumes before anything is trained: networks, data, disk, memory; print all problems.

    Trains nothing and, without --download, fetches nothing. Returns 1 where there is a problem.
    Raises SpecError, UnknownRunError.
    """
    from addbench.preflight.inputs import check_inputs
    from addbench.preflight.networks import HashStore, check_networks, download_missing
    from addbench.preflight.resources import Gpu, check_resources, known_shapes, machine_gpus
    from addbench.preflight.systems import check_systems

    project = load_project(options.scale, options.ablations)
    scale, table = project.scale, project.table
    if options.run is not None:  # the scale and the table as if this run were all
        run = project.run(options.run)
        scale = scale.model_copy(update={"networks": run.networks, "study": None, "systems": None})
        table = Table(table.cells_of(run.name), {run.name: run})
        project = replace(project, scale=scale, table=table)
    compared = project.compared()
    found = Findings()
    if options.download:
        remedy = "or let mirrors.yaml name what is on this machine"
        downloaded = found.attempt(
            "--download", remedy, lambda: list(download_missing(scale, compared.specs))
        )
        found.facts += [f"downloaded {line}" for line in downloaded or ()]
    hashing, opening = (float("inf"),) * 2 if options.hash else (HASHING_SECONDS, IMAGES_SECONDS)
    store = HashStore(user_cache() / "hashes.json")
    networks = check_networks(found, scale, table, store, hashing, compared.specs)
    check_inputs(found, scale, table, networks)
    check_systems(found, scale, compared.specs, opening)
    _check_votes(found, scale, compared.study, project.results)
    _check_libraries(found, table)
    shapes = known_shapes(scale, networks)
    needed = storage(scale, table, compared, shapes.parameters, jobs=options.jobs).total
    card = options.gpu_memory
    gpus = machine_gpus() if card is None else [Gpu("the card", int(card * 1e9))]
    check_resources(found, scale, table, shapes, project.results, gpus, needed)
    return _text(found, scale.name)


def _check_votes(found: Findings, scale: Scale, study: StudyFiles, results: Path) -> None:
    where = line_of(scale, ("study", "records"))
    remedy = "correct the file; `addbench preferences check` reads it"
    votes = found.attempt(where, remedy, study.read_votes, scale, results / "study")
    if study.folder and not Path(study.folder).is_dir():
        found.facts.append(f"study.records: there is no folder {study.folder}, so nobody's votes are rated")
    found.facts += [f"study.records: {len(votes):,} votes in {study.folder}"] if votes else []


def _check_libraries(found: Findings, table: Table) -> None:
    """Libraries that an option needs and that the locked requirements leave out."""
    options = [run.training.performance for run in table.runs.values()]
    if any(o is not None and o.eight_bit_optimiser for o in options) and find_spec("bitsandbytes") is None:
        what = "training.performance.eight_bit_optimiser needs bitsandbytes, which is not installed"
        found.problem("requirements", what, "`pip install bitsandbytes`, or leave the option out")


def _text(found: Findings, name: str) -> tuple[str, int]:
    """What was found as lines, each once, and the exit code."""
    lines = [*dict.fromkeys(found.facts)]
    problems = dict.fromkeys(found.problems)
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)} at scale {name}:"
    for title, each in (("not looked at:", found.left), ("to be pinned:", found.warnings), (count, problems)):
        if each:
            lines += ["", title, *(f"  {line}" for line in dict.fromkeys(each))]
    if not problems:
        lines += ["", f"scale {name}: no problem found"]
    return "\n".join(lines), int(bool(problems))
