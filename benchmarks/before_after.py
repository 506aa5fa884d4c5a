"""Which rows of the table changed their order with the miniature's networks and mended method, and by how much?

    python -m benchmarks.before_after [--old RESULTS]

Before: the first miniature (commit 78d7b2f), from benchmarks/results/mini-table-2026-11-21.csv (seed 0),
mini-main-rows-2026-11-21.csv (seeds 0 and 1 of four rows), and the result.json of further seeds below RESULTS, which
that commit's workflow made (`snakemake results/mini/<run>/seed1/result.json`). After: the study in replication/mini,
seeds 100 and 101, and for the ranks all of its runs. Writes benchmarks/results/mini-before-after.csv and prints it as
Markdown.

Before and after have other extractors, prompts and oracles, so orders within a part compare, and values do not.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from addbench.project import load_project
from eval.findings.store import read_store
from eval.result import Result, read_result

HERE = Path(__file__).parent / "results"
FILE = HERE / "mini-before-after.csv"
STEPS = (1, 4)
METRICS = ("fid", "alignment")

Values = dict[tuple[str, int, int, str], float]
"""By run, seed, steps and metric."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--old", type=Path, help="the old commit's results/mini, with further seeds")
    options = parser.parse_args()
    before = dict(_old_tables())
    if options.old:
        if not (found := sorted(options.old.glob("*/seed*/result.json"))):
            parser.error(f"--old {options.old}: holds no <run>/seed<seed>/result.json")
        before |= of_results(map(read_result, found))
    lines = rows(before, of_results(read_store(Path("replication/mini")).runs.values()))
    with FILE.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(markdown(lines))


def _old_tables() -> Iterator[tuple[tuple[str, int, int, str], float]]:
    for name in ("mini-table-2026-11-21.csv", "mini-main-rows-2026-11-21.csv"):
        with (HERE / name).open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                if line["prompts"] == "coco":
                    for metric in METRICS:
                        place = line["run"], int(line.get("seed") or 0), int(line["steps"]), metric
                        yield place, float(line[metric])


def of_results(results: Iterable[Result]) -> Values:
    """The values of runs."""
    return {
        (result.run, result.seed, system.steps, metric): system.metrics[metric].value
        for result in results
        for system in result.systems
        if system.prompts == "coco" and system.steps in STEPS
        for metric in METRICS
    }


def rows(before: Values, after: Values) -> list[dict[str, Any]]:
    """One line a cell of Table 1 and number of steps: two values a side, and the row's rank in its part by mean FID."""
    cells = load_project("mini").table.cells
    lines: list[dict[str, Any]] = []
    for cell in cells:
        for steps in STEPS:
            line: dict[str, Any] = {"part": cell.part, "row": cell.label, "run": cell.run, "steps": steps}
            for metric in METRICS:
                for side, values in (("before", before), ("after", after)):
                    line[f"{metric}_{side}"] = " ".join(f"{v:.3g}" for v in _seeds(values, line, metric)[:2])
            for side, values in (("before", before), ("after", after)):
                part = [c.run for c in cells if c.part == cell.part]
                means = {run: fmean(_seeds(values, {"run": run, "steps": steps}, "fid")) for run in part}
                line[f"rank_{side}"] = sorted(means.values()).index(means[line["run"]]) + 1
            lines.append(line)
    return lines


def _seeds(values: Values, line: dict[str, Any], metric: str) -> list[float]:
    return [
        value
        for (run, _, steps, name), value in sorted(values.items())
        if (run, steps, name) == (line["run"], line["steps"], metric)
    ]


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The table with one line a cell."""
    text = [
        "| row | FID, one step: before | after | four steps: before | after | all right, one step: before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    for one, four in zip(lines[::2], lines[1::2], strict=True):
        text.append(
            f"| ({one['part']}) {one['row']} "
            + "".join(
                f"| {line[f'fid_{side}']} ({line[f'rank_{side}']}) "
                for line in (one, four)
                for side in ("before", "after")
            )
            + f"| {one['alignment_before']} | {one['alignment_after']} |"
        )
    return "\n".join(text)


if __name__ == "__main__":
    main()
