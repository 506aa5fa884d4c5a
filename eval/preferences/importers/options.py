"""What a person must say about a foreign file, because the file does not: the options of `import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Options:
    """None: not given. A value that the file also states is refused, and so is one that neither states.

    rater_column, prompt_column, prompt_id_column: read the value from this column of the file.
    row_is: each row is another prompt, or another rater, and is named by its line; for files without either.
    shown_left: the side that stood on the left, where the file does not say; none is 'not known'.
    time_zone: of times that the file gives without a zone: UTC, or unknown (then the time is 'unknown').
    both_bad: tie counts 'both are bad' as a tie. unanswered, same_system: leave-out leaves such rows out, by
    number, and says so. image_systems: a JSON file {image id: system}, for files that name images only.
    """

    study: str | None = None
    question: str | None = None
    rater: str | None = None
    rater_kind: str | None = None
    prompt_id: str | None = None
    prompt: str | None = None
    rater_column: str | None = None
    prompt_id_column: str | None = None
    prompt_column: str | None = None
    row_is: Literal["prompt", "rater"] | None = None
    shown_left: Literal["a", "b", "none"] = "none"
    time_zone: Literal["UTC", "unknown"] | None = None
    both_bad: Literal["tie"] | None = None
    unanswered: Literal["leave-out"] | None = None
    same_system: Literal["leave-out"] | None = None
    image_systems: Path | None = None
