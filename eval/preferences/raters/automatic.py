"""Automatic raters: every pair of systems on every prompt, as the same CSV that people hand in.

    python -m eval.preferences.raters.automatic --systems FILE.json --scale config/mini.yaml \\
        --reference results/mini/reference --out automatic.csv

Each rater gives every image a number, and prefers the higher one; equal numbers are a tie. It says what it is:
rater_kind oracle (it knows the built-in world's truth) or model (trained on people's preferences). It sees both
images at once, so nothing stands left; there is no time and no attention check. The same input, the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from add.config.study import Hpsv2RaterSpec, PickScoreRaterSpec
from add.device import add_device_option, open_device
from add.errors import InputError, refuses
from add.lock import only_writer
from eval.metrics.alignment import Scene, scenes_of
from eval.preferences.reader import write_votes
from eval.preferences.record import UNKNOWN, Question, RaterKind, Vote, Winner
from eval.preferences.study.sources import ComparedSystem, read_sources
from eval.reference import load_reference
from eval.stage import RaterValues, add_scale_option

RATERS: Mapping[str, tuple[str, RaterKind]] = {
    "scene_graph": ("scene-graph", "oracle"),
    "realism": ("realism", "oracle"),
    "pickscore": ("pickscore", "model"),
    "hpsv2": ("hpsv2", "model"),
}
"""Each kind of automatic rater: its name and its rater_kind in the records."""

_DIGITS = 6
"""Significant digits that decide: the last bits of a network's output differ from machine to machine."""


@dataclass(frozen=True)
class Answers:
    """One rater's numbers under one question: system -> (prompts,), in the order of the first system's prompts."""

    question: Question
    rater: str
    rater_kind: RaterKind
    scores: Mapping[str, NDArray[np.float64]]


def rate_automatically(
    values: RaterValues, sources: Sequence[ComparedSystem], reference: Path, device: str = "cpu"
) -> tuple[Vote, ...]:
    """The votes of all raters that the scale's study names.

    reference: the directory that eval.reference wrote. Raises InputError, WeightsError.
    """
    answers: list[Answers] = []
    if {"scene_graph", "realism"}.intersection(rater.kind for rater in values.automatic):
        answers += _oracles(values, sources, reference, device)
    for rater in values.automatic:
        if rater.kind == "pickscore" or rater.kind == "hpsv2":
            answers += _reward(rater, values.evaluation.batch, sources, device)
    study = f"{values.name}-automatic"
    return tuple(vote for each in answers for vote in votes_of(each, sources, study))


def votes_of(answers: Answers, sources: Sequence[ComparedSystem], study: str) -> Iterator[Vote]:
    """One vote for each prompt and pair of systems; equal numbers, to 6 digits, are a tie."""
    shown = {
        name: np.array([float(f"{v:.{_DIGITS}g}") for v in values]) for name, values in answers.scores.items()
    }
    for place, (prompt_id, sample) in enumerate(sources[0].samples.items()):
        for a, b in combinations(sources, 2):
            first, second = shown[a.name][place], shown[b.name][place]
            if not (np.isfinite(first) and np.isfinite(second)):
                raise InputError(answers.rater, f"the score on prompt {prompt_id!r} is not finite")
            winner: Winner = "tie" if first == second else "a" if first > second else "b"
            yield Vote(
                prompt_id=prompt_id,
                prompt=sample.prompt,
                system_a=a.name,
                system_b=b.name,
                image_a=a.image_id(prompt_id),
                image_b=b.image_id(prompt_id),
                question=answers.question,
                winner=winner,
                rater=answers.rater,
                rater_kind=answers.rater_kind,
                shown_left="none",
                time=UNKNOWN,
                attention_check="no",
                study=study,
            )


def attributes_right(answers: Sequence[Mapping[str, str]], scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """Number of attributes that each image shows as its scene states them: (n,)."""
    right = [
        sum(answer[group] == value for group, value in scene.items() if value is not None)
        for answer, scene in zip(answers, scenes, strict=True)
    ]
    return np.array(right, dtype=np.float64)


def _oracles(
    values: RaterValues, sources: Sequence[ComparedSystem], reference: Path, device: str
) -> list[Answers]:
    """Scene graph and realism, those that the study names, from one decode and one resize of each image."""
    from eval.metrics.alignment import load_oracle
    from eval.metrics.features import load_extractor
    from eval.metrics.measure import measure
    from eval.preferences.raters.scores import fit_realism

    evaluation, kinds = values.evaluation, {rater.kind for rater in values.automatic}
    oracle = scenes = extractor = realism = None
    if "scene_graph" in kinds and evaluation.oracle is not None:
        oracle = load_oracle(evaluation.oracle, device)
        file = oracle.source.file
        texts = [sample.prompt for sample in sources[0].samples.values()]
        scenes = scenes_of(texts, oracle.scenes, file)
        if scenes is None:
            raise InputError(f"{file}: has a scene for none of the study's {len(texts)} prompts")
    if "realism" in kinds:
        extractor = load_extractor(evaluation.extractor, device)
        realism = fit_realism(load_reference(reference, evaluation, extractor).features)
    right: dict[str, NDArray[np.float64]] = {}
    real: dict[str, NDArray[np.float64]] = {}
    for source in sources:
        images = _batches(source, list(sources[0].samples), evaluation.resolution, evaluation.batch)
        seen = measure(images, extractor=extractor, oracle=oracle)
        if seen.answers is not None and scenes is not None:
            right[source.name] = attributes_right(seen.answers, scenes)
        if seen.features is not None and realism is not None:
            real[source.name] = realism.scores(seen.features)
    found = (
        Answers("alignment", *RATERS["scene_graph"], right),
        Answers("quality", *RATERS["realism"], real),
    )
    return [answers for answers in found if answers.scores]


def _reward(
    rater: PickScoreRaterSpec | Hpsv2RaterSpec, batch: int, sources: Sequence[ComparedSystem], device: str
) -> list[Answers]:
    from eval.preferences.raters.scores import load_hpsv2, load_pickscore

    model = load_pickscore(rater, device) if rater.kind == "pickscore" else load_hpsv2(rater, device)
    texts = [sample.prompt for sample in sources[0].samples.values()]
    scores = {}
    for source in sources:
        batches = enumerate(_batches(source, list(sources[0].samples), source.resolution, batch))
        parts = [model.scores(images, texts[k * batch : (k + 1) * batch]) for k, images in batches]
        scores[source.name] = np.concatenate(parts)
    return [Answers(question, *RATERS[rater.kind], scores) for question in rater.questions]


def _batches(
    source: ComparedSystem, prompt_ids: Sequence[str], side: int, size: int
) -> Iterator[NDArray[np.uint8]]:
    """uint8 (n, side, side, 3), n <= size, in the order of the prompts."""
    for start in range(0, len(prompt_ids), size):
        yield np.stack([source.pixels(key, side) for key in prompt_ids[start : start + size]])


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; 1 and the reason on stderr where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m eval.preferences.raters.automatic", description=__doc__)
    parser.add_argument("--systems", type=Path, required=True, help="JSON list of {name, samples}")
    add_scale_option(parser)
    parser.add_argument("--reference", type=Path, required=True, help="what eval.reference wrote")
    parser.add_argument("--out", type=Path, required=True, help="the preference file to write")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    values = RaterValues.read(options.scale)
    device = open_device(options.device, values.device, values.threads)
    with only_writer(options.out):
        votes = rate_automatically(values, read_sources(options.systems), options.reference, device)
        write_votes(options.out, votes)
    raters = ", ".join(sorted({f"{vote.rater} ({vote.rater_kind})" for vote in votes}))
    print(f"{len(votes)} votes by {raters}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
