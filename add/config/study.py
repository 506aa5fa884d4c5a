"""The `study` section of a scale: which systems people and automatic raters compare, and how much."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from add.config.types import Count, Frozen, Label, Name, Seed, Sha256, Text, WeightFiles, distinct

Question = Literal["quality", "alignment"]


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
    """`systems`, by their names at a number of steps, shown to `raters` people on the prompts of the set `prompts`.

    Of a run it is the student of the scale's first training seed.

    votes_per_pair: votes for each pair and question, over all prompts (the paper: about 400, four a prompt).
    trials_per_rater: the most that one rater sees. ties: whether raters may answer that neither is better; the paper
    asks for a choice. seed: draws pairs, sides, orders and codes.

    focus: systems that the report sets against all others, as the paper's Figures 5 and 6 do. records: the
    folder of people's preference files. automatic: raters that vote on every pair, so that the report has
    something to show before anyone has voted.
    """

    prompts: Name
    systems: Annotated[tuple[Label, ...], Field(min_length=2), distinct("a system")]
    focus: Annotated[tuple[Label, ...], Field(min_length=1, max_length=2), distinct("a system")]
    raters: Count
    votes_per_pair: Count
    trials_per_rater: Count
    ties: bool = True
    seed: Seed
    records: Text
    automatic: Annotated[tuple[AutomaticRater, ...], Field(min_length=1)]

    @field_validator("automatic")
    @classmethod
    def _once(cls, value: tuple[AutomaticRater, ...]) -> tuple[AutomaticRater, ...]:
        kinds = [rater.kind for rater in value]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice: its votes would be counted twice")
        return value
