"""What docs/miniature.md says must hold, of the shipped study with many seeds: medians over training seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import Table, resolve
from eval.findings.present import present_study
from eval.findings.store import read_store
from eval.result import Result, ResultSystem

ROOT = Path(__file__).parents[1]
BASELINE, ADVERSARIAL, DISTILLATION, RANDOM = (
    "baseline",
    "loss_terms-l-adv",
    "loss_terms-l-distill",
    "student_pretraining-random",
)


def table(ablations: str) -> Table:
    """The miniature's runs of a folder of ablations."""
    scale = load_scale(ROOT / "config" / "mini.yaml")
    return resolve(
        scale, load_baseline(ROOT / "ablations" / "baseline.yaml"), load_ablations(ROOT / ablations)
    )


def counted(ablations: str, *needed: str) -> dict[str, tuple[Result, ...]]:
    """The results of each run of a folder of ablations that count, by training seed; at least two of `needed`."""
    study = present_study(load_scale(ROOT / "config" / "mini.yaml"), table(ablations))
    found = read_store(ROOT / "replication" / "mini").counted(study).results
    if lacking := [name for name in needed if len(found[name]) < 2]:
        pytest.skip(f"replication/mini has fewer than two runs of {', '.join(lacking)}")
    return dict(found)


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[Result, ...]]:
    """Those of the table."""
    return counted("ablations", BASELINE, ADVERSARIAL, DISTILLATION, RANDOM)


def systems(found: tuple[Result, ...], steps: int) -> list[ResultSystem]:
    """A run's COCO samples at this many steps, by seed."""
    return [s for result in found for s in result.systems if (s.prompts, s.steps) == ("coco", steps)]


def right(found: tuple[Result, ...], steps: int) -> float:
    """The median share of images with every attribute right."""
    return statistics.median(s.metrics["alignment"].value for s in systems(found, steps))


def distances(found: tuple[Result, ...], steps: int) -> list[float]:
    """FIDs of as many images at one step as at four."""
    return [s.comparable.metrics["fid"].value for s in systems(found, steps)]


def fid(found: tuple[Result, ...], steps: int) -> float:
    """Their median."""
    return statistics.median(distances(found, steps))


def test_a_random_start_is_useless(results: dict[str, tuple[Result, ...]]) -> None:
    assert fid(results[RANDOM], 1) >= 3 * fid(results[BASELINE], 1)
    assert fid(results[RANDOM], 4) >= 5 * fid(results[BASELINE], 4)
    assert right(results[RANDOM], 1) < 0.05


def test_distillation_alone_loses_the_texture(results: dict[str, tuple[Result, ...]]) -> None:
    assert max(distances(results[BASELINE], 1)) < min(distances(results[DISTILLATION], 1))
    assert fid(results[BASELINE], 4) <= fid(results[DISTILLATION], 4) / 2


def test_the_adversarial_loss_alone_loses_the_prompt(results: dict[str, tuple[Result, ...]]) -> None:
    assert right(results[BASELINE], 1) > right(results[ADVERSARIAL], 1)
    assert right(results[BASELINE], 1) >= 0.85


def test_four_steps_beat_one(results: dict[str, tuple[Result, ...]]) -> None:
    assert fid(results[BASELINE], 4) < fid(results[BASELINE], 1)


def test_heads_separate_real_from_generated_pictures(results: dict[str, tuple[Result, ...]]) -> None:
    runs = table("ablations").runs
    dead = [
        f"{name}, seed {result.seed}"
        for name, found in results.items()
        if runs[name].variant.loss.adversarial > 0
        for result in found
        if not result.provenance.train["diagnosis"]["heads_separate"]
    ]
    assert not dead


def test_a_constant_c_is_no_worse_than_none() -> None:
    none, constant = "condition_given-none", "condition_given-one-constant-c"
    found = counted("ablations/ours", none, constant)
    for steps in (1, 4):
        assert fid(found[constant], steps) <= fid(found[none], steps)
