"""A system, systems/<scale>/<name>.yaml: whatever turns prompts and seeds into images, or the figures of one.

Its file gives it one name; with a number of steps, that name stands in every table, figure, study and vote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from add.config.load import load_folder
from add.config.resolve import Finding
from add.config.run import MetricName
from add.config.scale import NetworkSpec
from add.config.types import (
    Count,
    Document,
    Frozen,
    Increasing,
    Label,
    Name,
    Positive,
    Sha256,
    Text,
    WeightFiles,
    distinct,
)
from add.config.yaml import SpecError, nearest, raise_all

RESERVED = ("unknown", "attention-check")
"""Names with a special meaning in preference records."""

STUDENT_STEPS = (1, 2, 4)
"""Numbers of steps that a saved student can be sampled by."""

Dtype = Literal["float32", "bfloat16", "float16"]
Kind = Literal["run", "rival", "network", "pipeline", "images", "statistics", "published"]
_SAMPLER = ("guidance", "scheduler", "spacing", "timesteps", "dtype")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "run": (),
    "rival": ("teacher", "training"),
    "network": _SAMPLER,
    "pipeline": (*_SAMPLER, "revision", "sha256", "files", "resolution", "unet", "adapter", "then"),
    "images": ("prompts",),
    "statistics": ("count",),
    "published": (),
}
"""What each kind may state besides label, steps and figures from elsewhere."""


def _at(value: Any) -> Any:
    """A network of its path alone."""
    return {"path": value} if isinstance(value, str) else value


_Part = Annotated[NetworkSpec, BeforeValidator(_at, json_schema_input_type=Text | NetworkSpec)]


class StageSpec(NetworkSpec):
    """A pipeline that draws over the images of the one before it, by `steps` steps: an upscaler, a refiner.

    noise_level, strength: how much noise it adds to them first, as the pipeline's own arguments of these names; unset,
    the pipeline's own hold.
    """

    steps: Count
    guidance: Positive
    noise_level: Annotated[int, Field(ge=0)] | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None


class SystemSource(NetworkSpec):
    """A pipeline to sample: where it is, which weights it must have, and how it samples (`eval.system`).

    unet: another UNet in the place of its own. adapter: a LoRA that is merged into it. then: the pipelines after it.
    """

    unet: NetworkSpec | None = None
    adapter: NetworkSpec | None = None
    then: tuple[StageSpec, ...] = ()
    guidance: Positive = 1.0
    scheduler: Text | None = None
    spacing: Text | None = None
    timesteps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    dtype: Dtype | None = None
    resolution: Count | None = None
    sizes: dict[Literal["original_size", "target_size"], Count] = Field(default_factory=dict)


class FiguresSpec(Frozen):
    """Figures by `steps` steps that somebody else measured: FID, CLIP score as mean cosine, seconds an image."""

    steps: Count
    source: Text
    fid: Positive | None = None
    clip_score: Annotated[float, Field(ge=-1, le=1)] | None = None
    seconds: Positive | None = None

    @model_validator(mode="after")
    def _something(self) -> FiguresSpec:
        if self.fid is self.clip_score is self.seconds is None:
            raise ValueError("gives no figure: state fid, clip_score or seconds")
        return self


class SystemFindingSpec(Frozen):
    """A claim about systems by their own numbers of steps, which the report tests.

    rows are `relation` than each of `than`; both name systems of the folder by label and steps, as tables do ("ADD, 4
    steps"). The rest is as in an ablation's findings (`add.config.run.FindingSpec`).
    """

    claim: Text
    section: Text | None = None
    metric: MetricName
    rows: Annotated[tuple[Text, ...], Field(min_length=1), distinct("a system")]
    relation: Literal["better", "worse", "equivalent", "not_better"]
    than: Annotated[tuple[Text, ...], Field(min_length=1), distinct("a system")]
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None


class SystemSpec(Document):
    """One system at each number of `steps`; one of the next six keys says what it is.

    run: a run of the table, at each of its training seeds. rival: another method's settings (`baselines.spec`), trained
    at each of the scale's seeds from the network `teacher`; `training` changes values of the scale's. network: one of
    the scale's `networks.diffusion`. pipeline: any diffusers pipeline, by hub id (with its `revision`) or directory;
    `sha256` and `files` are its weights', as `NetworkSpec` has them. These two need `guidance` (1.0 for none);
    `scheduler` is a class of diffusers or RectifiedFlowScheduler (`eval.flow`), `spacing` its timestep spacing,
    `timesteps` names them all; unset, the pipeline's own hold. `dtype`: unset, the scale's. `resolution`: of the images
    that are drawn, in pixels; larger ones are downsampled to the scale's. `unet` and `adapter` (a LoRA), by id or
    directory or as `NetworkSpec`, change what a pipeline is; `then` lists pipelines that draw over its images.

    images: by prompt set, a folder of images that were made elsewhere by `steps` steps. `prompts`: by prompt set, the
    file that says which image is whose (`eval.handed_in`); unset: the folder's index.csv.

    statistics: a .npz of mean and covariance of FID's features, by the one prompt set that its images were made for;
    `count`: how many images. There is FID of them alone.

    published: figures of the paper, elsewhere: of others. Both are printed beside the measured ones, and never ranked
    with them. A system that is none of these has these figures alone. findings: what is claimed of it, and of others.
    """

    label: Label
    steps: Annotated[tuple[Count, ...], Field(min_length=1), Increasing]
    run: Text | None = None
    rival: dict[str, Any] | None = None
    teacher: Name | None = None
    training: dict[str, Any] | None = None
    network: Name | None = None
    pipeline: Text | None = None
    images: Annotated[dict[Name, Text], Field(min_length=1)] | None = None
    statistics: Annotated[dict[Name, Text], Field(min_length=1, max_length=1)] | None = None
    count: Count | None = None
    revision: Text | None = None
    sha256: Sha256 | None = None
    files: WeightFiles | None = None
    guidance: Positive | None = None
    scheduler: Annotated[str, Field(pattern=r"^[A-Z]\w*Scheduler$")] | None = None
    spacing: Literal["leading", "linspace", "trailing"] | None = None
    timesteps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    dtype: Dtype | None = None
    resolution: Count | None = None
    unet: _Part | None = None
    adapter: _Part | None = None
    then: Annotated[tuple[StageSpec, ...], Field(min_length=1)] | None = None
    prompts: dict[Name, Text] | None = None
    published: tuple[FiguresSpec, ...] | None = None
    elsewhere: tuple[FiguresSpec, ...] | None = None
    findings: tuple[SystemFindingSpec, ...] = ()

    @field_validator("label")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"'{value}' has a special meaning in preference records; choose another name")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> SystemSpec:
        kinds = [kind for kind in _SETTINGS if kind != "published" and getattr(self, kind) is not None]
        if len(kinds) > 1:
            raise ValueError(f"is both a {kinds[0]} and a {kinds[1]}; keep one of the two keys")
        if not kinds and self.published is None and self.elsewhere is None:
            raise ValueError(
                "needs one of `run`, `rival`, `network`, `pipeline`, `images` and `statistics`, or `published` figures"
            )
        every = {name for names in _SETTINGS.values() for name in names}
        for name in sorted(every - set(_SETTINGS[self.kind])):
            if getattr(self, name) is not None:
                raise ValueError(f"{_WORDS[self.kind]} has no `{name}`; leave it out")
        if "guidance" in _SETTINGS[self.kind] and self.guidance is None:
            raise ValueError(f"a {self.kind} needs `guidance` (1.0 for none)")
        if self.rival is not None and (self.teacher is None or self.training is None):
            raise ValueError("a rival needs its `teacher` and `training` ({} for the scale's)")
        if self.run is not None and (wrong := [k for k in self.steps if k not in STUDENT_STEPS]):
            raise ValueError(f"a student is sampled by 1, 2 or 4 steps, not {wrong[0]}")
        if self.timesteps is not None and self.steps != (len(self.timesteps),):
            raise ValueError(f"`timesteps` lists {len(self.timesteps)}, but `steps` is {list(self.steps)}")
        if self.timesteps is not None and list(self.timesteps) != sorted({*self.timesteps}, reverse=True):
            raise ValueError(f"`timesteps` go down, from noise to the image, not {list(self.timesteps)}")
        if self.timesteps is not None and self.spacing is not None:
            raise ValueError("`timesteps` names them all; leave `spacing` out")
        if self.images is not None and len(self.steps) > 1:
            raise ValueError("a folder's images were made by one number of steps; give each number a file")
        if self.statistics is not None and (self.count is None or len(self.steps) > 1):
            raise ValueError("statistics need the `count` of their images, and one number of steps")
        for key in ("published", "elsewhere"):
            by = [figures.steps for figures in getattr(self, key) or ()]
            if others := sorted(set(by) - set(self.steps)):
                raise ValueError(f"`{key}` has figures by {others[0]} steps, which `steps` does not list")
            if len(set(by)) < len(by):
                raise ValueError(f"`{key}` has two entries for one number of steps")
        if unknown := sorted(set(self.prompts or ()) - set(self.images or ())):
            raise ValueError(f"`prompts` names {unknown[0]}, of which `images` has no folder")
        return self

    @property
    def kind(self) -> Kind:
        """What says what it is."""
        kinds: tuple[Kind, ...] = ("run", "rival", "network", "pipeline", "images", "statistics")
        return next((kind for kind in kinds if getattr(self, kind) is not None), "published")

    @property
    def parts(self) -> dict[str, NetworkSpec]:
        """What a pipeline has besides its own weights, by key."""
        stated = {"unet": self.unet, "adapter": self.adapter}
        return {key: value for key, value in stated.items() if value is not None}

    @property
    def name(self) -> str:
        """The file's stem, which names its results."""
        return Path(self.origin.file).stem

    def name_at(self, steps: int) -> str:
        """Its name in votes and tables: the label and the number of steps."""
        return f"{self.label}, {steps} step{'s' * (steps > 1)}"


_WORDS: dict[str, str] = {
    "run": "a student",
    "rival": "a rival",
    "network": "a network",
    "pipeline": "a pipeline",
    "images": "a folder of images",
    "statistics": "a file of statistics",
    "published": "a system of published figures",
}


def load_systems(directory: str | Path | None) -> tuple[SystemSpec, ...]:
    """Every YAML of `directory`, by name; none without a directory. Raises SpecError with all files' problems."""
    if directory is None:
        return ()
    systems, problems = load_folder(SystemSpec, directory, r"[a-z0-9][a-z0-9_]*", "results")
    problems += _twice(systems)
    raise_all(problems)
    raise_all(_unknown_systems(systems))
    return tuple(systems)


def system_findings(systems: Sequence[SystemSpec]) -> tuple[Finding, ...]:
    """What the files of systems claim, in their order, as the page of claims reads it."""
    published = {
        (system.name_at(figures.steps), metric): value
        for system in systems
        for figures in system.published or ()
        for metric in ("fid", "clip_score")
        if (value := getattr(figures, metric)) is not None
    }
    return tuple(
        Finding(
            part="systems",
            claim=finding.claim,
            section=finding.section,
            metric=finding.metric,
            steps=None,
            rows=finding.rows,
            relation=finding.relation,
            others=finding.than,
            margin=finding.margin,
            published={label: v for (label, metric), v in published.items() if metric == finding.metric},
            place=f"{system.origin.file}:{system.origin.line(('findings', index))}",
        )
        for system in systems
        for index, finding in enumerate(system.findings)
    )


def _unknown_systems(systems: Sequence[SystemSpec]) -> Iterator[SpecError]:
    """Claims about systems that no file describes, or of which nothing is measured."""
    kinds = {system.name_at(steps): system.kind for system in systems for steps in system.steps}
    for system in systems:
        for index, finding in enumerate(system.findings):
            for key in ("rows", "than"):
                for place, label in enumerate(getattr(finding, key)):
                    loc = ("findings", index, key, place)
                    if label not in kinds:
                        message = f"{key}: no file has the system '{label}'{nearest(label, kinds)}"
                        yield system.origin.error(loc, message)
                    elif kinds[label] == "published":
                        message = (
                            f"{key}: of '{label}' there are published figures alone: nothing is measured"
                        )
                        yield system.origin.error(loc, message)
            if both := sorted(set(finding.rows) & set(finding.than)):
                message = f"than: '{both[0]}' would be compared with itself"
                yield system.origin.error(("findings", index, "than"), message)


def _twice(systems: list[SystemSpec]) -> Iterator[SpecError]:
    """Labels, and systems, that are there twice."""
    labels: dict[str, SystemSpec] = {}
    made: dict[str, SystemSpec] = {}
    for system in systems:
        if (first := labels.setdefault(system.label, system)) is not system:
            message = f"label: '{system.label}' is already the label of {first.origin.file}"
            yield system.origin.error(("label",), message)
        what = system.model_dump_json(exclude={"label", "published", "elsewhere", "findings"})
        if system.kind != "published" and (other := made.setdefault(what, system)) is not system:
            yield system.origin.error((), f"is the same system as {other.origin.file}")
