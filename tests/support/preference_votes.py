"""Votes that the tests of the preference readers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from eval.preferences.key import StudyKey
from eval.preferences.record import Vote

VOTE = Vote(
    prompt_id="p1",
    prompt="a red cube",
    system_a="alpha",
    system_b="beta",
    image_a="i1",
    image_b="i2",
    question="quality",
    winner="a",
    rater="anna",
    rater_kind="human",
    shown_left="b",
    time="2026-11-21T13:22:05Z",
    attention_check="no",
    study="pilot",
)
OTHER = dataclasses.replace(VOTE, prompt_id="p2", prompt="two cats", image_a="i3", image_b="i4", winner="tie")
CODED = dataclasses.replace(VOTE, system_a="sys-ka", system_b="sys-wo", image_a="img-ka", image_b="img-wo")
KEY = StudyKey("pilot", {"sys-ka": "alpha", "sys-wo": "beta"}, {"img-ka": "i1", "img-wo": "i2"})


def same(votes: Iterable[Vote], expected: Iterable[Vote]) -> bool:
    """Whether these are the same votes, wherever they stood."""
    return [dataclasses.replace(vote, line=0) for vote in votes] == list(expected)
