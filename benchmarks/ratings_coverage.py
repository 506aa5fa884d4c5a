"""How often do the 95% intervals hold the truth? Simulated studies with rater and prompt effects, and without.

    python -m benchmarks.ratings_coverage --studies 1000

Beside this project's two-way intervals: the same resamples by rater alone and by prompt alone, and the
percentiles of the product ("pigeonhole") bootstrap. Writes benchmarks/results/ratings-coverage.{json,md}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.simulated_votes import SimulatedStudy, draw, truth
from eval.preferences.ratings import resample
from eval.preferences.ratings.bradley_terry import solve, strengths
from eval.preferences.ratings.tally import Array, Tally
from eval.preferences.ratings.win_rates import pair_rates

FOLDER = Path(__file__).parent / "results"
SIX = (-0.8, -0.5, -0.1, 0.2, 0.4, 0.8)
STUDIES: Mapping[str, SimulatedStudy] = {
    "no effects": SimulatedStudy(SIX, raters=20, prompts=50, votes=1500),
    "rater and prompt effects": SimulatedStudy(
        SIX, raters=20, prompts=50, votes=1500, rater_effect=0.4, prompt_effect=0.4
    ),
    "prompt effects alone": SimulatedStudy(SIX, raters=20, prompts=50, votes=1500, prompt_effect=0.6),
    "strong rater effects": SimulatedStudy(
        SIX, raters=15, prompts=50, votes=1500, rater_effect=0.8, prompt_effect=0.2
    ),
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
