"""Rates votes: ratings.json in full, and ratings.csv with one line per system.

By hand, from a folder of preference files or from files, with the keys that lie beside them:

    python -m eval.preferences.rate_votes --votes preferences --json ratings.json --csv ratings.csv

In the workflow, which adds the automatic raters' file and refuses systems that the study does not compare:

    python -m eval.preferences.rate_votes --scale config/mini.yaml --systems FILE.json \\
        --automatic FILE.csv --study results/mini/study --json ratings.json --csv ratings.csv
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from add.errors import at_least, refuses
from add.files import refuse_outputs
from add.lock import only_writer
from eval.preferences.key import read_all_keys
from eval.preferences.ratings.rate import rate
from eval.preferences.ratings.result import write_ratings
from eval.preferences.reader import read_files, read_folder, read_votes
from eval.preferences.record import Vote, one_problem
from eval.preferences.study.sources import read_sources
from eval.prompts import Prompt, read_parti, read_prompts
from eval.stage import RatingValues, add_scale_option


def all_votes(
    places: Sequence[Path],
    systems: Collection[str] | None = None,
    prompts: Iterable[Prompt] = (),
    automatic: Path | None = None,
    study: Path | None = None,
) -> tuple[Vote, ...]:
    """People's votes, then the automatic raters'. Raises PreferenceError with every problem of every file.

    places: one folder of preference files, or files. systems: the names that may occur; None takes every name.
    prompts: what the votes are on; none takes every prompt. automatic: the automatic raters' file; with it, the folder
    may be absent. study: the study's directory, which holds a key too once the study was made.
    """
    machine = read_votes(automatic, systems) if automatic else ()
    people: tuple[Vote, ...] = ()
    texts = {prompt.prompt_id: prompt.prompt for prompt in prompts} or None
    if len(places) > 1 or places[0].is_file():
        keys = read_all_keys({file.parent for file in places}, study)
        people = read_files(places, systems, keys, prompts=texts)
    elif automatic is None or places[0].is_dir():
        people = read_folder(places[0], systems, read_all_keys(places, study), prompts=texts)
    known = {vote.comparison for vote in machine}
    for vote in people:
        if vote.comparison in known:
            where = Path(", ".join(map(str, places)))
            reason = f"the vote is also in {automatic}; take its file out of the folder, or it counts twice"
            raise one_problem(where, reason, vote.line, "rater", vote.rater)
    return (*people, *machine)


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; 1 and the reasons on stderr where votes are refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.preferences.rate_votes", description=__doc__)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--votes", type=Path, nargs="+", help="a folder of preference files, or files")
    add_scale_option(given, required=False)
    parser.add_argument("--systems", type=Path, help="JSON list of {name, samples}: what may occur")
    parser.add_argument("--automatic", type=Path, help="the automatic raters' file")
    parser.add_argument("--study", type=Path, help="the study's directory, with its key if it was made")
    parser.add_argument(
        "--prompts", type=Path, help="PartiPrompts TSV, for ratings per category; votes are on these alone"
    )
    parser.add_argument("--seed", type=at_least(0), help="default: the scale's, or 0")
    parser.add_argument("--resamples", type=int, default=1000, help="of the intervals (default: 1000)")
    parser.add_argument("--shuffles", type=int, default=1000, help="of the ELO (default: 1000)")
    parser.add_argument("--json", type=Path, required=True, help="ratings.json to write")
    parser.add_argument("--csv", type=Path, required=True, help="ratings.csv to write")
    options = parser.parse_args(arguments)

    inputs = [*(options.votes or ()), options.systems, options.automatic, options.prompts]
    refuse_outputs([options.json, options.csv], filter(None, inputs))
    places, seed = options.votes, options.seed or 0
    prompts: Sequence[Prompt] = read_parti(options.prompts) if options.prompts else ()
    if options.scale:
        values = RatingValues.read(options.scale)
        places, prompts = [Path(values.records)], read_prompts(values.compared)
        seed = values.rating_seed if options.seed is None else seed
    systems = [source.name for source in read_sources(options.systems)] if options.systems else None
    categories = {prompt.prompt_id: prompt.category or "" for prompt in prompts}
    with only_writer(options.json):
        votes = all_votes(places, systems, prompts, options.automatic, options.study)
        ratings = rate(votes, categories, seed=seed, resamples=options.resamples, shuffles=options.shuffles)
        write_ratings(ratings, options.csv, options.json)
    counts = Counter(vote.rater_kind for vote in votes)
    print(f"{len(votes)} votes ({', '.join(f'{count} {kind}' for kind, count in counts.items())})")
    for found in ratings:
        if found.category == "all":
            first = f"{found.diagnostics.votes} votes, first {found.systems[0].system}"
            print(f"{found.rater_kind}, {found.question}: {first}")


if __name__ == "__main__":
    sys.exit(main())
