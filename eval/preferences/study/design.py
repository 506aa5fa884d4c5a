"""The design of a study: who compares which two systems on which prompt, for which question, and on which side.

Balanced by construction, not on average: every pair of systems gets the same number of votes for each question,
these votes use the prompts equally often, and every system stands left and right equally often. All three hold
up to one, for each question. The rest (which rater, in which order) is drawn from the seed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from add.errors import InputError
from eval.preferences.key import ATTENTION_CHECK as ATTENTION
from eval.preferences.record import QUESTIONS, Question


@dataclass(frozen=True)
class DesignSettings:
    """How large the study is.

    raters: lists to make. votes_per_pair: votes for each pair of systems and each question, over all prompts
    (the paper: about 400, which is 4 on each of 100 prompts). trials_per_rater: the most that one list may hold,
    checks included. check_share: attention checks among all that a rater sees, in [0, 0.5].
    """

    raters: int
    votes_per_pair: int
    seed: int
    trials_per_rater: int = 200
    check_share: float = 1 / 15


@dataclass(frozen=True)
class PlannedComparison:
    """One question about two systems on one prompt. In a check one of the two is the attention check's."""

    question: Question
    prompt_id: str
    left: str
    right: str

    @property
    def check(self) -> bool:
        """Whether this judges the rater and not the systems."""
        return ATTENTION in (self.left, self.right)

    def shown(self, system: str) -> str:
        """The system whose image stands for `system`: the other one's, destroyed, for an attention check's."""
        return system if system != ATTENTION else self.right if self.left == ATTENTION else self.left

    @property
    def identity(self) -> tuple[str, str, frozenset[str]]:
        """A comparison that a rater may see only once: question, prompt and two systems, in either order."""
        return self.question, self.prompt_id, frozenset((self.left, self.right))


def rater_names(count: int) -> tuple[str, ...]:
    """rater-01, rater-02, ...: the lists' names, and what a rater is called who writes no other name."""
    width = max(2, len(str(count)))
    return tuple(f"rater-{k:0{width}d}" for k in range(1, count + 1))


def design(
    systems: Sequence[str], prompts: Sequence[str], settings: DesignSettings
) -> dict[str, tuple[PlannedComparison, ...]]:
    """The list of every rater, in the order shown. A function of the arguments alone. Raises InputError.

    The lists' lengths differ by at most one, no list holds a comparison twice (with left and right exchanged it
    is the same one), and no list starts with a check.
    """
    _check(systems, prompts, settings)
    # A seed of its own for each draw: a change to one draw must not move the others.
    groups = _comparisons(systems, prompts, settings)
    lists = _deal(groups, settings.raters, random.Random(f"{settings.seed}:raters"))
    shares = _checks(systems, prompts, [len(each) for each in lists], settings)
    result = {}
    for name, real, checks in zip(rater_names(settings.raters), lists, shares, strict=True):
        if (length := len(real) + len(checks)) > settings.trials_per_rater:
            # The real trials in a list of the greatest length.
            room = max(1, math.floor(settings.trials_per_rater * (1 - settings.check_share)))
            needed = math.ceil(sum(map(len, lists)) / room)
            raise InputError(
                f"{length} comparisons per rater are more than trials_per_rater = {settings.trials_per_rater}; "
                f"take {max(needed, settings.raters + 1)} raters or fewer votes_per_pair"
            )
        result[name] = _order(real, checks, random.Random(f"{settings.seed}:order:{name}"))
    return result


def _check(systems: Sequence[str], prompts: Sequence[str], settings: DesignSettings) -> None:
    for what, values in (("systems", systems), ("prompts", prompts)):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise InputError(f"{what}: {twice[0]!r} is there twice")
    if len(systems) < 2:
        raise InputError(f"{len(systems)} system: a comparison takes two")
    if ATTENTION in systems:
        raise InputError(f"systems: no system may be called {ATTENTION!r}; the attention checks are")
    if not prompts:
        raise InputError("no prompts")
    for field in ("raters", "votes_per_pair", "trials_per_rater"):
        if getattr(settings, field) < 1:
            raise InputError(f"{field} is {getattr(settings, field)}, and must be at least 1")
    if not 0 <= settings.check_share <= 0.5:
        raise InputError(f"check_share is {settings.check_share}, and must lie in [0, 0.5]")
    if (copies := math.ceil(settings.votes_per_pair / len(prompts))) > settings.raters:
        raise InputError(
            f"{settings.votes_per_pair} votes per pair on {len(prompts)} prompts need {copies} raters, since nobody "
            f"sees a comparison twice; there are {settings.raters}"
        )


def _comparisons(
    systems: Sequence[str], prompts: Sequence[str], settings: DesignSettings
) -> list[list[PlannedComparison]]:
    """All real comparisons, those that differ in left and right alone grouped."""
    order = random.Random(f"{settings.seed}:pairs")
    shuffled_systems, shuffled_prompts = list(systems), list(prompts)
    order.shuffle(shuffled_systems)
    order.shuffle(shuffled_prompts)
    votes, count = settings.votes_per_pair, len(prompts)
    pairs = list(itertools.combinations(range(len(systems)), 2))
    order.shuffle(pairs)
    groups: dict[tuple[str, str, frozenset[str]], list[PlannedComparison]] = {}
    position = 0
    for turn, question in enumerate(QUESTIONS):
        for low, high in pairs:
            # The parity of round + position alternates along the prompts and, for one prompt, along its copies.
            sides = [(j // count + j % count) % 2 for j in range(votes)]
            # An odd number leaves one side with a vote more. Each system gets it equally often, up to one, by a
            # round-robin tournament on a circle: each beats those that follow within half the circle. The other
            # question gives it to the other system.
            favours_low = (2 * (high - low) <= len(systems)) == (turn % 2 == 0)
            flip = (2 * sum(sides) < votes) != favours_low
            for j, side in enumerate(sides):
                # One running position over all pairs: the prompts are used up evenly whatever the number is.
                prompt = shuffled_prompts[(position + j) % count]
                first, second = (high, low) if side ^ flip else (low, high)
                each = PlannedComparison(question, prompt, shuffled_systems[first], shuffled_systems[second])
                groups.setdefault(each.identity, []).append(each)
            position += votes
    return list(groups.values())


def _deal(
    groups: list[list[PlannedComparison]], raters: int, draw: random.Random
) -> list[list[PlannedComparison]]:
    """Comparisons to raters: the copies of one to different raters, each to those with the least so far.

    Ties go to the rater who has seen this pair, and then this prompt, the least.
    """
    lists: list[list[PlannedComparison]] = [[] for _ in range(raters)]
    pairs: list[Counter[object]] = [Counter() for _ in range(raters)]
    prompts: list[Counter[str]] = [Counter() for _ in range(raters)]
    order = list(groups)
    draw.shuffle(order)
    for group in order:
        question, prompt, pair = group[0].identity
        chance = [draw.random() for _ in range(raters)]
        rank = [
            (len(lists[r]), pairs[r][question, pair], prompts[r][prompt], chance[r]) for r in range(raters)
        ]
        chosen = sorted(range(raters), key=rank.__getitem__)[: len(group)]
        for rater, each in zip(chosen, group, strict=True):
            lists[rater].append(each)
            pairs[rater][question, pair] += 1
            prompts[rater][prompt] += 1
    return lists


def _checks(
    systems: Sequence[str], prompts: Sequence[str], lengths: Sequence[int], settings: DesignSettings
) -> list[list[PlannedComparison]]:
    """Each rater's checks: prompts, systems, questions and sides in turn, none twice for one rater."""
    draw = random.Random(f"{settings.seed}:checks")
    names, texts = list(systems), list(prompts)
    draw.shuffle(names)
    draw.shuffle(texts)
    available = len(names) * len(texts)
    position, shares = 0, []
    for length in lengths:
        wanted = round(length * settings.check_share / (1 - settings.check_share))
        if wanted > available:
            raise InputError(
                f"{wanted} attention checks per rater, but only {available} images; lower check_share"
            )
        share = []
        for k in range(position, position + wanted):
            turn, place = divmod(k, len(texts))
            # The system moves on by one a turn: a prompt has all systems before one comes again.
            prompt, system = texts[place], names[(place + turn) % len(names)]
            question, sides = QUESTIONS[k % len(QUESTIONS)], (system, ATTENTION)
            left, right = sides if (k // len(QUESTIONS)) % 2 else sides[::-1]
            share.append(PlannedComparison(question, prompt, left, right))
        shares.append(share)
        position += wanted
    return shares


def _order(
    real: list[PlannedComparison], checks: list[PlannedComparison], draw: random.Random
) -> tuple[PlannedComparison, ...]:
    """Mixed; no prompt twice running where that can be had; one check somewhere in each equal stretch."""
    mixed = list(real)
    draw.shuffle(mixed)
    for k in range(1, len(mixed)):
        if mixed[k].prompt_id == mixed[k - 1].prompt_id:
            later = (j for j in range(k + 1, len(mixed)) if mixed[j].prompt_id != mixed[k].prompt_id)
            if (j := next(later, None)) is not None:
                mixed[k], mixed[j] = mixed[j], mixed[k]
    result, start = [], 0
    for k, check in enumerate(checks):
        end = len(mixed) * (k + 1) // len(checks)
        place = draw.randint(min(start + 1, end), end)
        result += [*mixed[start:place], check, *mixed[place:end]]
        start = end
    return tuple(result + mixed[start:])
