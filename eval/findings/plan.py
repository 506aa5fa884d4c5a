"""Which runs should a study that grows make next? First a look at every row, then what undecided claims lack most."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from eval.findings.page import Answer
from eval.findings.verdicts import FIRST_LOOK

FIRST_SEED = 100
"""Smaller seeds are those of tables and calibrations: no setting was chosen by the study's runs."""


def wanted_runs(default: str, counts: Mapping[str, int], answers: Sequence[Answer]) -> list[str]:
    """The rows that should have another run, the one that pays most first; empty where nothing more would decide.

    counts: the runs that each row has, in the table's order. Until the first look every row is filled evenly, and the
    default, with which most claims compare, has twice as many (as Dunnett's comparisons want it). Then the rows of
    undecided claims are brought to the next look, those of the claim that needs fewest runs first. A claim that a
    hundred times the runs would not decide is left.
    """
    first = {run: FIRST_LOOK * (2 if run == default else 1) for run in counts}
    lacking = [run for run, count in counts.items() if count < first[run]]
    if lacking:
        return sorted(lacking, key=lambda run: counts[run] / first[run])
    undecided = [
        a for a in answers if a.judged is not None and a.verdict == "undecided" and a.judged.more is not None
    ]
    undecided.sort(
        key=lambda a: a.judged.more if a.judged is not None and a.judged.more is not None else math.inf
    )
    found: dict[str, None] = {}
    for answer in undecided:
        assert answer.judged is not None  # for mypy: see above
        runs = [run for run in answer.judged.claim.runs if run in counts]
        fewest = min(counts[run] for run in runs)
        look = FIRST_LOOK * 2 ** (int(math.log2(fewest / FIRST_LOOK)) + 1)
        targets = {run: look * (2 if run == default else 1) for run in runs}
        short = [run for run in runs if counts[run] < targets[run]]
        found |= dict.fromkeys(sorted(short, key=lambda run: counts[run] / targets[run]))
    return list(found)


def next_seed(taken: Collection[int]) -> int:
    """The smallest seed of the study that a row does not have yet on this processor."""
    return next(seed for seed in range(FIRST_SEED, FIRST_SEED + len(taken) + 1) if seed not in taken)


def next_jobs(
    wanted: Sequence[str], taken: Mapping[str, Collection[int]], most: int
) -> list[tuple[str, int]]:
    """At most `most` (run, seed) of the wanted rows, one a row and then again from the first, each seed once.

    taken: the seeds that each row has on this processor.
    """
    seeds = {run: set(taken.get(run, ())) for run in wanted}
    jobs: list[tuple[str, int]] = []
    while wanted and len(jobs) < most:
        for run in wanted[: most - len(jobs)]:
            seed = next_seed(seeds[run])
            seeds[run].add(seed)
            jobs.append((run, seed))
    return jobs
