"""Which runs does the table need? Combines a scale, the baseline and every row into fully stated runs.

A pure function of values: comments, key order, number notation and file positions never reach a `Run`, and
rows that resolve to the same values are one run (Table 1: 22 cells, 17 runs).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import getitem
from typing import Any, Literal

from pydantic import BaseModel

from add.config.load import BASELINE
from add.config.run import Ablation, MetricName, PublishedSpec, RowSpec, Run, Variant
from add.config.scale import NetworksSpec, Scale
from add.config.training import RunDataSpec, TrainingSpec
from add.config.types import Frozen
from add.config.yaml import Loc, SpecError, dotted, nearest, raise_all, validated


@dataclass(frozen=True)
class Cell:
    """One row of one sub-table, the run that fills it, and its file and line. `overrides`: the keys it sets."""

    part: str
    question: str
    source: str | None
    note: str | None
    label: str
    published: PublishedSpec | None
    run: str
    is_default: bool
    overrides: tuple[str, ...]
    file: str
    line: int


@dataclass(frozen=True)
class Finding:
    """A claim with its rows' runs: `rows` are `relation` than each of `others`.

    steps: None where the rows are systems, each by its own number of steps (`add.config.system`). published: the values
    that are published for the metric, by row. place: its file and line.
    """

    part: str
    claim: str
    section: str | None
    metric: MetricName
    steps: int | None
    rows: tuple[str, ...]
    relation: Literal["better", "worse", "equivalent", "not_better"]
    others: tuple[str, ...]
    margin: float | None
    published: Mapping[str, float]
    place: str


@dataclass(frozen=True)
class Table:
    """All cells, ordered by part and row, and all runs by name, in the order of first use; what is claimed of them.

    The baseline is always a run, and the first: every other run is compared with it.
    """

    cells: tuple[Cell, ...]
    runs: Mapping[str, Run]
    findings: tuple[Finding, ...] = ()

    def cells_of(self, run: str) -> tuple[Cell, ...]:
        """The cells that one run fills."""
        return tuple(cell for cell in self.cells if cell.run == run)


def resolve(scale: Scale, baseline: Variant, ablations: tuple[Ablation, ...]) -> Table:
    """Combines one scale, the baseline and all ablations. Raises SpecError with the problems of every row."""
    runs: dict[str, Run] = {}
    names: dict[str, str] = {}  # canonical values -> the name of the run that has them
    cells: list[Cell] = []
    problems: list[SpecError] = []
    try:
        runs[BASELINE] = _Candidate(scale, baseline, BASELINE, RowSpec(label=BASELINE)).run()
        names[_canonical(runs[BASELINE])] = BASELINE
    except SpecError as error:
        problems.append(error)
    for ablation in ablations:
        for index, row in enumerate(ablation.rows):
            name = f"{ablation.name}-{row.slug}"
            try:
                run = _Candidate(scale, baseline, name, row, ablation, index, BASELINE in runs).run()
            except SpecError as error:
                problems.append(error)
                continue
            name = names.setdefault(_canonical(run), name)
            runs.setdefault(name, run)
            cells.append(
                Cell(
                    part=ablation.part,
                    question=ablation.question,
                    source=ablation.source,
                    note=ablation.note,
                    label=row.label,
                    published=row.published,
                    run=name,
                    is_default=name == BASELINE,
                    overrides=tuple(row.set),
                    file=ablation.origin.file,
                    line=ablation.origin.line(("rows", index)),
                )
            )
    raise_all(problems)
    findings = tuple(_findings(ablations, scale, cells, problems))
    raise_all(problems)
    return Table(tuple(cells), runs, findings)


def _findings(
    ablations: tuple[Ablation, ...], scale: Scale, cells: list[Cell], problems: list[SpecError]
) -> Iterator[Finding]:
    for ablation in ablations:
        rows = {cell.label: cell for cell in cells if cell.part == ablation.part}
        for index, finding in enumerate(ablation.findings):
            best = finding.relation == "best"
            runs = tuple(rows[label].run for label in finding.rows)
            # Another row with the values of one of these is no other.
            than = [label for label in rows if rows[label].run not in runs] if best else finding.than
            others = tuple(rows[label].run for label in than)
            error = partial(_finding_error, ablation, index)
            if finding.steps not in scale.sampling.steps:
                asked = ", ".join(map(str, scale.sampling.steps))
                problems.append(
                    error("steps", f"{scale.origin.file} samples at {asked}, not at {finding.steps}")
                )
            published = {
                cell.run: value
                for cell in rows.values()
                if cell.published and (value := getattr(cell.published, finding.metric, None)) is not None
            }
            yield Finding(
                part=ablation.part,
                claim=finding.claim,
                section=finding.section,
                metric=finding.metric,
                steps=finding.steps,
                rows=runs,
                relation="better" if finding.relation == "best" else finding.relation,
                others=others,
                margin=finding.margin,
                published=published if finding.steps == 1 else {},
                place=f"{ablation.origin.file}:{ablation.origin.line(('findings', index))}",
            )


def _finding_error(ablation: Ablation, index: int, key: str, message: str) -> SpecError:
    return ablation.origin.error(("findings", index, key), f"{key}: {message}")


OF_THE_SCALE = {
    "training.seeds": "every run is repeated with the same seeds",
    "training.device": "the workflow gives a GPU to all of its jobs or to none",
}
"""Settings that no row may change, and why."""


def override_keys() -> tuple[str, ...]:
    """Every key that a row may set."""
    keys = (*_leaves(Variant), *(f"training.{key}" for key in _leaves(TrainingSpec)))
    return tuple(key for key in keys if key not in OF_THE_SCALE)


class _Values(Frozen):
    """What a row may change."""

    variant: Variant
    training: TrainingSpec


@dataclass(frozen=True)
class _Candidate:
    """One row before it is resolved to a run, with the origin of every value for error messages."""

    scale: Scale
    baseline: Variant
    name: str
    row: RowSpec
    ablation: Ablation | None = None
    index: int = 0
    baseline_resolves: bool = False
    """If so, every problem is the row's fault, even one in a value that the row does not set."""

    def run(self) -> Run:
        """The run. Raises SpecError with every problem that this row has."""
        raise_all(self._unknown_overrides())
        training = self.scale.training.model_dump(exclude={"seeds"})
        values: dict[str, Any] = {"variant": self.baseline.model_dump(), "training": training}
        for key, value in self.row.set.items():
            *path, last = _loc(key)
            reduce(getitem, path, values)[last] = value
        made = validated(_Values, values, lambda loc, message: self._error((loc,), message), _key)
        clashes = conflicts(self.scale, made.variant, made.training)
        raise_all(self._error(locs, f"{_key(locs[0])}: {text}") for locs, text in clashes)
        networks = used(made.variant, self.scale.networks)
        data = RunDataSpec(train=self.scale.data.train)
        return Run(name=self.name, variant=made.variant, training=made.training, networks=networks, data=data)

    def _unknown_overrides(self) -> Iterator[SpecError]:
        known = override_keys()
        for key in self.row.set:
            if key in known:
                continue
            if key in OF_THE_SCALE:
                message = f"{key} is the scale's alone: {OF_THE_SCALE[key]}"
            elif below := [other for other in known if other.startswith(f"{key}.")]:
                message = f"'{key}' is a section; set one of {', '.join(below)}"
            else:
                message = f"unknown key '{key}'{nearest(key, known)}"
            yield self._error((_loc(key),), f"set: {message}")

    def _error(self, locs: tuple[Loc, ...], message: str) -> SpecError:
        """The error at the values at `locs` of the run: in the row, if the row sets one of them."""
        if self.ablation is not None:
            origin, row = self.ablation.origin, ("rows", self.index, "set")
            for loc, key in itertools.product(locs, self.row.set):
                override = _loc(key)
                if override[: len(loc)] == loc or loc[: len(override)] == override:
                    return origin.error((*row, key), message)
            if self.baseline_resolves:
                return origin.error(row, message)
        if locs[0][0] == "variant":
            return self.baseline.origin.error(locs[0][1:], message)
        return self.scale.origin.error(locs[0], message)


def _canonical(run: Run) -> str:
    return json.dumps(run.model_dump(mode="json", exclude={"name"}), sort_keys=True, separators=(",", ":"))


def _loc(key: str) -> tuple[str, ...]:
    """A key as rows write it as a place in a resolved run."""
    parts = tuple(key.split("."))
    return parts if parts[0] == "training" else ("variant", *parts)


def _key(loc: Loc) -> str:
    """The inverse of `_loc`."""
    return dotted(loc[1:] if loc[:1] == ("variant",) else loc)


def _leaves(model: type[BaseModel]) -> Iterator[str]:
    for name, declared in model.model_fields.items():
        inner = declared.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{name}.{leaf}" for leaf in _leaves(inner))
        else:
            yield name


Conflict = tuple[tuple[Loc, ...], str]
"""The places in a run whose values clash, and the message about the first of them."""


def conflicts(scale: Scale, variant: Variant, training: TrainingSpec) -> Iterator[Conflict]:
    """Contradictions between values that are each valid on their own."""
    yield from _missing_networks(scale, variant)
    yield from _latents(scale, variant)
    yield from _vanishing_delta(variant, training)
    yield from _no_other_sample(variant, training)
    trained, asked = len(training.student_timesteps), max(scale.sampling.steps)
    if asked > trained:
        message = f"{trained} timesteps are trained, but the scale's sampling.steps asks for {asked} steps"
        yield (("training", "student_timesteps"),), message


def _vanishing_delta(variant: Variant, training: TrainingSpec) -> Iterator[Conflict]:
    """NFSD without its delta_D is no NFSD: the direction is guidance alone."""
    nfsd, lowest = training.nfsd, training.distillation_timesteps[0] // variant.teacher_steps
    if variant.loss.distillation == "nfsd" and not nfsd.negative_prompt and lowest >= nfsd.threshold:
        message = (
            f"nfsd's delta_D is zero for every sample: without a negative prompt it is above the threshold of "
            f"{nfsd.threshold}, and the teacher's last timestep is never below {lowest}; state "
            "training.nfsd.negative_prompt, or let training.distillation_timesteps begin below the threshold"
        )
        places = ("nfsd", "negative_prompt"), ("nfsd", "threshold"), ("distillation_timesteps",)
        yield (("variant", "loss", "distillation"), *(("training", *place) for place in places)), message


def _no_other_sample(variant: Variant, training: TrainingSpec) -> Iterator[Conflict]:
    """The c of another sample of a virtual batch, where one of them has no other sample."""
    samples = training.batch // training.accumulate
    groups = -(-samples // training.virtual_batch)
    if variant.discriminator.given == "shuffled" and samples // groups < 2:
        message = (
            f"shuffled gives a sample the c of the next one of its virtual batch, and of the {samples} samples that a "
            f"step takes at once in virtual batches of {training.virtual_batch} some are alone: lower "
            "training.accumulate, or raise training.virtual_batch"
        )
        places = ("training", "accumulate"), ("training", "virtual_batch")
        yield (("variant", "discriminator", "given"), *places), message


def used(variant: Variant, networks: NetworksSpec) -> NetworksSpec:
    """Only the networks that training this variant loads."""
    distils, judged = variant.loss.distillation != "none", variant.loss.adversarial > 0
    diffusion = {variant.student, variant.teacher} if distils else {variant.student}
    features = {variant.discriminator.features} if judged else set()
    conditioning = variant.discriminator.conditioning if judged else ()
    return NetworksSpec(
        diffusion={name: networks.diffusion[name] for name in sorted(diffusion)},
        features={name: networks.features[name] for name in sorted(features)},
        c_text=networks.c_text if "text" in conditioning else None,
        c_img=networks.c_img if "image" in conditioning else None,
    )


def _missing_networks(scale: Scale, variant: Variant) -> Iterator[Conflict]:
    networks, discriminator = scale.networks, variant.discriminator
    chosen: tuple[tuple[Loc, str, Mapping[str, Any], str], ...] = (
        (("student",), "diffusion", networks.diffusion, variant.student),
        (("teacher",), "diffusion", networks.diffusion, variant.teacher),
        (("discriminator", "features"), "feature", networks.features, discriminator.features),
    )
    for loc, kind, known, name in chosen:
        if name not in known:
            message = f"the scale '{scale.name}' has no {kind} network '{name}'{nearest(name, known)}"
            yield (("variant", *loc),), message
    projections = {"text": ("c_text", networks.c_text), "image": ("c_img", networks.c_img)}
    for condition in discriminator.conditioning:
        key, network = projections[condition]
        if network is None:
            message = f"'{condition}' needs networks.{key}, which the scale '{scale.name}' lacks"
            yield (("variant", "discriminator", "conditioning"),), message


def _latents(scale: Scale, variant: Variant) -> Iterator[Conflict]:
    """A distance in latent space needs one latent space."""
    student, teacher = (scale.networks.diffusion.get(name) for name in (variant.student, variant.teacher))
    if variant.loss.space != "latent" or variant.loss.distillation == "none" or not student or not teacher:
        return
    if variant.student == variant.teacher or (student.latents and student.latents == teacher.latents):
        return
    message = (
        "a latent-space distance between two VAEs is not defined: "
        f"the student '{variant.student}' has latents {student.latents or 'not stated'}, "
        f"the teacher '{variant.teacher}' {teacher.latents or 'not stated'}; "
        "use pixel, or two networks of one VAE (which the scale says by equal `latents`)"
    )
    yield (("variant", "loss", "space"), ("variant", "teacher"), ("variant", "student")), message
