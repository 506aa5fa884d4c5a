"""What a scale's study compares, as files: which sample sets the table has, and which are sampled for it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from add.config.resolve import Table
from add.config.scale import Scale
from add.config.study import StudySpec, StudySystemSpec
from add.config.yaml import SpecError, nearest, raise_all


@dataclass(frozen=True)
class Compared:
    """A system and the sample directory that shows it. `job` samples it where the table does not.

    student: the directory of the student that is sampled, None for a pretrained pipeline.
    """

    label: str
    samples: str
    student: str | None
    job: dict[str, Any] | None

    @property
    def finished(self) -> str:
        """The file that is there once the sample set is whole."""
        return f"{self.samples}/samples.json"


@dataclass(frozen=True)
class StudyFiles:
    """All systems of a study in its order; empty where the scale has none. Every field is a value for `params`.

    records, keys: people's preference files and key files that are there now.
    """

    systems: tuple[Compared, ...] = ()
    design: StudySpec | None = None
    records: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def samples(self) -> list[str]:
        """What must be there before anything is compared."""
        return [system.finished for system in self.systems]

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
    def jobs(self) -> str:
        """The JSON that eval.preferences.sample_study works off, one line."""
        return json.dumps([system.job for system in self.extra])

    @property
    def entries(self) -> str:
        """The systems file of eval.preferences.study: name and sample directory of each, as JSON in one line."""
        return json.dumps([{"name": s.label, "samples": s.samples} for s in self.systems])

    @property
    def options(self) -> str:
        """The design, as options of eval.preferences.study.make."""
        if self.design is None:
            return ""
        design = self.design
        return (
            f"--raters {design.raters} --votes-per-pair {design.votes_per_pair} "
            f"--trials-per-rater {design.trials_per_rater} --seed {design.seed}"
        )


def study_plan(scale: Scale, table: Table, results: str) -> StudyFiles:
    """The scale's study as files below `results`. Raises SpecError with every name that is not known."""
    study = scale.study
    if study is None:
        return StudyFiles()
    raise_all(_unknown(scale, study, table))
    folder = Path(study.records)
    return StudyFiles(
        systems=tuple(_compared(scale, study, system, results) for system in study.systems),
        design=study,
        records=tuple(file.as_posix() for file in sorted(folder.glob("*.csv"))),
        keys=tuple(file.as_posix() for file in sorted(folder.glob("*.key.json"))),
    )


def _unknown(scale: Scale, study: StudySpec, table: Table) -> Iterator[SpecError]:
    """Names of other sections, or of the table, that are not there."""

    def problem(place: tuple[str | int, ...], message: str) -> SpecError:
        return SpecError(scale.origin.file, scale.origin.line(("study", *place)), message)

    prompts = scale.sampling.prompts
    if study.prompts not in prompts:
        hint = nearest(study.prompts, prompts)
        yield problem(("prompts",), f"study.prompts: sampling.prompts has no set '{study.prompts}'{hint}")
    for index, system in enumerate(study.systems):
        where = f"study.systems[{index}]"
        if system.run is not None and system.run not in table.runs:
            hint = nearest(system.run, table.runs)
            yield problem(
                ("systems", index, "run"), f"{where}.run: the table has no run '{system.run}'{hint}"
            )
        if system.pipeline is not None and system.pipeline not in scale.networks.diffusion:
            hint = nearest(system.pipeline, scale.networks.diffusion)
            message = f"{where}.pipeline: networks.diffusion has no '{system.pipeline}'{hint}"
            yield problem(("systems", index, "pipeline"), message)
    labels = [system.label for system in study.systems]
    for index, label in enumerate(study.focus):
        if label not in labels:
            message = (
                f"study.focus[{index}]: no system of the study is called '{label}'{nearest(label, labels)}"
            )
            yield problem(("focus", index), message)
    if scale.evaluation.oracle is None:
        for index, rater in enumerate(study.automatic):
            if rater.kind == "scene_graph":
                message = f"study.automatic[{index}]: scene_graph needs evaluation.oracle, which is null"
                yield problem(("automatic", index), message)


def _compared(scale: Scale, study: StudySpec, system: StudySystemSpec, results: str) -> Compared:
    folder = f"{study.prompts}-{system.steps}step"
    if system.run is not None:
        student = f"{results}/{system.run}/seed{system.seed}/student"
        if system.steps in scale.sampling.steps:
            samples = f"{results}/{system.run}/seed{system.seed}/samples/{folder}"
            return Compared(system.label, samples, student, None)
        out = f"{results}/study_samples/{system.run}-seed{system.seed}"
        job = {"system": student, "prompts": study.prompts, "steps": system.steps, "out": out}
        return Compared(system.label, f"{out}/{folder}", student, job)
    network = scale.networks.diffusion[system.pipeline or ""]
    out = f"{results}/study_samples/{system.pipeline}-guidance{system.guidance:g}"
    job = {
        "system": network.path,
        "prompts": study.prompts,
        "revision": network.revision,
        "sha256": network.sha256,
        "guidance": system.guidance,
        "steps": system.steps,
        "out": out,
    }
    if network.files is not None:
        job["files"] = network.files
    return Compared(system.label, f"{out}/{folder}", None, job)
