"""Which systems does a scale compare, where do their images and results lie, and what decides them?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.config.resolve import Table
from add.config.scale import NetworkSpec, Scale
from add.config.system import SystemSource, SystemSpec
from add.config.yaml import Loc, SpecError, nearest, raise_all
from add.errors import InputError


@dataclass(frozen=True)
class PlannedSystem:
    """A system at one number of steps, as its file says, or one of its training seeds.

    label: its name in votes and tables. folder: where `samples`, `scores` and its result lie. result: the file; of a
    run at a number of steps that the table samples, the run's own. student: the directory that is sampled, for a run.
    source: what is sampled besides. trained_seed: of its training here. sets: the prompt sets that it has images of.
    own: whether the systems' rules make its images and its result, and not the table's. identity: what decides its
    images, besides the stages before it. rival: what it is trained by, as JSON in one line
    (`baselines.spec.RivalSpec`).
    """

    spec: SystemSpec
    label: str
    steps: int
    folder: str
    result: str
    sets: tuple[str, ...]
    own: bool
    student: str | None = None
    trained_seed: int | None = None
    source: SystemSource | None = None
    identity: Any = None
    rival: str | None = None

    def samples(self, prompts: str) -> str:
        """The sample directory of a prompt set."""
        return f"{self.folder}/samples/{prompts}-{self.steps}step"

    @property
    def wildcard(self) -> str:
        """Its folder below the systems' folder, as rules name it."""
        return Path(self.folder).name

    def finished(self, prompts: str) -> str:
        """The file that appears once that sample set is whole."""
        return f"{self.samples(prompts)}/samples.json"

    @property
    def every_sample(self) -> list[str]:
        """The files that appear once all its sample sets are whole."""
        return list(map(self.finished, self.sets))

    @property
    def deciding(self) -> str:
        """`identity` as JSON in one line."""
        return json.dumps(self.identity, sort_keys=True)

    @property
    def source_text(self) -> str:
        """What eval.sample samples, as JSON in one line."""
        return "" if self.source is None else self.source.model_dump_json(exclude_none=True)

    @property
    def timed_entry(self) -> dict[str, Any]:
        """What eval.timing times (`eval.timing.TimedSystem`), of a student or a pipeline."""
        source = self.source or SystemSource(path=self.student or "")
        return {"label": self.label, "steps": self.steps, **source.model_dump(mode="json", exclude_none=True)}

    def handed_in(self, prompts: str) -> str:
        """The shell's options of eval.handed_in for one prompt set."""
        options = ["--images", (self.spec.images or {})[prompts], "--label", self.label]
        if prompts in (self.spec.prompts or {}):
            options += ["--prompts", (self.spec.prompts or {})[prompts]]
        return shlex.join(options)

    @property
    def statistics(self) -> str:
        """The shell's options of eval.statistics_score that say what it is."""
        ((prompts, file),) = (self.spec.statistics or {}).items()
        return shlex.join(["--statistics", file, "--set", prompts, "--count", str(self.spec.count)])

    @property
    def students(self) -> list[str]:
        """The directory of the student, for a run."""
        return [self.student] if self.student is not None else []

    @property
    def trainings(self) -> list[str]:
        """The record of its training, for a run."""
        return [self.training] if self.training is not None else []

    @property
    def training(self) -> str | None:
        """The record of the training that made it."""
        return (
            None
            if self.student is None
            else Path(self.student).with_name("train").joinpath("train.json").as_posix()
        )

    @property
    def facts(self) -> str:
        """What its result says of it (`eval.score.SystemFacts`), as JSON in one line."""
        known = {
            "system": self.spec.name,
            "label": self.label,
            "seed": self.trained_seed,
            "train": self.training,
        }
        return json.dumps({key: value for key, value in known.items() if value is not None})


def plan_systems(
    scale: Scale, specs: Sequence[SystemSpec], table: Table, results: str
) -> tuple[PlannedSystem, ...]:
    """Every system at every number of steps and training seed, in the order of the files.

    Raises SpecError with what is wrong with what each file names.
    """
    planned: list[PlannedSystem] = []
    problems: list[SpecError] = []
    for spec in specs:
        try:
            planned += _planned(scale, spec, table, results)
        except SpecError as error:
            problems.append(error)
        except InputError as error:  # of what the file names: weights, folders
            problems.append(spec.origin.error((spec.kind,), f"{spec.kind}: {error}"))
    raise_all(problems)
    return tuple(planned)


def unknown_names(scale: Scale, specs: Sequence[SystemSpec], table: Table) -> Iterator[SpecError]:
    """The files' references to the scale's networks and prompt sets, and to the table, that lead nowhere."""
    diffusion, prompts = scale.networks.diffusion, scale.sampling.prompts
    for spec in specs:
        named: list[tuple[Loc, str | None, Any, str]] = [
            (("run",), spec.run, table.runs, "the table has no run"),
            (("network",), spec.network, diffusion, "networks.diffusion has no"),
        ]
        named += [
            ((key, name), name, prompts, "sampling.prompts has no set")
            for key in ("images", "statistics")
            for name in getattr(spec, key) or ()
        ]
        for loc, name, known, what in named:
            if name is not None and name not in known:
                yield spec.origin.error(
                    loc, f"{'.'.join(map(str, loc))}: {what} '{name}'{nearest(name, known)}"
                )
        for key in ("images", "prompts", "statistics"):
            for name, place in (getattr(spec, key) or {}).items():
                there, what = (
                    (Path(place).is_dir(), "folder") if key == "images" else (Path(place).is_file(), "file")
                )
                if not there:
                    yield spec.origin.error((key, name), f"{key}.{name}: there is no {what} {place}")


def _planned(scale: Scale, spec: SystemSpec, table: Table, results: str) -> Iterator[PlannedSystem]:
    folder = f"{results}/systems/{spec.name}"
    sets = tuple(spec.images or scale.sampling.prompts)
    source = rival = None
    identity: Any = None
    if spec.run is not None:
        identity = spec.run
    elif spec.rival is not None:
        rival, identity = _rival(scale, spec)
    elif spec.images is not None:
        identity = _handed_in(scale, spec)
    elif spec.statistics is not None:
        from addbench.identity import files_identity

        identity, sets = [files_identity(spec.statistics.values()), list(spec.statistics), spec.count], ()
    elif spec.kind == "published":
        return
    else:
        source, identity = _source(scale, spec)
    for steps in spec.steps:
        label, result = spec.name_at(steps), f"result-{steps}step.json"
        if spec.run is None and rival is None:
            yield PlannedSystem(
                spec, label, steps, folder, f"{folder}/{result}", sets, True, source=source, identity=identity
            )
            continue
        for seed in scale.training.seeds:
            own = f"{folder}-seed{seed}"
            trained = own if spec.run is None else f"{results}/{spec.run}/seed{seed}"
            student = f"{trained}/student"
            if spec.run is not None and steps in scale.sampling.steps:
                file = f"{trained}/result.json"
                yield PlannedSystem(spec, label, steps, trained, file, sets, False, student, seed)
            else:
                drawn = SystemSource(path=student)
                yield PlannedSystem(
                    spec,
                    label,
                    steps,
                    own,
                    f"{own}/{result}",
                    sets,
                    True,
                    student,
                    seed,
                    drawn,
                    identity,
                    rival,
                )


def _source(scale: Scale, spec: SystemSpec) -> tuple[SystemSource, Any]:
    """What is sampled, and what decides the images: paths do not, where a hash is known."""
    from addbench.identity import network_identity

    if spec.network is not None:
        network: NetworkSpec = scale.networks.diffusion[spec.network]
    else:
        network = NetworkSpec(
            path=spec.pipeline or "", revision=spec.revision, sha256=spec.sha256, files=spec.files
        )
    sampler = spec.model_dump(
        mode="json",
        include={"guidance", "scheduler", "spacing", "timesteps", "dtype", "resolution"},
        exclude_none=True,
    )
    sizes = network.model_dump(include={"original_size", "target_size"}, exclude_none=True)
    parts: dict[str, Any] = {key: part.model_dump(mode="json") for key, part in spec.parts.items()}
    deciding: dict[str, Any] = {key: network_identity(scale, part) for key, part in spec.parts.items()}
    if spec.then is not None:
        parts["then"] = [stage.model_dump(mode="json") for stage in spec.then]
        deciding["then"] = [network_identity(scale, stage) for stage in spec.then]
    weights = network.model_dump(include={"path", "revision", "sha256", "files"}, exclude_none=True)
    source = SystemSource.model_validate_json(json.dumps({**weights, **sampler, **parts, "sizes": sizes}))
    identity = [network_identity(scale, network), sampler, sizes, scale.evaluation.resolution]
    return source, [*identity, *([deciding] if deciding else [])]


def _rival(scale: Scale, spec: SystemSpec) -> tuple[str, Any]:
    """A rival's training as JSON, and what decides it. Raises SpecError with the file."""
    from addbench.identity import rival_identity
    from baselines.spec import rival_of

    settings = {"teacher": spec.teacher, "rival": spec.rival, "training": spec.training}

    def refused(loc: Loc, message: str) -> SpecError:
        return spec.origin.error(loc or ("rival",), message if loc else f"rival: {message}")

    made = rival_of(scale, spec.name, settings, refused)
    if odd := [str(k) for k in spec.steps if k not in made.sampled_steps]:
        known = ", ".join(map(str, made.sampled_steps))
        raise refused(
            ("steps",), f"steps: {made.rival.kind} with these settings is sampled by {known}, not {odd[0]}"
        )
    return json.dumps(made.model_dump(mode="json"), sort_keys=True), rival_identity(scale, made)


def _handed_in(scale: Scale, spec: SystemSpec) -> Any:
    """What decides the images of somebody's folders."""
    from addbench.identity import files_identity, folder_identity
    from eval.images import INDEX

    every = {}
    for name, folder in (spec.images or {}).items():
        index = Path(folder) / INDEX  # which image is whose, where no other file says it
        assignment = (spec.prompts or {}).get(name, index.as_posix() if index.is_file() else None)
        every[name] = [folder_identity(Path(folder)), files_identity([assignment]) if assignment else None]
    return [every, scale.evaluation.resolution]
