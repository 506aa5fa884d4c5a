"""Which comparisons a study makes: balance, repetition, order, checks; by properties over many sizes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from add.errors import InputError
from eval.preferences.key import ATTENTION_CHECK
from eval.preferences.record import QUESTIONS
from eval.preferences.study.design import DesignSettings, PlannedComparison, design, rater_names

Lists = dict[str, tuple[PlannedComparison, ...]]


def names(count: int, kind: str) -> list[str]:
    return [f"{kind} {k}" for k in range(count)]


def spread(counts: Iterable[int]) -> int:
    values = list(counts)
    return max(values) - min(values)


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[str], list[str], DesignSettings, Lists]:
    systems, prompts = names(draw(st.integers(2, 7)), "system"), names(draw(st.integers(1, 13)), "prompt")
    raters = draw(st.integers(1, 9))
    votes = draw(st.integers(1, min(40, raters * len(prompts))))
    share = draw(st.sampled_from([0.0, 1 / 15, 0.2]))
    chosen = DesignSettings(raters, votes, draw(st.integers(0, 10**6)), 10**6, share)
    try:
        return systems, prompts, chosen, design(systems, prompts, chosen)
    except InputError as error:
        assume("attention checks" not in str(error))  # more checks than images: refused, and tested below
        raise


@given(studies())
@settings(max_examples=80, deadline=None)
def test_the_study_is_balanced(study: tuple[list[str], list[str], DesignSettings, Lists]) -> None:
    systems, prompts, chosen, lists = study
    every = [each for comparisons in lists.values() for each in comparisons if not each.check]
    pairs = math.comb(len(systems), 2)
    assert len(every) == pairs * chosen.votes_per_pair * 2
    for question in QUESTIONS:
        asked = [each for each in every if each.question == question]
        per_pair = Counter(frozenset((each.left, each.right)) for each in asked)
        assert len(per_pair) == pairs
        assert set(per_pair.values()) == {chosen.votes_per_pair}
        left, right = Counter(each.left for each in asked), Counter(each.right for each in asked)
        assert all(abs(left[system] - right[system]) <= 1 for system in systems)
        assert spread(Counter(each.prompt_id for each in asked)[p] for p in prompts) <= 1
        for pair in per_pair:
            mine = [each for each in asked if {each.left, each.right} == pair]
            assert spread(Counter(each.prompt_id for each in mine)[p] for p in prompts) <= 1
            assert spread(Counter(each.left for each in mine)[s] for s in pair) <= 1
    both_left, both_right = Counter(e.left for e in every), Counter(e.right for e in every)
    assert all(both_left[system] == both_right[system] for system in systems), "the questions should even out"


@given(studies())
@settings(max_examples=80, deadline=None)
def test_every_list_is_fair_to_its_rater(study: tuple[list[str], list[str], DesignSettings, Lists]) -> None:
    _, _, chosen, lists = study
    assert tuple(lists) == rater_names(chosen.raters)
    real = [sum(not each.check for each in comparisons) for comparisons in lists.values()]
    assert spread(real) <= 1
    for comparisons, count in zip(lists.values(), real, strict=True):
        # An identity of its own: the same two, on one prompt and question, whichever is left.
        seen = Counter((e.question, e.prompt_id, *sorted((e.left, e.right))) for e in comparisons)
        assert max(seen.values(), default=1) == 1
        checks = [each for each in comparisons if each.check]
        assert abs(len(checks) - count * chosen.check_share / (1 - chosen.check_share)) <= 0.5
        assert all({e.left, e.right} - {ATTENTION_CHECK} for e in checks)
        if len(checks) < count:
            assert not comparisons[0].check


def test_copies_of_a_comparison_change_sides_and_raters() -> None:
    """As many votes as four a prompt: each prompt has each system of a pair left twice."""
    lists = design(names(3, "s"), names(10, "p"), DesignSettings(4, 40, 1, 1000, 0.0))
    every = [each for comparisons in lists.values() for each in comparisons]
    sides = Counter((e.question, e.prompt_id, e.left, e.right) for e in every)
    assert set(sides.values()) == {2}
    assert len(sides) == 2 * 10 * 3 * 2


def test_checks_are_spread_and_balanced() -> None:
    systems = names(4, "s")
    lists = design(systems, names(10, "p"), DesignSettings(6, 50, 2, 1000, 1 / 15))
    checks = [each for comparisons in lists.values() for each in comparisons if each.check]
    assert len(checks) == 6 * 7
    assert abs(sum(each.left == ATTENTION_CHECK for each in checks) - 21) <= 1
    assert abs(sum(each.question == "quality" for each in checks) - 21) <= 1
    shown = Counter(({each.left, each.right} - {ATTENTION_CHECK}).pop() for each in checks)
    assert spread(shown[system] for system in systems) <= 2
    for comparisons in lists.values():
        places = [k for k, each in enumerate(comparisons) if each.check]
        assert len({place * 7 // len(comparisons) for place in places}) >= 6, "the checks stand together"


def test_orders_differ_and_the_seed_alone_decides() -> None:
    systems, prompts = names(4, "s"), names(12, "p")
    first = design(systems, prompts, DesignSettings(3, 12, 1))
    assert first == design(systems, prompts, DesignSettings(3, 12, 1))
    assert first != design(systems, prompts, DesignSettings(3, 12, 2))
    for comparisons in first.values():
        real = [each for each in comparisons if not each.check]
        questions = "".join(each.question[0] for each in real)
        assert questions.count("qa") + questions.count("aq") > len(real) / 4, "the questions come in blocks"
        again = sum(a.prompt_id == b.prompt_id for a, b in itertools.pairwise(real))
        assert again <= 1, "a prompt comes twice running"


@pytest.mark.parametrize(
    ("systems", "prompts", "chosen", "message"),
    [
        (["a"], ["p"], DesignSettings(1, 1, 0), "1 system: a comparison takes two"),
        (["a", "a"], ["p"], DesignSettings(1, 1, 0), "systems: 'a' is there twice"),
        (["a", ATTENTION_CHECK], ["p"], DesignSettings(1, 1, 0), "no system may be called 'attention-check'"),
        (["a", "b"], [], DesignSettings(1, 1, 0), "no prompts"),
        (["a", "b"], ["p", "p"], DesignSettings(1, 1, 0), "prompts: 'p' is there twice"),
        (["a", "b"], ["p"], DesignSettings(0, 1, 0), "raters is 0"),
        (["a", "b"], ["p"], DesignSettings(1, 0, 0), "votes_per_pair is 0"),
        (["a", "b"], ["p"], DesignSettings(1, 1, 0, 0), "trials_per_rater is 0"),
        (["a", "b"], ["p"], DesignSettings(1, 1, 0, 9, 0.6), "check_share is 0.6"),
        (
            ["a", "b"],
            ["p", "q"],
            DesignSettings(2, 5, 0),
            "need 3 raters, since nobody sees a comparison twice",
        ),
        (["a", "b"], ["p"], DesignSettings(9, 9, 0, 1, 0.0), "take 18 raters"),
        (
            ["a", "b"],
            list("pqrstu"),
            DesignSettings(1, 6, 0, 11, 0.0),
            "12 comparisons per rater are more than",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(
    systems: list[str], prompts: list[str], chosen: DesignSettings, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        design(systems, prompts, chosen)


def test_the_advised_number_of_raters_is_enough() -> None:
    systems, prompts = names(6, "s"), names(30, "p")
    with pytest.raises(InputError, match="take ") as caught:
        design(systems, prompts, DesignSettings(2, 60, 0, 100))
    raters = int(str(caught.value).split("take ")[1].split()[0])
    assert max(map(len, design(systems, prompts, DesignSettings(raters, 60, 0, 100)).values())) <= 100
