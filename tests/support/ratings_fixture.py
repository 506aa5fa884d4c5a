"""Made-up votes on ten systems, rated as the workflow does: people who agree about half the time, and an oracle."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from eval.preferences.ratings.rate import rate
from eval.preferences.ratings.result import write_ratings
from eval.preferences.record import QUESTIONS, RaterKind, Vote

SYSTEMS = {
    "baseline, 1 step": (0.5, 0.02),
    "baseline, 2 steps": (0.8, 0.031),
    "baseline, 4 steps": (1.1, 0.058),
    "L_adv alone, 1 step": (0.3, 0.021),
    "L_distill alone, 1 step": (-0.6, 0.019),
    "random init, 1 step": (-2.0, 0.02),
    "SDXL student, 1 step": (0.6, 0.043),
    "SDXL student, 4 steps": (1.2, 0.12),
    "SD2.1 teacher, 25 steps": (1.0, 0.61),
    "SDXL teacher, 25 steps": (1.3, 1.4),
}
"""Strength in units of log odds, and seconds an image."""


def votes_by(
    kind: RaterKind, raters: int, prompts: int, systems: Sequence[str] = tuple(SYSTEMS), seed: int = 0
) -> list[Vote]:
    """Each rater answers both questions for every pair on `prompts` prompts of her own; one vote in ten is a tie."""
    draw = random.Random(f"{kind}/{seed}")
    votes = []
    for r in range(raters):
        for question in QUESTIONS:
            for a, b in combinations(systems, 2):
                for p in range(prompts):
                    gap = SYSTEMS.get(a, (0.0, 0))[0] - SYSTEMS.get(b, (0.0, 0))[0]
                    won = draw.random() < 1 / (1 + math.exp(-gap))
                    number = p if kind == "oracle" else (7 * r + p) % 40
                    votes.append(
                        Vote(
                            prompt_id=f"parti-{number:04d}",
                            prompt=f"prompt {number}",
                            system_a=a,
                            system_b=b,
                            image_a=f"{a}/{number}.png",
                            image_b=f"{b}/{number}.png",
                            question=question,
                            winner="tie" if draw.random() < 0.1 else "a" if won else "b",
                            rater=f"{kind}-{r}",
                            rater_kind=kind,
                            shown_left="none" if kind == "oracle" else draw.choice(("a", "b")),
                            time="unknown",
                            attention_check="no",
                            study="fixture",
                        )
                    )
    return votes


def write_fixture_ratings(
    results: Path, *, people: bool, systems: Sequence[str] = tuple(SYSTEMS), size: int = 20
) -> None:
    """results/ratings/{systems.json, ratings.json} and the samples.json that they lead to."""
    entries = []
    for k, name in enumerate(systems):
        folder = results / "samples" / str(k)
        folder.mkdir(parents=True)
        facts = {"steps": 1, "count": 100, "seconds": 100 * SYSTEMS.get(name, (0.0, 0.1))[1]}
        (folder / "samples.json").write_text(json.dumps(facts))
        entries.append({"name": name, "samples": str(folder)})
    votes = votes_by("oracle", 1, size, systems)
    if people:
        votes += votes_by("human", 10, max(2, size // 10), systems)
    folder = results / "ratings"
    folder.mkdir(parents=True)
    (folder / "systems.json").write_text(json.dumps(entries))
    categories = {vote.prompt_id: ("Sand", "Night")[int(vote.prompt_id[-1]) % 2] for vote in votes}
    ratings = rate(votes, categories, resamples=100, shuffles=20)
    write_ratings(ratings, folder / "ratings.csv", folder / "ratings.json")
