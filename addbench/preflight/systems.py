"""Can each system be made as its file says? Its sampler, the images that were handed in, its statistics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from add.config.scale import Scale
from add.config.system import SystemSpec
from add.config.yaml import Loc
from add.data.reading import file_bytes, json_object
from add.errors import InputError
from addbench.preflight import Findings, Wanted, built_later, locate

REMEDY = "correct the file, or the folder that it names"


def check_systems(found: Findings, scale: Scale, systems: Sequence[SystemSpec], seconds: float) -> None:
    """Look at what sampling or scoring would refuse after everything was trained; networks are looked at elsewhere.

    seconds: what opening the images that were handed in may take; those that it leaves out are said.
    """
    deadline = time.monotonic() + seconds
    for spec in systems:
        problems = (
            *_sampler(scale, spec),
            *_handed_in(found, scale, spec, deadline),
            *_statistics(scale, spec),
        )
        for loc, what in problems:
            found.problem(f"{spec.origin.file}:{spec.origin.line(loc)}", what, REMEDY)


def _sampler(scale: Scale, spec: SystemSpec) -> Iterator[tuple[Loc, str]]:
    if spec.scheduler is not None:
        from eval.system import no_scheduler

        if reason := no_scheduler(spec.scheduler):
            yield ("scheduler",), f"scheduler: {reason}"
    timesteps = _timesteps(scale, spec)
    if timesteps is not None and (most := max(spec.steps)) > timesteps:
        yield ("steps",), f"steps: {most} are more than the {timesteps} timesteps of its schedule"
    if timesteps is not None and spec.timesteps and spec.timesteps[0] >= timesteps:
        yield (
            ("timesteps",),
            f"timesteps: the schedule's last one is {timesteps - 1}, not {spec.timesteps[0]}",
        )


def _timesteps(scale: Scale, spec: SystemSpec) -> int | None:
    """How many timesteps a pipeline's own schedule has; None where that is not known here."""
    source = scale.networks.diffusion[spec.network].path if spec.network is not None else spec.pipeline
    if source is None or built_later(scale, source):
        return None
    place = locate(Findings(), Wanted(("pipeline",), "system", source, spec.revision), scale)
    if place is None:
        return None
    file = place.path / "scheduler" / "scheduler_config.json"
    try:
        return int(json_object(file_bytes(file), file)["num_train_timesteps"])
    except (InputError, KeyError, ValueError, TypeError):
        return None  # a pipeline without one, or not as diffusers writes it


def _handed_in(found: Findings, scale: Scale, spec: SystemSpec, deadline: float) -> Iterator[tuple[Loc, str]]:
    from eval.handed_in import assigned, read_assignment
    from eval.prompts import read_prompts

    for name, folder in (spec.images or {}).items():
        place = (spec.prompts or {}).get(name)
        assignment = None if place is None else Path(place)
        try:
            if built_later(scale, scale.data.root):
                read_assignment(Path(folder), assignment)
                found.left.append(f"the images in {folder}, until the prompts are made")
                continue
            prompts = read_prompts(scale.sampling.prompts[name].at(spec.steps[0]))
            files, _ = assigned(Path(folder), assignment, [prompt.prompt for prompt in prompts])
        except InputError as error:
            yield ("images", name), f"images.{name}: {error}"
            continue
        if absent := [file for file in files if not (Path(folder) / file).is_file()]:
            what = f"{len(absent)} images are not in {folder}, such as {absent[0]}"
            yield ("images", name), f"images.{name}: {what}"
            continue
        opened, unusable = _open_images([Path(folder) / file for file in files], scale, deadline)
        if unusable:
            what = f"{len(unusable)} of {opened} images cannot be used, such as {unusable[0]}"
            yield ("images", name), f"images.{name}: {what}"
        if opened < len(files):
            left = (
                f"{len(files) - opened:,} of {len(files):,} images in {folder}: opening them takes too long"
            )
            found.left.append(f"{left}; `addbench check --hash` does")


def _open_images(files: Sequence[Path], scale: Scale, deadline: float) -> tuple[int, list[str]]:
    """How many could be opened in time, and what is wrong with those that cannot be used."""
    from eval.handed_in import usable

    problems: list[str] = []
    for number, file in enumerate(files):
        if time.monotonic() > deadline:
            return number, problems
        try:
            usable(file, scale.evaluation.resolution)
        except InputError as error:
            problems.append(str(error))
    return len(files), problems


def _statistics(scale: Scale, spec: SystemSpec) -> Iterator[tuple[Loc, str]]:
    from eval.metrics.statistics_file import read_statistics
    from eval.statistics_score import GivenStatistics

    for name, file in (spec.statistics or {}).items():
        given = GivenStatistics(Path(file), name, spec.steps[0], spec.count or 0)
        try:
            read_statistics(given.file, None)
            prompts = given.prompt_set(scale.sampling.prompts)
            if not built_later(scale, scale.data.root):
                given.refuse_other_count(prompts)
        except InputError as error:
            yield ("statistics", name), f"statistics.{name}: {error}"
