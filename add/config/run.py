"""Variants, ablations and runs as typed, strict settings.

A *variant* holds what the paper's Table 1 varies. A *scale* (`add.config.scale`) is everything else that training and
scoring need. An *ablation* is one question (a sub-table) as changes to the baseline variant. A *run* is one variant at
one scale, fully resolved. Keys in the YAML files are the attribute names here. `add.config.load` reads the files,
`add.config.resolve` combines them.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, model_validator

from add.config.scale import DiffusionNetworkSpec, NetworksSpec
from add.config.training import RunDataSpec, TrainingSpec
from add.config.types import Document, Frozen, Line, Name, NonNegative, Positive, StepCount, Text, distinct

Given = Literal["own", "shuffled", "constant"]
Reduction = Literal["positions", "mean", "sum"]
MeanWeight = Literal["own", "exponential"]


class DiscriminatorSpec(Frozen):
    """The discriminator's frozen features and conditioning; `r1_gamma` weighs R1, the paper's gamma.

    given: the c that the heads are told of a sample: its `own`, or for a control one of another sample (`shuffled`) or
    one `constant` vector, which tell what c says apart from what the conditional head's form does.
    """

    features: Name
    conditioning: Annotated[
        tuple[Literal["text", "image"], ...],
        distinct("a condition"),
        AfterValidator(
            lambda names: tuple(sorted(names, reverse=True))
        ),  # text first, however it was written
    ]
    given: Given = "own"
    r1_gamma: NonNegative

    @model_validator(mode="after")
    def _something_is_given(self) -> DiscriminatorSpec:
        if self.given != "own" and not self.conditioning:
            raise ValueError(f"given: {self.given} changes nothing without a condition; state conditioning")
        return self


class LossSpec(Frozen):
    """adversarial * L_adv + distillation_weight (lambda) * L_distill, with L_distill in pixel or latent `space`.

    reduction: of the squared distance of one sample, without which lambda has no meaning and which the paper does not
    publish: its `sum`, its `mean` over all elements, or its sum over channels and pixels by latent `positions`.
    mean_weight: the weight c(t) as it is (`own`), or times the number that gives it the mean of the exponential weight
    over the timesteps drawn. The paper's c(t) differ in their mean too, as a larger lambda does.
    """

    adversarial: NonNegative
    distillation: Literal["none", "exponential", "sds", "nfsd"]
    distillation_weight: NonNegative
    space: Literal["pixel", "latent"]
    reduction: Reduction = "positions"
    mean_weight: MeanWeight = "own"

    @model_validator(mode="after")
    def _trains(self) -> LossSpec:
        if self.adversarial == 0 and (self.distillation == "none" or self.distillation_weight == 0):
            raise ValueError(
                "neither an adversarial nor a distillation term: nothing would train the student"
            )
        return self


class Variant(Document):
    """One variant of the method: what Table 1 varies, and the two weights that the paper states."""

    student: Name
    teacher: Name
    student_init: Literal["pretrained", "random"]
    discriminator: DiscriminatorSpec
    loss: LossSpec
    teacher_steps: StepCount


class PublishedSpec(Frozen):
    """Published numbers of a row: FID, and CLIP score as mean cosine."""

    fid: Positive | None = None
    clip_score: Annotated[float, Field(ge=-1, le=1)] | None = None

    @model_validator(mode="after")
    def _something(self) -> PublishedSpec:
        if self.fid is None and self.clip_score is None:
            raise ValueError("gives neither fid nor clip_score; leave `published` out")
        return self


class RowSpec(Frozen):
    """One row and its changes `set` (dotted keys of Variant, or `training.<key>`); without them, the baseline."""

    label: Line
    set: dict[str, Any] = Field(default_factory=dict)
    published: PublishedSpec | None = None

    @property
    def slug(self) -> str:
        """The label as part of a path: lower-case ASCII letters and digits, joined by single hyphens."""
        plain = unicodedata.normalize("NFKD", self.label).encode("ascii", "ignore").decode().lower()
        return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


MetricName = Literal[
    "fid",
    "kid",
    "cmmd",
    "clip_score",
    "alignment",
    "precision",
    "recall",
    "density",
    "coverage",
    "vendi_score",
]
"""Every metric that evaluation knows; `eval.metrics.catalogue` says what each is."""
Relation = Literal["better", "worse", "best", "equivalent", "not_better"]


class FindingSpec(Frozen):
    """A claim about rows of this file, which the report tests: `rows` are `relation` than each of `than`.

    claim: in words. section: where it is made. steps: of the student. relation: `best` is better than all other rows;
    `not_better` allows a gain of less than the margin, `equivalent` a difference of less. margin: a difference that
    does not count, of FID as a fraction (0.05 is 5%), otherwise as it is; unset: 5% of FID, 0.005 in CLIP score, 0.001
    in KID, 0.02 in all others.
    """

    claim: Text
    section: Text | None = None
    metric: MetricName
    steps: StepCount = 1
    rows: Annotated[tuple[Text, ...], Field(min_length=1), distinct("a row")]
    relation: Relation
    than: Annotated[tuple[Text, ...], distinct("a row")] = ()
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _compares(self) -> FindingSpec:
        if (self.relation == "best") == bool(self.than):
            raise ValueError(
                "`best` is better than all other rows, without `than`; any other relation needs it"
            )
        return self


class Ablation(Document):
    """One question, one sub-table, and what is claimed of it. The report sorts sub-tables by `part`.

    note: what a reader must know of the sub-table, a sentence or two; the report prints it below the table.
    """

    part: Annotated[str, Field(pattern=r"^[a-z]$")]
    question: Text
    source: Text | None = None
    note: Text | None = None
    rows: Annotated[tuple[RowSpec, ...], Field(min_length=1)]
    findings: tuple[FindingSpec, ...] = ()

    @property
    def name(self) -> str:
        """The file's stem: the first half of its runs' names."""
        return Path(self.origin.file).stem


class Trained(Protocol):
    """What every training states, ADD's (`Run`) and a rival's: how it trains, with which networks, on which data."""

    @property
    def training(self) -> TrainingSpec:
        """How it trains."""

    @property
    def networks(self) -> NetworksSpec:
        """The networks that it loads, and no others."""

    @property
    def data(self) -> RunDataSpec:
        """What it trains on."""

    def model_dump(self, *, mode: str = "python", exclude: set[str] | None = None) -> dict[str, Any]:
        """All values, as pydantic gives them."""


class Run(Frozen):
    """One training run, fully resolved: everything that decides its weights except the training seed."""

    name: str
    variant: Variant
    training: TrainingSpec
    networks: NetworksSpec
    data: RunDataSpec

    @property
    def student(self) -> DiffusionNetworkSpec:
        """The student's pretrained network."""
        return self.networks.diffusion[self.variant.student]

    @property
    def teacher(self) -> DiffusionNetworkSpec:
        """The teacher's network. Raises KeyError where nothing is distilled: such a run has none."""
        return self.networks.diffusion[self.variant.teacher]
