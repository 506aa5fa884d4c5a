"""From votes to ratings.csv: what is rated apart, what is left out by name, what must not matter, the command."""

from __future__ import annotations

import csv
import dataclasses
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from add.errors import REFUSED, InputError
from eval.preferences.rate_votes import main
from eval.preferences.ratings.rate import rate
from eval.preferences.ratings.result import COLUMNS, Ratings, read_ratings, write_ratings
from eval.preferences.ratings.tally import Tally, tally
from eval.preferences.ratings.win_rates import DesignEffect, design_effect, pair_rates
from eval.preferences.reader import write_votes
from eval.preferences.record import Vote
from tests.support.rated import as_tally, random_votes, renamed, simulated, swapped, vote, votes_of

FAST: dict[str, Any] = {"resamples": 100, "shuffles": 20}


def study() -> tuple[Vote, ...]:
    """Humans on both questions and a program on one; four systems."""
    return (
        *votes_of(simulated(1)),
        *votes_of(simulated(2, strengths=(0.5, 0.0, 0.0, -0.5)), "alignment"),
        *votes_of(simulated(3, raters=1, rater_effect=0.0), "quality", "oracle"),
    )


CATEGORIES = {f"prompt {k:05d}": ("Arts", "Animals")[k % 2] for k in range(20)}


@pytest.fixture(scope="module")
def rated() -> dict[tuple[str, str, str], Ratings]:
    return {(r.rater_kind, r.question, r.category): r for r in rate(study(), CATEGORIES, **FAST)}


@pytest.mark.parametrize(
    ("wins", "votes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)],
)
def test_a_rates_interval_is_wilsons(wins: int, votes: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    found = DesignEffect(np.ones(1), np.full(1, 1e9)).interval(np.array([wins / votes]), np.array([votes]))
    assert [round(float(end[0]), 4) for end in found] == [low, high]


def test_pairs_count_ties_half_and_clusters_widen_them() -> None:
    pair = pair_rates(as_tally([("ant", "bee", 5, 4, 1)]))[0]
    assert (pair.votes, pair.wins, pair.ties, pair.losses, pair.win_rate) == (10, 5, 4, 1, 0.7)
    assert 0 < pair.low < 0.7 < pair.high < 1
    even = np.arange(400) % 2
    alone = tally([vote("ant", "bee", "ab"[k], n, rater=f"r{n}") for n, k in enumerate(even)])  # type: ignore[arg-type]
    assert design_effect(alone, alone.score, alone.pair).value == pytest.approx(1, abs=0.01)
    assert pair_rates(alone)[0].high == pytest.approx(0.549, abs=0.001), "about five points at 400 votes"
    lumpy = dataclasses.replace(alone, rater=even + 2 * (np.arange(400) // 20))
    assert design_effect(lumpy, lumpy.score, lumpy.pair).value == pytest.approx(10, rel=0.1), (
        "ten votes a rater"
    )
    tied = tally([vote("ant", "bee", "tie" if n % 2 else "a", n, rater=f"r{n}") for n in range(400)])
    assert design_effect(tied, tied.score, tied.pair).value == pytest.approx(1 / 3, abs=0.01)


def one_rater_a_pair(seed: int, alone: int) -> tuple[Tally, np.ndarray]:
    """Ten pairs of 60 votes by raters of whom each has a taste of its own in each pair, `alone` of them by one rater
    and the others by twelve; and whether each pair is by one."""
    rng = np.random.default_rng(seed)
    names = [f"system {k}" for k in range(5)]
    pairs = list(combinations(names, 2))
    votes, prompt = [], 0
    for number, (a, b) in enumerate(pairs):
        raters = 1 if number < alone else 12
        for rater in range(raters):
            chance = np.clip(0.5 + 0.15 * rng.standard_normal(), 0, 1)
            for _ in range(60 // raters):
                prompt += 1
                votes.append(vote(a, b, "ab"[int(rng.random() > chance)], prompt, rater=f"r{number} {rater}"))  # type: ignore[arg-type]
    return tally(votes), np.arange(len(pairs)) < alone


@pytest.mark.parametrize("alone", [3, 7])
def test_a_pair_with_one_rater_has_the_interval_of_one_rater(alone: int) -> None:
    """Breaks where such pairs are taken for independent votes: their 95% intervals then hold in 58%."""
    held: list[np.ndarray] = []
    for seed in range(150):
        votes, by_one = one_rater_a_pair(seed, alone)
        held.append(np.array([r.low <= 0.5 <= r.high for r in pair_rates(votes)]))
    coverage = np.mean(held, axis=0)
    assert coverage[by_one].mean() > 0.94, (
        "on the safe side: how alike one rater's votes are is of few raters"
    )
    assert 0.92 < coverage[~by_one].mean() <= 0.98


def test_where_no_pair_has_two_raters_a_note_says_what_is_not_known() -> None:
    lonely = [
        vote(a, b, "a", k, rater=f"{a} {b}")
        for a, b in combinations(("ant", "bee", "cat"), 2)
        for k in range(9)
    ]
    (found,) = rate(lonely, **FAST)
    assert (
        "no pair has votes of two raters: intervals of win rates are for these raters alone"
        in found.diagnostics.notes
    )
    (seen,) = rate([*lonely, vote("ant", "bee", "b", 99, rater="another")], **FAST)
    assert not any("two raters" in note for note in seen.diagnostics.notes)


def test_a_pair_that_agrees_in_all_votes_keeps_an_interval() -> None:
    pair = pair_rates(as_tally([("ant", "bee", 20, 0, 0)]))[0]
    assert (round(pair.low, 3), pair.high) == (0.839, 1.0)


def test_kinds_questions_and_categories_are_rated_apart(rated) -> None:
    questions = {"human": ("quality", "alignment", "both"), "oracle": ("quality",)}
    expected = [(k, q, c) for k in questions for q in questions[k] for c in ("all", "Animals", "Arts")]
    assert list(rated) == expected
    human, oracle = rated["human", "quality", "all"], rated["oracle", "quality", "all"]
    assert human.diagnostics.votes == oracle.diagnostics.votes == 900
    alone = rate([v for v in study() if v.rater_kind == "human"], CATEGORIES, **FAST)
    assert alone[0] == human, "another kind of raters changed a rating"
    assert human.clusters == "12 raters and 30 prompts"
    assert oracle.clusters == "30 prompts; there is one rater"
    inside = [rated["human", "quality", c].diagnostics.votes for c in ("Arts", "Animals")]
    assert sum(inside) == sum(v.prompt_id in CATEGORIES for v in votes_of(simulated(1))) < 900
    assert human.diagnostics.notes == (f"{900 - sum(inside)} votes are on prompts of no known category",)


def test_both_is_the_mean_of_two_elos_and_one_fit_of_all_votes(rated) -> None:
    quality, alignment, both = (rated["human", q, "all"] for q in ("quality", "alignment", "both"))
    for system in both.systems:
        one, two = (next(s for s in r.systems if s.system == system.system) for r in (quality, alignment))
        assert system.elo == pytest.approx((one.elo + two.elo) / 2, abs=1e-9)
        assert system.votes == one.votes + two.votes
        assert min(one.rating, two.rating) < system.rating < max(one.rating, two.rating)
        assert system.low < system.rating < system.high
    assert np.mean([s.rating for s in both.systems]) == pytest.approx(1000)


def test_the_rank_is_one_and_those_clearly_above() -> None:
    clear = rate(votes_of(simulated(0, strengths=(-3.0, 3.0, 0.0, 0.01))), **FAST)[0]
    assert [(s.system[-1], s.rank) for s in clear.systems if s.system[-1] in "01"] == [("1", 1), ("0", 4)]
    assert [s.rank for s in clear.systems] == [1, 2, 2, 4], "two that cannot be told apart share a rank"


def test_checks_judge_raters_and_enter_no_rating() -> None:
    votes = votes_of(simulated(1))
    systems = {s.system for s in rate(votes, **FAST)[0].systems}
    bad = {"rater 00003"}
    checks = [
        vote(
            "system 000", "attention-check", "b" if r in bad else "a", 9000 + k, rater=r, attention_check="a"
        )
        for k, r in enumerate([*bad, *bad, "rater 00001", "rater 00001"])
    ]
    found = rate((*votes, *checks), **FAST)[0]
    assert {s.system for s in found.systems} == systems
    facts = found.diagnostics
    assert (facts.checks_passed, facts.checks_failed, facts.excluded_raters) == (2, 2, ("rater 00003",))
    assert facts.votes == sum(v.rater not in bad for v in votes) < 900
    assert facts.raters == 11


def test_a_kind_whose_raters_all_failed_is_an_error() -> None:
    votes = [vote("ant", "bee", "a", k, rater="x") for k in range(5)]
    votes += [vote("ant", "attention-check", "b", 50 + k, rater="x", attention_check="a") for k in range(2)]
    with pytest.raises(InputError, match="all human raters with votes failed their attention checks: x"):
        rate(votes, **FAST)


def test_order_and_sides_do_not_matter_and_the_seed_does() -> None:
    votes = study()
    first = rate(votes, CATEGORIES, **FAST)
    assert rate(votes[::-1], CATEGORIES, **FAST) == first
    assert rate(swapped(votes), CATEGORIES, **FAST) == first
    other = rate(votes, CATEGORIES, seed=1, **FAST)
    assert other[0].systems[0].low != first[0].systems[0].low
    assert other[0].systems[0].rating == first[0].systems[0].rating


def test_names_do_not_matter_but_for_the_draw_of_orders() -> None:
    votes = votes_of(simulated(1))
    names = {f"system 00{k}": f"model {'dbca'[k]}" for k in range(4)}
    first, again = rate(votes, **FAST)[0], rate(renamed(votes, names), **FAST)[0]
    assert [names[s.system] for s in first.systems] == [s.system for s in again.systems]
    assert [s.rating for s in again.systems] == pytest.approx([s.rating for s in first.systems], abs=1e-6)
    assert [s.elo for s in again.systems] == pytest.approx([s.elo for s in first.systems], abs=1)
    assert again.diagnostics.alpha == first.diagnostics.alpha


def test_systems_that_no_vote_links_are_an_error_and_a_categorys_a_note() -> None:
    votes = [*random_votes(0, 60), vote("x", "y", "a", 98), vote("x", "y", "b", 99)]
    with pytest.raises(InputError, match=r"^human votes on quality: .*island 2: x, y"):
        rate(votes, **FAST)
    bridged = [*votes, vote("ant", "x", "tie", 97)]
    found = rate(bridged, {"p00098": "Arts", "p00097": "Arts", "p00000": "Arts"}, **FAST)
    assert [r.category for r in found] == ["all"]
    assert (
        "quality, Arts: no ratings, since the systems cannot be put on one scale"
        in found[0].diagnostics.notes[-2]
    )


def test_a_program_on_one_prompt_has_no_interval() -> None:
    votes = [vote("a", "b", w, rater=r, rater_kind="model") for r, w in (("x", "a"), ("y", "b"))]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model votes on quality: all votes are on one prompt"):
        rate(votes, **FAST)


def test_both_needs_the_same_systems() -> None:
    votes = [
        *random_votes(0, 80),
        *(dataclasses.replace(v, question="alignment") for v in random_votes(1, 80, 3)),
    ]
    found = rate(votes, **FAST)
    assert [r.question for r in found] == ["quality", "alignment"]
    assert all("one question only: dog" in r.diagnostics.notes[-1] for r in found)


def test_no_votes_give_no_ratings_and_too_few_resamples_are_refused(tmp_path: Path) -> None:
    assert rate(()) == ()
    write_ratings((), tmp_path / "r.csv", tmp_path / "r.json")
    assert read_ratings(tmp_path / "r.json") == ()
    assert (tmp_path / "r.csv").read_text() == ",".join(COLUMNS) + "\n"
    with pytest.raises(ValueError, match="resamples is 99"):
        rate(random_votes(0, 9), resamples=99)


def test_ratings_are_read_as_they_were_written(rated, tmp_path: Path) -> None:
    write_ratings(tuple(rated.values()), tmp_path / "out/r.csv", tmp_path / "out/r.json")
    assert read_ratings(tmp_path / "out/r.json") == tuple(rated.values())
    with (tmp_path / "out/r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(rated)
    assert {(r["rater_kind"], r["question"], r["category"]) for r in rows} == set(rated)
    best = rated["human", "both", "all"].systems[0]
    row = next(r for r in rows if (r["question"], r["category"], r["system"]) == ("both", "all", best.system))
    assert float(row["rating"]) == pytest.approx(best.rating, abs=0.005)
    assert row["clusters"] == "12 raters and 30 prompts"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r["systems"][0].pop("elo"), "systems.0.elo: Field required"),
        (lambda r: r["systems"][0].update(elo="high"), "systems.0.elo: Input should be a valid number"),
        (lambda r: r.update(rater_kind="crowd"), "rater_kind: Input should be 'human'"),
        (lambda r: r.update(colour="red"), "colour"),
    ],
)
def test_a_wrong_ratings_file_is_refused_by_field(rated, tmp_path: Path, change, reason: str) -> None:
    file = tmp_path / "r.json"
    write_ratings(tuple(rated.values())[:1], tmp_path / "r.csv", file)
    content = json.loads(file.read_text())
    change(content[0])
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        read_ratings(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"r\.json: Invalid JSON"):
        read_ratings(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_ratings(tmp_path / "absent.json")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "preferences", tmp_path / "out"
    folder.mkdir()
    votes = random_votes(0, 60)
    write_votes(folder / "one.csv", votes[:30])
    write_votes(folder / "two.csv", votes[30:])
    settings = ["--resamples", "100", "--shuffles", "5"]
    written = ["--json", str(out / "ratings.json"), "--csv", str(out / "ratings.csv")]
    assert main(["--votes", str(folder), *written, *settings]) == 0
    assert "human, quality: 60 votes" in capsys.readouterr().out
    whole = read_ratings(out / "ratings.json")
    assert whole == rate(votes, resamples=100, shuffles=5)
    files = [str(folder / "two.csv"), str(folder / "one.csv")]
    assert main(["--votes", *files, *written, *settings]) == 0
    assert read_ratings(out / "ratings.json") == whole
    assert main(["--votes", files[0], files[0], *written, *settings]) == REFUSED
    write_votes(folder / "two.csv", [vote("x", "y", "a", 500)])
    assert main(["--votes", str(folder), *written]) == REFUSED
    assert "island 2: x, y" in capsys.readouterr().err
