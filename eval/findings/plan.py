"""Which runs should a study that grows make next? First a look at every row, then what undecided claims lack most."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from eval.findings.page import Answer
from eval.findings.verdicts import FIRST_LOOK

FIRST_SEED = 100
"""Smaller seeds are those of tables and calibrations: no setting was chosen by the study's runs."""


def wanted_runs(default: str, counts: Mapping[str, int], answers: Sequence[Answer]) -> list[str]:
    """The rows to run, the most wanted first, each as often as it lacks runs; empty once nothing would be decided.

    counts: the runs that each row has. First every row gets the runs of the first look, and the default, with which
    all others are compared, twice as many: always the row that is furthest behind. Then the rows of undecided claims
    are brought to the next look, those of the claim that needs fewest runs first. A claim that a hundred times the runs
    would not decide is left.
    """
    has = dict(counts)
    first = {run: FIRST_LOOK * (2 if run == default else 1) for run in counts}
    if found := list(_filled(has, first)):
        return found
    undecided = [
        (a.judged.more, a.judged)
        for a in answers
        if a.judged is not None and a.verdict == "undecided" and a.judged.more is not None
    ]
    for _, judged in sorted(undecided, key=lambda each: each[0]):
        runs = [run for run in judged.claim.runs if run in counts]
        look = FIRST_LOOK * 2 ** (int(math.log2(min(counts[run] for run in runs) / FIRST_LOOK)) + 1)
        found += _filled(has, {run: look * (2 if run == default else 1) for run in runs})
    return found


def _filled(has: dict[str, int], targets: Mapping[str, int]) -> Iterator[str]:
    """Rows, the one furthest behind first, until each has as many runs as its target; `has` is counted up."""
    while short := [run for run, target in targets.items() if has[run] < target]:
        run = min(short, key=lambda run: has[run] / targets[run])
        has[run] += 1
        yield run


def next_seed(taken: Collection[int]) -> int:
    """The smallest seed of the study that a row does not have yet, on any processor.

    So seeds are taken in the order in which runs are made, and a look's runs, the first by seed, stay what they are; a
    gap, of a run that failed while later ones went through, is filled first.
    """
    return next(seed for seed in range(FIRST_SEED, FIRST_SEED + len(taken) + 1) if seed not in taken)


def next_jobs(
    wanted: Sequence[str], taken: Mapping[str, Collection[int]], most: int
) -> list[tuple[str, int]]:
    """The first `most` (run, seed) of the wanted rows, each seed once.

    taken: the seeds that each row has, on any processor.
    """
    seeds = {run: set(taken.get(run, ())) for run in wanted}
    jobs: list[tuple[str, int]] = []
    for run in wanted[:most]:
        seed = next_seed(seeds[run])
        seeds[run].add(seed)
        jobs.append((run, seed))
    return jobs
