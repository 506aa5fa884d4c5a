"""Training of rivals as a whole: every method leaves a student that plain diffusers samples, and resumes exactly."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from add.checkpoint import latest_checkpoint
from add.config.training import CacheSpec
from add.config.yaml import SpecError
from add.errors import InputError
from add.train import is_finished
from baselines.spec import load_rival, rival_hash
from baselines.train import main, make_method, train
from tests.support.rivals import RIVALS, smoke_rival

STEPS = 6


def student_files(out: Path) -> dict[str, bytes]:
    folder = out / "student"
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def interrupt(patched: pytest.MonkeyPatch, at: int) -> None:
    def stop(log: Any, step: int, numbers: Any) -> None:
        if step == at:
            raise KeyboardInterrupt

    patched.setattr("add.log.TrainLog.scalars", stop)


FAST = ("progressive", "dmd2")  # stages, and several modules and optimisers
BY_COST = [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in RIVALS]


@pytest.mark.parametrize("method", BY_COST)
def test_each_method_resumes_to_the_same_bits_and_is_sampled_without_this_project(
    smoke: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
):
    from diffusers import DiffusionPipeline

    from eval.system import load_system

    spec = smoke_rival(method, steps=STEPS, checkpoint_every=1, log_every=1, pictures_every=STEPS)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(spec, 1, whole)
    for at in (1, 3):
        with monkeypatch.context() as patched:
            interrupt(patched, at)
            with pytest.raises(KeyboardInterrupt):
                train(spec, 1, broken)
        found = latest_checkpoint(broken / "train" / "checkpoints")
        assert found is not None
        assert found.name == f"step-{at:07d}.safetensors"
    train(spec, 1, broken)
    ours, theirs = student_files(whole), student_files(broken)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []

    before = make_method(spec, 1, "cpu", None).network.unet.state_dict()
    pipeline = DiffusionPipeline.from_pretrained(whole / "student")
    assert any(not torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    pipeline.set_progress_bar_config(disable=True)
    note = json.loads((whole / "student" / "student.json").read_text())
    assert tuple(map(int, note["timesteps"])) == spec.sampled_steps, "files of systems are held to these"
    system = load_system(str(whole / "student"))
    for steps, timesteps in system.timesteps.items():
        ours_now = system.images(["a red circle"], [3], steps)
        assert list(system.called[0]) == timesteps == note["timesteps"][str(steps)]
        plain = pipeline(
            "a red circle",
            num_inference_steps=steps,
            guidance_scale=note["guidance_scale"],
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images
        assert plain.std() > 0
        assert (ours_now == (plain * 255).round()).all(), "student.json and the scheduler disagree"
    facts = json.loads((whole / "train" / "train.json").read_text())
    again = json.loads((broken / "train" / "train.json").read_text())
    assert facts["calls"] == again["calls"], "calls before the interruption were forgotten"
    assert facts["calls"]["student"]["differentiated"] >= spec.training.batch
    assert facts["spec_hash"] == rival_hash(spec)
    assert facts["weights"].keys() == {*spec.networks.diffusion, *spec.networks.features} | {
        name for name in ("c_text", "c_img") if getattr(spec.networks, name)
    }


@pytest.mark.parametrize("method", RIVALS)
def test_an_update_is_a_function_of_its_state_and_changes_nothing_frozen(smoke: Path, method: str):
    from add.batch import draw_batch
    from add.data.training_set import open_training_set

    spec = smoke_rival(method, steps=STEPS)
    data = open_training_set(spec.data.train)
    found = []
    for _ in range(2):
        made = make_method(spec, 0, "cpu", None)
        network = made.network
        frozen = [network.unet, network.vae, *network.text.encoders]
        before = [{k: v.clone() for k, v in module.state_dict().items()} for module in frozen]
        for step in range(3):
            made.update(draw_batch(spec, data, network.resolution, network.latent_shape, 0, step, 0), step)
        for module, state in zip(frozen, before, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
            assert all(p.grad is None for p in module.parameters())
        found.append([value.clone() for value in made.student.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_command_line_trains_a_spec_written_as_json(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = smoke_rival("lcm", steps=2)
    file, out = tmp_path / "rival.json", tmp_path / "out"
    file.write_text(spec.model_dump_json())
    assert load_rival(file) == spec
    monkeypatch.setattr(sys, "argv", ["baselines.train", "--spec", str(file), "--out", str(out)])
    assert not main()
    facts = {"spec_hash": rival_hash(spec), "seed": 0}
    assert is_finished(out, facts)
    assert not is_finished(out, {**facts, "seed": 1})
    assert not is_finished(out, {**facts, "spec_hash": rival_hash(smoke_rival("lcm", steps=3))})
    shutil.rmtree(out / "student")
    assert not is_finished(out, facts)


def test_a_cache_of_encodings_changes_no_bit(smoke: Path, tmp_path: Path):
    spec = smoke_rival("lcm", steps=3)
    cache = CacheSpec(directory=str(tmp_path / "cache"))
    train(spec, 0, tmp_path / "plain")
    for name in ("filling", "filled"):
        train(spec, 0, tmp_path / name, cache=cache)
        assert student_files(tmp_path / name) == student_files(tmp_path / "plain")
    facts = [
        json.loads((tmp_path / n / "train/train.json").read_text())["calls"] for n in ("plain", "filled")
    ]
    assert facts[0]["encoder"]["images"] == 3 * spec.training.batch
    assert facts[1]["encoder"]["images"] == 0


def test_another_spec_starts_anew_and_other_data_are_refused(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = smoke_rival("lcm", steps=3, checkpoint_every=1, log_every=1)
    with monkeypatch.context() as patched:
        interrupt(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            train(spec, 0, tmp_path / "out")
    file = smoke / "data/smoke/networks/sd21/scheduler/scheduler_config.json"
    before = file.read_bytes()
    file.write_text(json.dumps(json.loads(before) | {"steps_offset": 0}))
    try:
        with pytest.raises(InputError, match="configurations of sd21"):
            train(spec, 0, tmp_path / "out")
    finally:
        file.write_bytes(before)
    edited = smoke_rival("lcm", {"skip": 40}, steps=3, checkpoint_every=1, log_every=1)
    train(edited, 0, tmp_path / "out")
    kept = tmp_path / "out" / "train" / f"checkpoints-{rival_hash(spec)}"
    assert latest_checkpoint(kept) is not None
    train(edited, 0, tmp_path / "fresh")
    assert student_files(tmp_path / "out") == student_files(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("own", "training", "said"),
    [
        ({"skip": 30}, {}, "30 does not divide the schedule's 1000 timesteps"),
        ({"skp": 20}, {}, "unknown key 'rival.skp'"),
        ({}, {"accumulate": 2}, "a rival trains plainly: leave accumulate at \\[1\\]"),
        ({}, {"steps": 0}, "training.steps"),
        ({}, {"step": 5}, "unknown key 'training.step'"),
    ],
)
def test_wrong_settings_are_refused_by_name(own: dict[str, Any], training: dict[str, Any], said: str):
    with pytest.raises(SpecError, match=said):
        smoke_rival("lcm", own, **training)


def test_housekeeping_is_not_part_of_the_hash_and_a_methods_value_is():
    spec = smoke_rival("lcm")
    assert rival_hash(smoke_rival("lcm", checkpoint_every=7)) == rival_hash(spec)
    assert rival_hash(smoke_rival("lcm", {"skip": 40})) != rival_hash(spec)
    assert rival_hash(smoke_rival("lcm", ema=0.5)) != rival_hash(spec)
