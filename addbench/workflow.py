"""What the Snakefile asks of the project before the first job: plain values for `params`, files, devices, the study."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from add.config.load import ABLATIONS, baseline_file, load_ablations, load_baseline
from add.config.resolve import Table, resolve
from add.config.run import Run, Variant
from add.config.scale import Scale
from add.config.study import StudySpec
from add.config.system import SystemSpec, load_systems, system_findings
from add.config.training import CacheSpec, CocoSpec, ShardsSpec, TrainData
from add.config.yaml import Loc, SpecError, dotted, nearest, raise_all
from add.device import machine_gpus
from add.digests import digest_of
from add.errors import InputError
from add.identity import deciding_values
from addbench.preflight import built_later
from addbench.systems import PlannedSystem, plan_systems, unknown_names
from baselines.spec import RivalSpec
from eval.preferences.key import read_all_keys
from eval.preferences.reader import read_folder
from eval.preferences.record import PreferenceError, Vote
from eval.stage import MeasureValues, RatingValues, StageValues
from reports.study import ReportStudy, ReportSystem, study_from_spec

FIGURES = ("findings", "ranks", "steps", "scatter", "gap", "losses", "ratio")
"""Figures of the report beside the samples, each with a caption of the same name under reports/captions."""

RATING_FIGURES = ("winrates", "elo", "pairs")
"""The same for a report with ratings."""


def refuse_unknown(config: Mapping[str, Any], *known: str) -> None:
    """Refuse a setting of `--config` that no rule reads, which would be ignored, and one without a value.

    Raises InputError with all of them.
    """
    wrong = [
        f"--config {key}: there is no such setting{nearest(key, known)}" for key in config if key not in known
    ]
    wrong += [f"--config {key}=: is empty" for key in config if config[key] in (None, "")]
    if wrong:
        raise InputError("\n".join(wrong))


def scale_file(scale: str) -> str:
    """config/<scale>.yaml for a scale's name; a path to a YAML file stands for itself."""
    return scale if scale.endswith((".yaml", ".yml")) else f"config/{scale}.yaml"


def ablations_folder(path: str | Path) -> Path:
    """A folder of ablations as everything here names it, however it was written: from where the workflow runs.

    Raises InputError for a name that the workflow would take for a wildcard.
    """
    if found := {"{", "}"} & set(str(path)):
        raise InputError(f"ablations: {path}: a folder's name has no {' or '.join(sorted(found))}; rename it")
    return Path(os.path.relpath(path))


def report_folder(scale: Scale, ablations: Path) -> str:
    """Where a table's report stays: another folder of ablations is another table, and replaces no report.

    A folder below the project's has its name, one beside it too where the former has none of it, and any other path a
    name that no other has. `make replication` typesets in folders that end in its name.
    """
    if ablations == ABLATIONS:
        return f"reports/{scale.name}"
    name, below = ablations.name, ablations.parent == ABLATIONS
    own = below or (ablations.parent == Path() and not (ABLATIONS / name).exists())
    if not own or name.endswith("replication") or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        name = _unique(f"{ablations.as_posix()}/")  # the slash makes it one with a digest
    return f"reports/{scale.name}-{name}"


def results_folder(scale: Scale, ablations: Path, table: Table) -> str:
    """Where a table's runs lie: with those of the project's folder, so that runs of both are trained once.

    A folder with another run of a name that the project's table has keeps all of its runs apart: no table trains over
    the runs of the other. Raises SpecError with what is wrong with the files of the project's folder.
    """
    shared, default = f"results/{scale.name}", baseline_file(ABLATIONS)
    if ablations == ABLATIONS or not default.is_file():
        return shared
    baseline = load_baseline(default)
    for questions in ((), *((each,) for each in load_ablations(ABLATIONS))):
        try:
            project = resolve(scale, baseline, questions).runs
        except SpecError:  # the scale cannot ask this question, so it has no runs of it
            continue
        for name in table.runs.keys() & project.keys():
            if deciding_values(table.runs[name]) != deciding_values(project[name]):
                return f"{shared}-{_unique(ablations.as_posix())}"
    return shared


def _unique(path: str) -> str:
    """A path as a name that no other path has, of letters that no shell reads as anything else."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", path).strip("-.")
    return plain if plain == path else f"{plain}-{digest_of(path)[:6]}".lstrip("-")


def plain(run: Run) -> str:
    """A run's values as one line of JSON; equal values give equal text."""
    return json.dumps(run.model_dump(mode="json"), sort_keys=True)


def stage_values(stage: type[StageValues], scale: Scale) -> Callable[[Any, Any], str]:
    """The stage's values as one line of JSON, for `params` and the stage's option `--scale`.

    Snakemake does not compare a function of `output`: `addbench.identity` has what it compares. The function is called
    for jobs that are planned: a scale without a study has no values for the study's stages.
    """
    return lambda wildcards, output: stage.of(scale).model_dump_json()


def rating_values(scale: Scale, study: StudyFiles, made: str) -> Callable[[Any, Any], str]:
    """`stage_values` of the ratings. Votes that these would refuse are refused as they are planned, before trainings.

    made: the study's directory.
    """
    values = stage_values(RatingValues, scale)
    read = cache(lambda: study.read_votes(scale, Path(made)))

    def checked(wildcards: Any, output: Any) -> str:
        try:
            read()
        except PreferenceError as error:
            raise error.with_traceback(None) from None  # Snakemake prints the frames, as of a fault of ours
        return values(wildcards, output)

    return checked


def report_study(scale: Scale, baseline: Variant, table: Table, compared: ComparedSystems) -> ReportStudy:
    """What the report is about. Where no systems are rated, it asks for no ratings."""
    study = study_from_spec(scale, baseline, table)
    if not compared.study.systems:
        study = dataclasses.replace(study, focus=())
    findings = (*study.findings, *system_findings(compared.specs))
    return dataclasses.replace(
        study, systems=tuple(_reported(compared)), timing=compared.times or None, findings=findings
    )


def _reported(compared: ComparedSystems) -> Iterator[ReportSystem]:
    """The systems as the report reads them, by file, then by number of steps."""
    for spec in compared.specs:
        for steps in spec.steps:
            made = [s for s in compared.systems if s.spec is spec and s.steps == steps]
            figures: dict[str, Any] = {
                key: next((f.model_dump() for f in getattr(spec, key) or () if f.steps == steps), None)
                for key in ("published", "elsewhere")
            }
            yield ReportSystem(
                name=spec.label,
                label=spec.name_at(steps),
                steps=steps,
                run=spec.run,
                results=tuple(s.result for s in made),
                samples={name: made[0].samples(name) for name in made[0].sets} if made else {},
                **figures,
            )


def build_options(scale: Scale) -> str:
    """The shell's options of the module that makes the data, besides `--out`: the scale's values for eval.adopted."""
    from eval.adopted import BUILD

    if scale.data.build != BUILD:
        return ""
    return shlex.join(["--scale", MeasureValues.of(scale).model_dump_json()])


def training_source(train: TrainData) -> str:
    """The file or folder that rules take as input, since its change is a change of the training data.

    For shards it is the first shard: their folder changes when an index is written into it.
    """
    from add.data.shards import shard_paths

    if isinstance(train, CocoSpec):
        return train.annotations
    if isinstance(train, ShardsSpec):
        paths, _ = shard_paths(train.shards)
        return paths[0].as_posix() if paths else train.shards
    return train.path


def train_options(cache: CacheSpec | None) -> str:
    """The options of a training, of ADD or a rival, that are no part of it: where the encoders' output is cached."""
    return "" if cache is None else shlex.join(["--cache", cache.directory, "--keep", *cache.keep])


def gpu_jobs(setting: Any, scale: Scale) -> int:
    """1 where the scale's jobs use a GPU, else 0: as it states, as set (`--config gpu=1`), or whether there is one.

    Raises InputError for another setting than 0 and 1.
    """
    if setting not in (None, 0, 1):
        many = "how many there are is --resources gpu=N"
        raise InputError(f"--config gpu={setting}: should be 1 (jobs use a GPU) or 0; {many}")
    if scale.training.device == "cpu":
        return 0
    return int(bool(machine_gpus()) if setting is None else setting)


def report_figures(flag: Callable[..., Any], report: str, steps: Sequence[int], rated: bool) -> list[Any]:
    """The figures of the report in the folder `report` as PNG, each flagged for `snakemake --report`, and as PDF.

    steps: the numbers of steps that are sampled. rated: whether the scale has a study, and so ratings.
    """
    captions = {name: name for name in (*FIGURES, *(RATING_FIGURES if rated else ()))}
    captions |= {f"samples-{k}step": "samples" for k in (min(steps), max(steps))}
    files: list[Any] = []
    for figure, caption in captions.items():
        text, file = f"reports/captions/{caption}.rst", f"{report}/figures/{figure}"
        files += [flag(f"{file}.png", caption=text, category="Figures"), f"{file}.pdf"]
    return files


def whole_machine(workflow: Any, otherwise: int) -> int:
    """The threads of a job that nothing runs beside: all the workflow's cores; `otherwise` where it has no number."""
    from snakemake.exceptions import WorkflowError

    try:
        return int(workflow.cores)
    except WorkflowError:  # each job has a machine of its own
        return otherwise


def systems_tables(scale: Scale, compared: ComparedSystems) -> list[str]:
    """The CSV files of the comparison of systems; none without systems. Categories are of PartiPrompts alone."""
    if not compared.specs:
        return []
    parti = any(rule.kind == "partiprompts" for rule in scale.sampling.prompts.values())
    return ["systems.csv", *(["systems_categories.csv"] if parti else [])]


@dataclass(frozen=True)
class StudyFiles:
    """All systems of a study in its order; empty where the scale has no study. Every field is a value for `params`.

    prompts: the set that is compared. options: the design, for eval.preferences.study.make. folder: of people's votes.
    records, keys: their preference files and key files that exist now.
    """

    systems: tuple[PlannedSystem, ...] = ()
    prompts: str = ""
    options: str = ""
    folder: str = ""
    records: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def read_votes(self, scale: Scale, made: Path) -> tuple[Vote, ...]:
        """People's votes that there are now, none without their folder. made: the study's directory, with its key.

        Raises PreferenceError with every problem, as the ratings' job does; which prompts are compared is not known
        before the scale's data are made.
        """
        from eval.prompts import read_prompts

        folder = Path(self.folder)
        if not self.systems or not folder.is_dir():
            return ()
        keys = read_all_keys([folder], made)
        texts = None
        with suppress(InputError):  # what is wrong with the prompts is said of these
            if not built_later(scale, scale.data.root):
                texts = {p.prompt_id: p.prompt for p in read_prompts(RatingValues.of(scale).compared)}
        return read_folder(folder, [s.label for s in self.systems], keys, prompts=texts)

    @property
    def samples(self) -> list[str]:
        """The files that must exist before anything is compared."""
        return [system.finished(self.prompts) for system in self.systems]

    @property
    def trained(self) -> list[tuple[str, int]]:
        """(run, training seed) of every student that is compared, each once."""
        return trained(self.systems)

    @property
    def identity(self) -> str:
        """What decides the images of the systems that the table does not sample, as JSON in one line."""
        return json.dumps([system.deciding for system in self.systems if system.own])

    @property
    def entries(self) -> str:
        """The systems file of eval.preferences.study: name and sample directory of each, as JSON in one line."""
        return json.dumps([{"name": s.label, "samples": s.samples(self.prompts)} for s in self.systems])


@dataclass(frozen=True)
class ComparedSystems:
    """Every system of a scale at every number of steps and training seed, and which of them a study shows.

    specs: their files, also of systems of published figures alone. times: the file of their times; empty where nothing
    is timed.
    """

    specs: tuple[SystemSpec, ...] = ()
    systems: tuple[PlannedSystem, ...] = ()
    study: StudyFiles = StudyFiles()
    times: str = ""

    def by_wildcards(self, wildcards: Any) -> PlannedSystem:
        """The system that a job of the systems' rules is about."""
        return self.jobs[wildcards.system, int(wildcards.steps)]

    def decided(self, train: Callable[[Any], str]) -> Callable[[Any], str]:
        """What decides the images of the system of such a job. train: the identity of a training by its wildcards."""

        def identity(wildcards: Any) -> str:
            system = self.by_wildcards(wildcards)
            trainings = [train(SimpleNamespace(run=run, seed=seed)) for run, seed in trained([system])]
            return json.dumps([system.deciding, trainings])

        return identity

    @cached_property
    def jobs(self) -> dict[tuple[str, int], PlannedSystem]:
        """Those whose images and results the systems' rules make, by the wildcards `system` and `steps`."""
        return {(system.wildcard, system.steps): system for system in self._made if system.own}

    @property
    def _made(self) -> tuple[PlannedSystem, ...]:
        """Those whose images the systems' rules make; a table without a comparison of systems has its study's alone."""
        return (*self.systems, *self.study.systems)

    @property
    def trained(self) -> list[tuple[str, int]]:
        """(run, training seed) of every student that is compared, each once."""
        return trained(self.systems)

    @property
    def identity(self) -> str:
        """What decides the images of all systems that the table does not sample, as JSON in one line."""
        return json.dumps([system.deciding for system in self.systems if system.own])

    @property
    def results(self) -> list[str]:
        """The result of every system, each file once."""
        return list(dict.fromkeys(system.result for system in self.systems))

    @property
    def rivals(self) -> list[RivalSpec]:
        """Every rival that is trained, once for each training seed."""
        specs = {system.wildcard: system.rival for system in self._made if system.rival is not None}
        return [RivalSpec.model_validate_json(text) for text in specs.values()]

    @property
    def timed(self) -> tuple[PlannedSystem, ...]:
        """Those that a pipeline draws, each by its first training seed."""
        first: dict[str, PlannedSystem] = {}
        for system in self.systems:
            if system.student is not None or system.source is not None:
                first.setdefault(system.label, system)
        return tuple(first.values())

    @property
    def timed_entries(self) -> str:
        """These as eval.timing reads them, as JSON in one line."""
        return json.dumps([system.timed_entry for system in self.timed])

    @property
    def timed_identity(self) -> str:
        """What decides these, as JSON in one line."""
        return json.dumps([[system.label, system.deciding] for system in self.timed])

    def wildcards(self, made: Literal["sampled", "handed in", "trained", "statistics", "images"]) -> str:
        """A pattern of the wildcard `system` for those that are sampled here, were handed in, or are rivals.

        statistics: those without images. images: all others.
        """
        is_made: dict[str, Callable[[PlannedSystem], bool]] = {
            "sampled": lambda system: system.source is not None,
            "handed in": lambda system: system.spec.images is not None,
            "trained": lambda system: system.rival is not None,
            "statistics": lambda system: system.spec.statistics is not None,
            "images": lambda system: system.spec.statistics is None,
        }
        names = {system.wildcard for system in self._made if system.own and is_made[made](system)}
        return "|".join(sorted(names)) or "(?!)"

    def rival(self, wildcards: Any) -> PlannedSystem:
        """The rival that a training is of, by any of its numbers of steps."""
        return next(system for system in self._made if system.rival and system.wildcard == wildcards.system)


def trained(systems: Iterable[PlannedSystem]) -> list[tuple[str, int]]:
    """(run, training seed) of every student among these, each once."""
    students = dict.fromkeys(
        (s.spec.run, s.trained_seed) for s in systems if s.spec.run is not None and s.trained_seed is not None
    )
    return list(students)


def plan_compared(scale: Scale, table: Table, results: str, whole: bool = True) -> ComparedSystems:
    """The scale's systems and its study as files below `results`. Raises SpecError with every unknown name.

    whole: whether the table is that of the project's folder. The systems are runs of that table; another table has no
    comparison of systems. Where it lacks those that the study shows, or keeps its runs apart, it has no ratings either,
    and says so on stderr.
    """
    specs = load_systems(scale.systems)
    if not whole:
        specs = tuple(spec for spec in specs if spec.run is None or spec.run in table.runs)
    raise_all(unknown_names(scale, specs, table))
    systems = plan_systems(scale, specs, table, results)
    pipelines = any(system.student or system.source for system in systems)
    times = f"{results}/systems/timing.json" if scale.timing is not None and pipelines else ""
    study = scale.study
    if study is None:
        return ComparedSystems(specs, systems, times=times) if whole else ComparedSystems()
    if not whole and results != f"results/{scale.name}":
        print(
            "This report has no ratings: people's votes are on images of the project's table.",
            file=sys.stderr,
        )
        return ComparedSystems()
    labels = {system.label: system for system in reversed(systems)}
    lacking = [label for label in study.systems if label not in labels]
    if lacking and not whole:
        print(f"This report has no ratings: the study compares {', '.join(lacking)}.", file=sys.stderr)
        return ComparedSystems()
    raise_all(_unknown(scale, study, labels))
    folder = Path(study.records)
    files = StudyFiles(
        systems=tuple(labels[label] for label in study.systems),
        prompts=study.prompts,
        options=f"--raters {study.raters} --votes-per-pair {study.votes_per_pair} "
        f"--trials-per-rater {study.trials_per_rater} --seed {study.seed}{'' if study.ties else ' --no-ties'}",
        folder=study.records,
        records=tuple(file.as_posix() for file in sorted(folder.glob("*.csv"))),
        keys=tuple(file.as_posix() for file in sorted(folder.glob("*.key.json"))),
    )
    return ComparedSystems(specs, systems, files, times) if whole else ComparedSystems(study=files)


def _unknown(scale: Scale, study: StudySpec, systems: Mapping[str, PlannedSystem]) -> Iterator[SpecError]:
    """The study's references to other sections, or to systems, that lead nowhere."""
    named: list[tuple[Loc, str, Collection[str], str]] = [
        (("study", "prompts"), study.prompts, scale.sampling.prompts, "sampling.prompts has no set")
    ]
    known = f"{scale.systems} has no system"
    named += [(("study", "systems", k), label, systems, known) for k, label in enumerate(study.systems)]
    named += [
        (("study", "focus", k), label, study.systems, "no system of the study is called")
        for k, label in enumerate(study.focus)
    ]
    problems: list[tuple[Loc, str]] = [
        (loc, f"{what} '{name}'{nearest(name, known)}")
        for loc, name, known, what in named
        if name not in known
    ]
    for index, label in enumerate(study.systems):
        if label in systems and study.prompts not in systems[label].sets:
            where = systems[label].spec.origin.file
            message = f"'{label}' has no images of '{study.prompts}' ({where})"
            problems.append((("study", "systems", index), message))
    for index, rater in enumerate(study.automatic):
        if rater.kind == "scene_graph" and scale.evaluation.oracle is None:
            missing = "scene_graph needs evaluation.oracle, which is null"
            problems.append((("study", "automatic", index), missing))
    for loc, message in problems:
        yield SpecError(scale.origin.file, scale.origin.line(loc), f"{dotted(loc)}: {message}")
