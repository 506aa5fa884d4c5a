"""Rate votes: `python -m eval.preferences.ratings --votes preferences --out reports`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from add.errors import refuses
from eval.preferences.record import Vote


@refuses
def main(arguments: list[str] | None = None) -> int:
    """The stage's command line; 0, or 2 with a message where votes cannot be read or rated."""
    parser = argparse.ArgumentParser(prog="python -m eval.preferences.ratings", description=__doc__)
    parser.add_argument(
        "--votes", type=Path, nargs="+", required=True, help="a folder of preference files, or files"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for ratings.csv and ratings.json")
    parser.add_argument("--prompts", type=Path, help="PartiPrompts TSV, for ratings per category")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resamples", type=int, default=1000, help="of the intervals (default: 1000)")
    parser.add_argument("--shuffles", type=int, default=1000, help="of the ELO (default: 1000)")
    options = parser.parse_args(arguments)

    from eval.preferences.ratings.rate import rate
    from eval.preferences.ratings.result import write_ratings

    ratings = rate(
        read(options.votes),
        categories(options.prompts) if options.prompts else {},
        seed=options.seed,
        resamples=options.resamples,
        shuffles=options.shuffles,
    )
    write_ratings(ratings, options.out / "ratings.csv", options.out / "ratings.json")
    for found in ratings:
        if found.category == "all":
            best = found.systems[0]
            print(
                f"{found.rater_kind}, {found.question}: {found.diagnostics.votes} votes, first {best.system}"
            )
    if not ratings:
        print("there are no votes to rate", file=sys.stderr)
    return 0


def read(places: list[Path]) -> tuple[Vote, ...]:
    """The votes of one folder, or of files, with the keys that lie beside them. Raises PreferenceError."""
    from eval.preferences.key import read_keys
    from eval.preferences.reader import check_votes, read_folder, read_votes

    if len(places) == 1 and places[0].is_dir():
        return read_folder(places[0])
    votes = [vote for file in places for vote in read_votes(file, keys=read_keys(file.parent))]
    if len(places) > 1:
        check_votes(Path(", ".join(map(str, places))), votes)  # a vote may be in two files
    return tuple(votes)


def categories(prompts: Path) -> dict[str, str]:
    """Prompt id -> category, as `eval.prompts` numbers them. Raises InputError."""
    from eval.prompts import read_parti

    return {p.prompt_id: p.category for p in read_parti(prompts) if p.category is not None}


if __name__ == "__main__":
    sys.exit(main())
