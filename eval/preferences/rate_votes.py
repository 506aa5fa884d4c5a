"""All votes of a scale -> its ratings: people's preference files and the automatic raters' one.

    python -m eval.preferences.rate_votes --scale config/mini.yaml --systems FILE.json \\
        --automatic FILE.csv --study results/mini/study --json ratings.json --csv ratings.csv

People's files are those in the folder that the scale's `study.records` names; the keys of blinded studies lie
beside them or, as long as it is there, in the study's own directory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from add.errors import refuses
from eval.preferences.key import StudyKey, read_keys
from eval.preferences.reader import read_folder, read_votes
from eval.preferences.record import Vote, one_problem
from eval.preferences.study.sources import read_sources
from eval.prompts import Prompt, read_prompts
from eval.stage import RatingValues, add_scale_option


def all_votes(
    values: RatingValues, systems: Sequence[str], prompts: Iterable[Prompt], automatic: Path, study: Path
) -> tuple[Vote, ...]:
    """People's votes, then the automatic raters'. Raises PreferenceError with every problem of every file.

    study: the directory of the study that `snakemake study` made, if it did.
    """
    folder = Path(values.records)
    people: tuple[Vote, ...] = ()
    if folder.is_dir():
        people = read_folder(folder, systems, _keys(folder, study))
    texts = {prompt.prompt_id: prompt.prompt for prompt in prompts}
    machine = read_votes(automatic, systems)
    known = {vote.comparison for vote in machine}
    for vote in people:
        if texts.get(vote.prompt_id, vote.prompt) != vote.prompt:
            reason = (
                f"in the scale '{values.name}' this prompt is {texts[vote.prompt_id]!r}; these votes are on other "
                "images, so take their file out of the folder"
            )
            raise one_problem(folder, reason, vote.line, vote.prompt_id, vote.prompt)
        if vote.comparison in known:
            reason = f"the vote is also in {automatic}; take its file out of the folder, or it counts twice"
            raise one_problem(folder, reason, vote.line, "rater", vote.rater)
    return (*people, *machine)


def _keys(folder: Path, study: Path) -> Mapping[str, StudyKey]:
    """The keys beside the votes, and the study's own. Raises PreferenceError where they contradict each other."""
    beside = read_keys(folder)
    own = read_keys(study) if study.is_dir() else {}
    for name in sorted(set(beside) & set(own)):
        if beside[name] != own[name]:
            reason = f"the study's key here is not the one in {study}; one of the two is another study's"
            raise one_problem(folder, reason, column="study", value=name)
    return {**own, **beside}


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 and the reasons on stderr where votes are refused."""
    from eval.preferences.ratings.rate import rate
    from eval.preferences.ratings.result import write_ratings

    parser = argparse.ArgumentParser(prog="python -m eval.preferences.rate_votes", description=__doc__)
    add_scale_option(parser)
    parser.add_argument("--systems", type=Path, required=True, help="JSON list of {name, samples}")
    parser.add_argument("--automatic", type=Path, required=True, help="the automatic raters' file")
    parser.add_argument("--study", type=Path, required=True, help="the study's directory, if it was made")
    parser.add_argument("--json", type=Path, required=True, help="ratings.json to write")
    parser.add_argument("--csv", type=Path, required=True, help="ratings.csv to write")
    options = parser.parse_args(arguments)
    values = RatingValues.read(options.scale)
    names = [source.name for source in read_sources(options.systems)]
    prompts = read_prompts(values.compared)
    votes = all_votes(values, names, prompts, options.automatic, options.study)
    categories = {prompt.prompt_id: prompt.category or "" for prompt in prompts}
    ratings = rate(votes, categories, seed=values.rating_seed)
    for file in (options.json, options.csv):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_ratings(ratings, options.csv, options.json)
    kinds = sorted({vote.rater_kind for vote in votes})
    counts = ", ".join(f"{sum(v.rater_kind == kind for v in votes)} {kind}" for kind in kinds)
    print(f"{len(votes)} votes ({counts})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
