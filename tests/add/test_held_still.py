"""The heads learn: with the student held still they tell real from generated images, on the mini scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.config.run import Run
from tests.support.smoke import REPOSITORY

STEPS = 120


@pytest.mark.slow
@pytest.mark.parametrize(("run_name", "least"), [("baseline", 0.5), ("discriminator_conditioning-none", 0.2)])
def test_every_heads_gap_opens_with_the_student_held_still(
    run_name: str, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Would break with features that carry nothing, a detached or wrongly signed hinge, too strong an R1, or
    # augmentation that hides what is generated. In joint training the student closes the gap as it opens.
    from add.train import train
    from mini.dataset import write_dataset

    monkeypatch.chdir(REPOSITORY)
    scale = load_scale(REPOSITORY / "config" / "mini.yaml")
    images = STEPS * scale.training.batch
    write_dataset(tmp_path / "data" / "mini", train=images, val=1, reference=1, prompts=12)
    ablations = REPOSITORY / "ablations"
    table = resolve(scale, load_baseline(ablations / "baseline.yaml"), load_ablations(ablations))
    values = table.runs[run_name].model_dump()
    values["training"] |= {"steps": STEPS, "pictures_every": 1000, "checkpoint_every": 1000}
    values["training"]["student_optimiser"]["lr"] = 1e-12
    for key in ("images", "annotations"):
        values["data"]["train"][key] = str(tmp_path / values["data"]["train"][key])
    run = Run.model_validate_json(json.dumps(values))
    train(run, seed=0, out=tmp_path / "out")
    lines = [json.loads(s) for s in (tmp_path / "out" / "train" / "log.jsonl").read_text().splitlines()]
    heads = [key for key in lines[-1] if key.startswith("gap_")]
    assert len(heads) == 3
    for head in heads:
        late = [line[head] for line in lines[-3:]]
        assert min(late) > least, f"{head}: {late}"
