"""FID of handed-in mean and covariance: against that of the images themselves, and what does not match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from add.config.scale import Scale
from add.errors import REFUSED, InputError
from eval.images import read_samples
from eval.metrics.distances import statistics
from eval.metrics.measure import load_metric_networks, measure
from eval.metrics.statistics_file import write_statistics
from eval.prompts import read_prompts
from eval.reference import make_reference, reference_settings
from eval.result import SystemResult, read_system_result
from eval.score import SystemFacts, score_system
from eval.stage import MeasureValues
from eval.statistics_score import GivenStatistics, main, score_statistics
from tests.support.evaluation import SIDE, make_world, write_samples

FACTS = SystemFacts(system="x", label="X, 1 step")
COUNT = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scale]:
    """Networks, reference, samples of a system; its statistics with settings (own.npz) and without (foreign.npz)."""
    root = tmp_path_factory.mktemp("world")
    scale = make_world(root, COUNT, 9)
    values = MeasureValues.of(scale)
    make_reference(values, root / "reference")
    prompts = [(p.prompt_id, p.prompt) for p in read_prompts(values.prompts["coco"])]
    folder = write_samples(root / "system/samples/coco-1step", prompts, 1)
    networks = load_metric_networks(values.evaluation)
    images = read_samples(folder, SIDE).batches(4)
    features = measure(images, extractor=networks.extractor).features
    assert features is not None
    settings = reference_settings(values.evaluation, networks.extractor)
    kept = {key: settings[key] for key in ("extractor", "image_rule")}
    write_statistics(root / "own.npz", statistics(features), kept)
    write_statistics(root / "foreign.npz", statistics(features))
    np.savez(root / "small.npz", mu=np.zeros(3), sigma=np.eye(3))
    write_statistics(root / "other.npz", statistics(features), {**kept, "image_rule": {"resolution": 64}})
    return root, scale


def scored(world: tuple[Path, Scale], name: str, **changed: Any) -> SystemResult:
    root, scale = world
    given = {"file": root / name, "prompts": "coco", "steps": 1, "count": COUNT, **changed}
    return score_statistics(GivenStatistics(**given), FACTS, MeasureValues.of(scale), root / "reference")


def test_the_fid_is_that_of_the_images_and_of_a_checked_file_under_one_protocol(
    world: tuple[Path, Scale],
) -> None:
    root, scale = world
    images = score_system(root / "system", 1, FACTS, MeasureValues.of(scale), root / "reference")
    wanted = images.systems[0].metrics["fid"]
    (own,), (foreign,) = scored(world, "own.npz").systems, scored(world, "foreign.npz").systems
    assert set(own.metrics) == {"fid"}
    assert own.images == COUNT
    assert own.metrics["fid"].value == pytest.approx(wanted.value, rel=1e-9)
    assert own.metrics["fid"].interval is None
    assert own.metrics["fid"].protocol == wanted.protocol
    assert foreign.metrics["fid"].value == pytest.approx(wanted.value, rel=1e-9)
    assert foreign.metrics["fid"].protocol != wanted.protocol, "nothing says by what it was measured"


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("own.npz", {"count": 5}, "is of 5 images, and of 'coco' by 1 step.* 6 are measured"),
        ("own.npz", {"prompts": "parti"}, "needs a prompt set of kind coco"),
        ("own.npz", {"prompts": "cocoa"}, "needs a prompt set of kind coco"),
        ("small.npz", {}, r"mu has the shape \(3,\)"),
        ("other.npz", {}, "was made under another image_rule"),
    ],
)
def test_what_does_not_match_is_refused(
    world: tuple[Path, Scale], name: str, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=rf"{name}: .*{reason}"):
        scored(world, name, **changed)


def test_the_command_writes_a_systems_result(world: tuple[Path, Scale], tmp_path: Path) -> None:
    root, scale = world
    out = tmp_path / "result.json"
    line = ["--statistics", str(root / "own.npz"), "--set", "coco", "--steps", "1", "--device", "cpu"]
    line += ["--scale", MeasureValues.of(scale).model_dump_json(), "--reference", str(root / "reference")]
    line += ["--facts", json.dumps(FACTS.model_dump(exclude_none=True)), "--out", str(out)]
    assert main([*line, "--count", "6"]) == 0
    found = read_system_result(out)
    assert (found.label, found.systems[0].steps) == ("X, 1 step", 1)
    assert "no interval" in (found.systems[0].metrics["fid"].note or "")
    assert main([*line, "--count", "7"]) == REFUSED
