"""What the Snakefile asks of the project before the first job: plain values for `params`, files, devices, the study."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.config.load import BASELINE
from add.config.resolve import Table
from add.config.run import Run, Variant
from add.config.scale import Scale
from add.config.study import StudySpec, StudySystemSpec
from add.config.training import CacheSpec, CocoSpec, ShardsSpec, TrainData
from add.config.yaml import Loc, SpecError, dotted, nearest, raise_all
from add.device import machine_gpus
from eval.stage import MeasureValues, StageValues
from reports.study import study_from_spec

ABLATIONS = Path("ablations")
"""The folder of the paper's questions."""

FIGURES = ("findings", "ranks", "steps", "scatter", "gap", "losses", "ratio")
"""Figures of the report beside the samples, each with a caption of the same name under reports/captions."""

RATING_FIGURES = ("winrates", "elo", "pairs")
"""The same for a report with ratings."""


def scale_file(scale: str) -> str:
    """config/<scale>.yaml for a scale's name; a path to a YAML file stands for itself."""
    return scale if scale.endswith((".yaml", ".yml")) else f"config/{scale}.yaml"


def baseline_file(ablations: Path) -> Path:
    """The shared default of a folder of ablations: its own baseline.yaml, or that of the project's folder."""
    own = ablations / f"{BASELINE}.yaml"
    return own if own.is_file() else ABLATIONS / own.name


def report_folder(scale: Scale, ablations: Path) -> str:
    """Where a table's report stays: another folder of ablations is another table, and replaces no report."""
    name = scale.name if ablations == ABLATIONS else f"{scale.name}-{ablations.name}"
    return f"reports/{name}"


def plain(run: Run) -> str:
    """A run's values as one line of JSON; equal values give equal text."""
    return json.dumps(run.model_dump(mode="json"), sort_keys=True)


def stage_values(stage: type[StageValues], scale: Scale) -> Callable[[Any, Any], str]:
    """The stage's values as one line of JSON, for `params` and the stage's option `--scale`.

    Snakemake does not compare a function of `output`: `addbench.identity` has what it compares. The function is called
    for jobs that are planned: a scale without a study has no values for the study's stages.
    """
    return lambda wildcards, output: stage.of(scale).model_dump_json()


def report_values(scale: Scale, baseline: Variant, table: Table, rated: bool) -> Callable[[Any], str]:
    """What the report is about as one line of JSON, for `python -m reports.table --study`.

    rated: whether this table's systems are rated; the report of another asks for no ratings. A function, since
    Snakemake takes braces in a text for wildcards.
    """
    study = study_from_spec(scale, baseline, table)
    if not rated:
        study = dataclasses.replace(study, focus=())
    return lambda wildcards: json.dumps(dataclasses.asdict(study))


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
    """The options of `python -m add.train` that are not part of a run: where the encoders' output is cached."""
    return "" if cache is None else shlex.join(["--cache", cache.directory, "--keep", *cache.keep])


def gpu_jobs(setting: Any, scale: Scale) -> int:
    """1 where the scale's jobs use a GPU, else 0: as it states, as set (`--config gpu=1`), or whether there is one."""
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


@dataclass(frozen=True)
class Compared:
    """A system and its sample directory. job: what samples it, where the table does not.

    student: the directory of the student that is sampled; None for a pretrained pipeline. identity: what decides the
    images that the job draws.
    """

    label: str
    samples: str
    student: str | None = None
    job: dict[str, Any] | None = None
    identity: Any = None

    @property
    def finished(self) -> str:
        """The file that appears once the sample set is whole."""
        return f"{self.samples}/samples.json"


@dataclass(frozen=True)
class StudyFiles:
    """All systems of a study in its order; empty where the scale has no study. Every field is a value for `params`.

    options: the design, for eval.preferences.study.make. records, keys: people's preference files and key files that
    exist now.
    """

    systems: tuple[Compared, ...] = ()
    options: str = ""
    records: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def samples(self) -> list[str]:
        """The files that must exist before anything is compared."""
        return [system.finished for system in self.systems]

    @property
    def trained(self) -> list[tuple[str, int]]:
        """(run, training seed) of every student that is compared, each once."""
        students = dict.fromkeys(Path(system.student) for system in self.systems if system.student)
        return [(s.parent.parent.name, int(s.parent.name.removeprefix("seed"))) for s in students]

    @property
    def extra(self) -> list[Compared]:
        """The systems that are sampled for the study alone."""
        return [system for system in self.systems if system.job is not None]

    @property
    def extra_samples(self) -> list[str]:
        """The files that sampling them makes."""
        return [system.finished for system in self.extra]

    @property
    def extra_students(self) -> list[str]:
        """The students that they are sampled from, each once."""
        return list(dict.fromkeys(system.student for system in self.extra if system.student))

    @property
    def extra_facts(self) -> list[str]:
        """The records of their trainings."""
        return [
            Path(student).with_name("train").joinpath("train.json").as_posix()
            for student in self.extra_students
        ]

    @property
    def identity(self) -> str:
        """What decides the images that are sampled for the study alone, as JSON in one line."""
        return json.dumps([[system.samples, system.identity] for system in self.extra])

    @property
    def jobs(self) -> str:
        """The jobs of eval.preferences.study.sources, as JSON in one line."""
        return json.dumps([system.job for system in self.extra])

    @property
    def entries(self) -> str:
        """The systems file of eval.preferences.study: name and sample directory of each, as JSON in one line."""
        return json.dumps([{"name": s.label, "samples": s.samples} for s in self.systems])


def study_plan(scale: Scale, table: Table, results: str, whole: bool = True) -> StudyFiles:
    """The scale's study as files below `results`. Raises SpecError with every unknown name.

    whole: whether the table is that of the project's folder. A study's systems are runs of that table; another table
    that lacks some of them has no ratings, and says so on stderr.
    """
    study = scale.study
    if study is None:
        return StudyFiles()
    lacking = sorted({system.run for system in study.systems if system.run} - set(table.runs))
    if lacking and not whole:
        print(f"This report has no ratings: the study compares {', '.join(lacking)}.", file=sys.stderr)
        return StudyFiles()
    raise_all(_unknown(scale, study, table))
    folder = Path(study.records)
    return StudyFiles(
        systems=tuple(_compared(scale, study, system, results) for system in study.systems),
        options=f"--raters {study.raters} --votes-per-pair {study.votes_per_pair} "
        f"--trials-per-rater {study.trials_per_rater} --seed {study.seed}{'' if study.ties else ' --no-ties'}",
        records=tuple(file.as_posix() for file in sorted(folder.glob("*.csv"))),
        keys=tuple(file.as_posix() for file in sorted(folder.glob("*.key.json"))),
    )


def _unknown(scale: Scale, study: StudySpec, table: Table) -> Iterator[SpecError]:
    """The study's references to other sections, or to the table, that lead nowhere."""
    diffusion, prompts = scale.networks.diffusion, scale.sampling.prompts
    labels = [system.label for system in study.systems]
    named: list[tuple[Loc, str | None, Collection[str], str]] = [
        (("study", "prompts"), study.prompts, prompts, "sampling.prompts has no set")
    ]
    for index, system in enumerate(study.systems):
        loc: Loc = ("study", "systems", index)
        named.append(((*loc, "run"), system.run, table.runs, "the table has no run"))
        named.append(((*loc, "pipeline"), system.pipeline, diffusion, "networks.diffusion has no"))
    for index, label in enumerate(study.focus):
        named.append((("study", "focus", index), label, labels, "no system of the study is called"))
    problems: list[tuple[Loc, str]] = [
        (loc, f"{what} '{name}'{nearest(name, known)}")
        for loc, name, known, what in named
        if name is not None and name not in known
    ]
    for index, rater in enumerate(study.automatic):
        if rater.kind == "scene_graph" and scale.evaluation.oracle is None:
            missing = "scene_graph needs evaluation.oracle, which is null"
            problems.append((("study", "automatic", index), missing))
    for loc, message in problems:
        yield SpecError(scale.origin.file, scale.origin.line(loc), f"{dotted(loc)}: {message}")


def _compared(scale: Scale, study: StudySpec, system: StudySystemSpec, results: str) -> Compared:
    folder = f"{study.prompts}-{system.steps}step"
    if system.run is not None:
        trained = f"{results}/{system.run}/seed{system.seed}"
        student = f"{trained}/student"
        if system.steps in scale.sampling.steps:
            return Compared(system.label, f"{trained}/samples/{folder}", student)
        out = f"{results}/study_samples/{system.run}-seed{system.seed}"
        job = {"system": student, "prompts": study.prompts, "steps": system.steps, "out": out}
        return Compared(system.label, f"{out}/{folder}", student, job, system.run)
    from addbench.identity import network_identity

    network = scale.networks.diffusion[system.pipeline or ""]
    given = "".join(f"-{t}" for t in system.timesteps or ())
    out = f"{results}/study_samples/{system.pipeline}-guidance{system.guidance:g}{given and f'-timesteps{given}'}"
    known = {"revision": network.revision, "sha256": network.sha256, "guidance": system.guidance}
    job = {"system": network.path, "prompts": study.prompts, **known, "steps": system.steps, "out": out}
    if network.files is not None:
        job["files"] = network.files
    if sizes := network.model_dump(include={"original_size", "target_size"}, exclude_none=True):
        job["sizes"] = sizes
    if system.timesteps is not None:
        job["timesteps"] = system.timesteps
    identity = [network_identity(scale, network), system.guidance, system.timesteps]
    return Compared(system.label, f"{out}/{folder}", None, job, identity)
