"""How long do ratings take, beside evalica and plain loops? 22 systems, 100k votes, 1000 rounds.

    python -m benchmarks.ratings

Ours is the median of several runs. The others are slow: they run fewer rounds, and the time is scaled up and marked
so. CPU seconds stand beside wall seconds, which on a busy machine are longer; `rounds` is what was run. Writes
benchmarks/results/ratings-speed.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ratings_coverage import SimulatedStudy, draw
from eval.preferences.ratings.estimators import elo, games, slow_elo, strengths
from eval.preferences.ratings.resample import Cluster, resampled, spread
from eval.preferences.ratings.tally import Tally, tally
from eval.preferences.record import Vote

PACKAGES = ("numpy", "scipy", "evalica")
FOLDER = Path(__file__).parent / "results"
ROUNDS = 1000
BOTH: tuple[Cluster, ...] = ("rater", "prompt")
RATERS, PROMPTS, SYSTEMS = 1000, 100, 22
BUDGETS = {"by rater": 1.0, "by rater and prompt": 3.0, "elo": 1.5}
"""Wall seconds on 2 idle cores."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs of ours; the median counts")
    parser.add_argument("--others", type=int, default=20, help="rounds of the slow ones")
    options = parser.parse_args()
    strong = tuple(np.linspace(-1.5, 1.5, SYSTEMS))
    study = SimulatedStudy(strong, RATERS, PROMPTS, 100_000, rater_effect=0.3, prompt_effect=0.3, ties=0.1)
    large = draw(study, np.random.default_rng(0))
    small = draw(SimulatedStudy(strong, 100, PROMPTS, 10_000, 0.3, 0.3), np.random.default_rng(1))
    records = as_votes(large)
    bootstrap(small, BOTH)  # imports and caches are no part of the figures
    repeats, few = options.repeats, options.others
    task, both = "Bradley-Terry", "ours, by rater and prompt"
    rows = [
        ours(task, "ours, by rater", repeats, lambda: bootstrap(large, ("rater",))),
        ours(task, both, repeats, lambda: bootstrap(large, BOTH)),
        ours(task, f"{both}, from vote records", repeats, lambda: bootstrap(tally(records), BOTH)),
        other(task, "evalica.bootstrap, single votes", few, lambda n: evalica_bootstrap(large, n)),
        other(task, "plain loop, by rater", few // 4, lambda n: plain_bootstrap(large, n)),
        ours("ELO", "ours", repeats, lambda: elo(small, ROUNDS)),
        other("ELO", "evalica.elo in a loop", few, lambda n: evalica_elo(small, n)),
        other("ELO", "plain loop", few, lambda n: slow_elo(small, n)),
    ]
    content = {
        "rounds": ROUNDS,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "budgets": BUDGETS,
        "rows": rows,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "ratings-speed.json").write_text(json.dumps(content, indent=1) + "\n")
    (FOLDER / "ratings-speed.md").write_text(text := table(content))
    print(text)


def bootstrap(votes: Tally, by: tuple[Cluster, ...]) -> None:
    """What a rating with intervals takes: counts, the estimate, 1000 resamples each way, the covariance."""
    votes = votes.only(np.ones(votes.votes, bool))  # forget what was counted in the run before
    generator = np.random.default_rng(0)
    values = strengths(votes).values[0]
    draws = {way: resampled(votes, way, ROUNDS, generator, start=values) for way in by}
    spread(votes, values, draws).half_width(np.eye(SYSTEMS))


def evalica_bootstrap(votes: Tally, rounds: int) -> None:
    """evalica's own bootstrap (Rust solver), which draws single votes; percentile intervals, its cheapest."""
    import evalica

    winner = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    evalica.bootstrap(
        evalica.bradley_terry,
        votes.first.tolist(),
        votes.second.tolist(),
        [winner[score] for score in votes.score.tolist()],
        n_resamples=rounds,
        bootstrap_method="percentile",
        random_state=0,
    )


def plain_bootstrap(votes: Tally, rounds: int) -> None:
    """Raters drawn with replacement, their votes counted one by one, Zermelo's iteration to 1e-6."""
    generator = np.random.default_rng(0)
    of_rater: list[list[int]] = [[] for _ in votes.raters]
    for k, rater in enumerate(votes.rater.tolist()):
        of_rater[rater].append(k)
    first, second, score = votes.first.tolist(), votes.second.tolist(), votes.score.tolist()
    n = len(votes.systems)
    for _ in range(rounds):
        won = [[0.0] * n for _ in range(n)]
        for rater in generator.integers(len(votes.raters), size=len(votes.raters)).tolist():
            for k in of_rater[rater]:
                won[first[k]][second[k]] += score[k]
                won[second[k]][first[k]] += 1 - score[k]
        worth, change = [1.0] * n, 1.0
        while change > 1e-6:
            new = [
                sum(won[i]) / sum((won[i][j] + won[j][i]) / (worth[i] + worth[j]) for j in range(n) if j != i)
                for i in range(n)
            ]
            new = [value * n / sum(new) for value in new]
            change = max(abs(a - b) / b for a, b in zip(new, worth, strict=True))
            worth = new


def evalica_elo(votes: Tally, rounds: int) -> None:
    """evalica's ELO (Rust), once for each order."""
    import evalica

    first, second, score = games(votes)
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        order = generator.permutation(len(score))
        winners = [evalica.Winner.X if s == 1 else evalica.Winner.Y for s in score[order].tolist()]
        evalica.elo(first[order].tolist(), second[order].tolist(), winners, k=1.0)


def ours(task: str, method: str, repeats: int, run: Callable[[], object]) -> dict[str, Any]:
    """Median wall and CPU seconds of all 1000 rounds."""
    return row(task, method, ROUNDS, np.median([timed(run) for _ in range(repeats)], axis=0))


def other(task: str, method: str, rounds: int, run: Callable[[int], object]) -> dict[str, Any]:
    """Seconds of 1000 rounds, from what `rounds` more rounds take than two: what is done once does not count."""
    run(2)
    once = timed(lambda: run(2))
    return row(task, method, rounds, (timed(lambda: run(2 + rounds)) - once) * ROUNDS / rounds)


def timed(run: Callable[[], object]) -> np.ndarray:
    """(2,) wall and CPU seconds."""
    start = np.array([time.perf_counter(), time.process_time()])
    run()
    return np.array([time.perf_counter(), time.process_time()]) - start


def row(task: str, method: str, rounds: int, seconds: np.ndarray) -> dict[str, Any]:
    """One line of the result."""
    wall, cpu = (round(float(value), 3) for value in seconds)
    return {"task": task, "method": method, "rounds": rounds, "wall_s": wall, "cpu_s": cpu}


def as_votes(votes: Tally) -> list[Vote]:
    """The simulated votes as records."""
    outcome: dict[float, Any] = {1.0: "a", 0.0: "b", 0.5: "tie"}
    columns = (votes.first, votes.second, votes.score, votes.rater, votes.prompt)
    return [
        Vote(
            prompt_id=votes.prompts[p],
            prompt="a red ball",
            system_a=votes.systems[a],
            system_b=votes.systems[b],
            image_a=f"{a}-{p}",
            image_b=f"{b}-{p}",
            question="quality",
            winner=outcome[score],
            rater=votes.raters[r],
            rater_kind="human",
            shown_left="a",
            time="2026-01-01T00:00:00Z",
            attention_check="no",
            study="benchmark",
        )
        for a, b, score, r, p in zip(*(column.tolist() for column in columns), strict=True)
    ]


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(names)) or platform.processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "as the library chooses"),
        "load": [round(value, 1) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
    }


def table(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    where, rows = content["machine"], content["rows"]
    lines = [
        "# Ratings: seconds for 1000 rounds",
        "",
        f"Bradley-Terry: 1000 resamples of 100,000 votes on {SYSTEMS} systems by {RATERS} raters on {PROMPTS} prompts.",
        "ELO: 1000 orders of 10,000 votes. Figures with fewer rounds are scaled up.",
        "",
        "| task | method | rounds run | wall s | CPU s |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        mark = "" if r["rounds"] == ROUNDS else "about "
        lines.append(
            f"| {r['task']} | {r['method']} | {r['rounds']} | {mark}{r['wall_s']:.2f} | {mark}{r['cpu_s']:.2f} |"
        )
    loads = ", ".join(map(str, where["load"]))
    names = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines += [
        "",
        f"{where['processor']}, {where['cores']} cores, threads: {where['threads']}; load (1, 5, 15 minutes): {loads}.",
        f"{names}. Budgets on 2 idle cores: {content['budgets']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
