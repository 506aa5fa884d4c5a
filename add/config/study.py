"""The `study` section of a scale: the systems that people and automatic raters compare, and how much."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from add.config.types import Count, Frozen, Name, Positive, Seed, Sha256, Text, WeightFiles, distinct

Question = Literal["quality", "alignment"]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[^\t\r\n]*\S)?$", max_length=60)]
"""Name of a system in votes, ratings and the report. It starts with a letter or digit, so that no
spreadsheet takes it for a formula, and has no space at its end.
"""

RESERVED = ("unknown", "attention-check")
"""Names with a special meaning in preference records."""

STUDENT_STEPS = (1, 2, 4)
"""Numbers of steps that a saved student can be sampled by."""


class StudySystemSpec(Frozen):
    """One system: a run of the table (with its training `seed`), or a pretrained `pipeline` with `guidance`.

    `steps` is the number of sampling steps; `pipeline` names one of `networks.diffusion`, whose scheduler chooses the
    timesteps unless they are given.
    """

    label: Label
    run: Text | None = None
    seed: Seed | None = None
    pipeline: Name | None = None
    steps: Count
    guidance: Positive | None = None
    timesteps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None

    @field_validator("label")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"'{value}' has a special meaning in preference records; choose another name")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> StudySystemSpec:
        if (self.run is None) == (self.pipeline is None):
            raise ValueError("needs either `run` (with `seed`) or `pipeline` (with `guidance`)")
        if self.run is not None and self.seed is None:
            raise ValueError("a run needs its training `seed`")
        if self.run is not None and self.guidance is not None:
            raise ValueError("a student has no guidance; leave `guidance` out")
        if self.run is not None and self.steps not in STUDENT_STEPS:
            raise ValueError(f"a student is sampled by 1, 2 or 4 steps, not {self.steps}")
        if self.pipeline is not None and self.guidance is None:
            raise ValueError("a pipeline needs `guidance` (1.0 for none)")
        if self.timesteps is not None and self.run is not None:
            raise ValueError("a student has its own timesteps; leave `timesteps` out")
        if self.timesteps is not None and len(self.timesteps) != self.steps:
            raise ValueError(f"`timesteps` lists {len(self.timesteps)}, but `steps` is {self.steps}")
        if self.pipeline is not None and self.seed is not None:
            raise ValueError("a pipeline was not trained here; leave `seed` out")
        return self


class SceneGraphRaterSpec(Frozen):
    """Alignment by the scale's oracle: the image with more of the prompt's attributes right."""

    kind: Literal["scene_graph"]


class RealismRaterSpec(Frozen):
    """Quality by the distance of an image's features from the reference photographs'."""

    kind: Literal["realism"]


class PickScoreRaterSpec(Frozen):
    """PickScore (Kirstain et al., arXiv 2305.01569): a CLIPModel of transformers and its processor.

    It was trained on overall preference, so it gives the same answer to each of `questions`.
    """

    kind: Literal["pickscore"]
    path: Text
    revision: Text | None = None
    sha256: Sha256 | None = None
    files: WeightFiles | None = None
    processor: Text
    processor_revision: Text | None = None
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]


class Hpsv2RaterSpec(Frozen):
    """HPSv2 (Wu et al., arXiv 2306.09341): fine-tuned weights (`path`, `file`) of the open_clip `model`.

    It was trained on overall preference, so it gives the same answer to each of `questions`.
    """

    kind: Literal["hpsv2"]
    path: Text
    file: Text
    revision: Text | None = None
    sha256: Sha256 | None = None
    model: Text
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]


AutomaticRater = Annotated[
    SceneGraphRaterSpec | RealismRaterSpec | PickScoreRaterSpec | Hpsv2RaterSpec, Field(discriminator="kind")
]


class StudySpec(Frozen):
    """`systems` shown to `raters` people on the prompts of the set `prompts`.

    votes_per_pair: votes for each pair and question, over all prompts (the paper: about 400, four a prompt).
    trials_per_rater: the most that one rater sees. ties: whether raters may answer that neither is better; the paper
    asks for a choice. seed: draws pairs, sides, orders and codes.

    focus: systems that the report sets against all others, as the paper's Figures 5 and 6 do. records: the
    folder of people's preference files. automatic: raters that vote on every pair, so that the report has
    something to show before anyone has voted.
    """

    prompts: Name
    systems: Annotated[tuple[StudySystemSpec, ...], Field(min_length=2)]
    focus: Annotated[tuple[Label, ...], Field(min_length=1, max_length=2), distinct("a system")]
    raters: Count
    votes_per_pair: Count
    trials_per_rater: Count
    ties: bool = True
    seed: Seed
    records: Text
    automatic: Annotated[tuple[AutomaticRater, ...], Field(min_length=1)]

    @field_validator("systems")
    @classmethod
    def _distinct(cls, value: tuple[StudySystemSpec, ...]) -> tuple[StudySystemSpec, ...]:
        seen: dict[str, int] = {}
        for index, system in enumerate(value):
            if (first := seen.setdefault(system.label, index)) != index:
                raise ValueError(f"entries {first + 1} and {index + 1} are both called '{system.label}'")
        made: dict[tuple[object, ...], str] = {}
        for system in value:
            key = (system.run, system.seed, system.pipeline, system.steps, system.guidance, system.timesteps)
            if (other := made.setdefault(key, system.label)) != system.label:
                raise ValueError(f"'{other}' and '{system.label}' are the same system")
        return value

    @field_validator("automatic")
    @classmethod
    def _once(cls, value: tuple[AutomaticRater, ...]) -> tuple[AutomaticRater, ...]:
        kinds = [rater.kind for rater in value]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice: its votes would be counted twice")
        return value
