"""One preference record: a rater saw two images for a prompt, was asked a question, and chose.

docs/preferences.md is the same schema for people. Nothing here imports more than the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Question = Literal["quality", "alignment"]
Winner = Literal["a", "b", "tie"]
RaterKind = Literal["human", "model", "oracle"]
Side = Literal["a", "b", "none"]
Expected = Literal["no", "a", "b"]

QUESTIONS: tuple[Question, ...] = get_args(Question)
WINNERS: tuple[Winner, ...] = get_args(Winner)
RATER_KINDS: tuple[RaterKind, ...] = get_args(RaterKind)

UNKNOWN = "unknown"
"""What `time`, `image_a` and `image_b` hold where a foreign file does not say; no other column may hold it."""


@dataclass(frozen=True)
class Vote:
    """One row of a preference file. `line` is where it stood (1-based; 0 for a vote that came from no file).

    prompt: as shown, byte for byte. system_a, system_b: two different systems; which is a and which is b says
    nothing. image_a, image_b: ids of the images shown. winner: a, b or tie, of the systems, not of the sides.
    shown_left: the system that stood on the left; none for raters that see no sides, or where it is not known.
    time: ISO 8601 in UTC with a Z, to the second or finer. attention_check: no, or the system that any attentive
    rater prefers; such votes judge the rater and enter no rating. study: id of the study, as the page states it.
    """

    prompt_id: str
    prompt: str
    system_a: str
    system_b: str
    image_a: str
    image_b: str
    question: Question
    winner: Winner
    rater: str
    rater_kind: RaterKind
    shown_left: Side
    time: str
    attention_check: Expected
    study: str
    line: int = 0

    @property
    def passed(self) -> bool:
        """Whether an attention check was answered as expected. Raises ValueError for any other vote."""
        if self.attention_check == "no":
            raise ValueError("this vote is no attention check")
        return self.winner == self.attention_check

    @property
    def comparison(self) -> tuple[object, ...]:
        """What a rater may answer only once: the same two images, in either order, on one prompt and question."""
        pair = frozenset(((self.system_a, self.image_a), (self.system_b, self.image_b)))
        return self.study, self.rater_kind, self.rater, self.question, self.prompt_id, pair


COLUMNS = tuple(name for name in Vote.__dataclass_fields__ if name != "line")
"""The header of a preference file, in order."""
