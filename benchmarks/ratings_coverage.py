"""How often do the 95% intervals hold the truth? Simulated studies with rater and prompt effects, and without.

    python -m benchmarks.ratings_coverage --studies 1000

Beside this project's two-way intervals: the same resamples by rater alone and by prompt alone, and the
percentiles of the product ("pigeonhole") bootstrap. Writes benchmarks/results/ratings-coverage.{json,md}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.preferences.ratings import resample
from eval.preferences.ratings.estimators import solve, strengths
from eval.preferences.ratings.tally import Array, Tally
from eval.preferences.ratings.win_rates import pair_rates


@dataclass(frozen=True)
class SimulatedStudy:
    """A made-up study with known strengths, to see whether an interval covers what it should.

    The chance that rater r prefers system i to j on prompt p is logistic in
    s_i - s_j + (u_ri - u_rj) + (v_pi - v_pj): raters have tastes u, prompts suit some systems better (v), both
    normal. These are the effects for which votes of one rater, or on one prompt, are not independent.

    strengths: (n,) of the systems, n >= 2. votes: how many, each on a prompt, by a rater and on a pair drawn at
    random. rater_effect, prompt_effect: the standard deviations of u and v, >= 0, in units of strength.
    ties: the chance that a vote is a tie, whoever would have won.
    """

    strengths: tuple[float, ...]
    raters: int
    prompts: int
    votes: int
    rater_effect: float = 0.0
    prompt_effect: float = 0.0
    ties: float = 0.0


def draw(study: SimulatedStudy, generator: np.random.Generator) -> Tally:
    """One study's votes; raters, prompts and votes are drawn anew."""
    n = len(study.strengths)
    first, second = np.triu_indices(n, 1)
    pair = generator.integers(len(first), size=study.votes)
    rater = generator.integers(study.raters, size=study.votes)
    prompt = generator.integers(study.prompts, size=study.votes)
    taste = generator.normal(0, study.rater_effect, (study.raters, n))
    suits = generator.normal(0, study.prompt_effect, (study.prompts, n))
    worth = np.asarray(study.strengths) + taste[rater] + suits[prompt]
    each = np.arange(study.votes)
    ahead = worth[each, first[pair]] - worth[each, second[pair]]
    score = (generator.random(study.votes) < 1 / (1 + np.exp(-ahead))).astype(np.float64)
    score[generator.random(study.votes) < study.ties] = 0.5
    return Tally(
        systems=tuple(f"system {k:03d}" for k in range(n)),
        raters=tuple(f"rater {k:05d}" for k in range(study.raters)),
        prompts=tuple(f"prompt {k:05d}" for k in range(study.prompts)),
        first=first[pair],
        second=second[pair],
        score=score,
        rater=rater,
        prompt=prompt,
        left=np.where(score == 0.5, np.nan, generator.integers(2, size=study.votes).astype(np.float64)),
    )


def truth(study: SimulatedStudy) -> tuple[Array, Array]:
    """What endless votes would give: strengths (n,) with mean 0, and win rates (K,) of the pairs in order.

    The mean of a logistic function over normal effects is no logistic function, so the strengths are those
    of the Bradley-Terry model nearest to the mean chances, and a little nearer together than the study's own.
    """
    n = len(study.strengths)
    ends = np.triu_indices(n, 1)
    own = np.asarray(study.strengths)
    spread = np.sqrt(2 * (study.rater_effect**2 + study.prompt_effect**2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    ahead = own[ends[0]] - own[ends[1]]
    chance = (1 / (1 + np.exp(-(ahead[:, None] + spread * nodes)))) @ (weights / weights.sum())
    rates = (1 - study.ties) * chance + study.ties / 2
    fitted = solve(rates[None], np.ones((1, len(rates))), (ends[0], ends[1]), n)
    return fitted.values[0], rates


FOLDER = Path(__file__).parent / "results"
SIX = (-0.8, -0.5, -0.1, 0.2, 0.4, 0.8)
PLAIN = SimulatedStudy(SIX, raters=20, prompts=50, votes=1500)
STUDIES: Mapping[str, SimulatedStudy] = {
    "no effects": PLAIN,
    "rater and prompt effects": replace(PLAIN, rater_effect=0.4, prompt_effect=0.4),
    "prompt effects alone": replace(PLAIN, prompt_effect=0.6),
    "strong rater effects": replace(PLAIN, raters=15, rater_effect=0.8, prompt_effect=0.2),
    "ties, few votes": SimulatedStudy(
        SIX, raters=12, prompts=40, votes=450, rater_effect=0.3, prompt_effect=0.3, ties=0.2
    ),
    "one rater": SimulatedStudy(SIX, raters=1, prompts=60, votes=900, prompt_effect=0.4),
    "the paper's size, 4 systems": SimulatedStudy(
        SIX[1:5], raters=40, prompts=100, votes=2400, rater_effect=0.4, prompt_effect=0.4
    ),
}
METHODS = ("ratings", "differences", "win rates", "by rater alone", "by prompt alone", "product bootstrap")


def coverage(
    study: SimulatedStudy, studies: int, resamples: int, seed: int = 0, others: bool = True
) -> dict[str, float]:
    """The share of intervals that hold the truth, for each of METHODS that applies (differences of ratings, for
    the last three), over simulated studies."""
    target, rates = truth(study)
    n = len(target)
    first, second = np.triu_indices(n, 1)
    contrasts = np.eye(n)[first] - np.eye(n)[second]
    held: dict[str, list[float]] = {name: [] for name in METHODS}
    for generator in np.random.default_rng(seed).spawn(studies):
        votes = draw(study, generator)
        found = strengths(votes)
        values, fixed = found.values[0], bool(found.regularised[0])
        draws = {
            by: resample.resampled(votes, by, resamples, generator, start=values, half_wins=fixed)
            for by in resample.ways(votes, study.raters > 1)
        }
        spread = resample.spread(votes, values, draws)
        width = spread.half_width(np.eye(n) - 1 / n)
        held["ratings"].append(float((np.abs(values - target) <= width).mean()))
        off = np.abs(contrasts @ (values - target))
        held["differences"].append(float((off <= spread.half_width(contrasts)).mean()))
        pairs = pair_rates(votes, study.raters > 1)
        held["win rates"].append(
            float(np.mean([p.low <= r <= p.high for p, r in zip(pairs, rates, strict=True)]))
        )
        if not others or len(draws) < 2:
            continue
        for part, name in zip(spread.parts, METHODS[3:5], strict=False):
            one = resample.Spread((part,)).half_width(contrasts)
            held[name].append(float((off <= one).mean()))
        low, high = np.quantile(
            product(votes, resamples, generator, values) @ contrasts.T, (0.025, 0.975), axis=0
        )
        ahead = contrasts @ target
        held["product bootstrap"].append(float(((low <= ahead) & (ahead <= high)).mean()))
    return {name: float(np.mean(shares)) for name, shares in held.items() if shares}


def product(votes: Tally, resamples: int, generator: np.random.Generator, start: Array) -> Array:
    """Strengths (resamples, n) where a vote counts as often as its rater times as often as its prompt was drawn."""
    r, p, pairs = len(votes.raters), len(votes.prompts), len(votes.ends[0])
    of_rater = generator.multinomial(r, np.full(r, 1 / r), size=resamples)
    of_prompt = generator.multinomial(p, np.full(p, 1 / p), size=resamples)
    won, total = np.empty((resamples, pairs)), np.empty((resamples, pairs))
    for b in range(resamples):
        weight = of_rater[b][votes.rater] * of_prompt[b][votes.prompt]
        won[b] = np.bincount(votes.pair, weight * votes.score, pairs)
        total[b] = np.bincount(votes.pair, weight, pairs)
    return solve(won, total, votes.ends, len(votes.systems), start=start).values


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=400)
    options = parser.parse_args()
    found = {}
    for name, study in STUDIES.items():
        found[name] = coverage(study, options.studies, options.resamples)
        print(name, {method: round(100 * share, 1) for method, share in found[name].items()}, flush=True)
    FOLDER.mkdir(exist_ok=True)
    content = {"studies": options.studies, "resamples": options.resamples, "coverage": found}
    (FOLDER / "ratings-coverage.json").write_text(json.dumps(content, indent=1) + "\n")
    (FOLDER / "ratings-coverage.md").write_text(table(found, options.studies, options.resamples))


def table(found: Mapping[str, Mapping[str, float]], studies: int, resamples: int) -> str:
    """The figures as Markdown, in percent."""
    lines = [
        "# Coverage of the 95% intervals",
        "",
        f"Percent of intervals that hold the truth; {studies} simulated studies a row, {resamples} resamples each.",
        "The last three columns are other ways to make the intervals of differences. The studies are in",
        "`benchmarks/ratings_coverage.py`; effects are standard deviations in units of strength (1 = 174 points).",
        "",
        "| study | " + " | ".join(METHODS) + " |",
        "|---|" + "---|" * len(METHODS),
    ]
    for name, shares in found.items():
        cells = [f"{100 * shares[method]:.1f}" if method in shares else "-" for method in METHODS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
