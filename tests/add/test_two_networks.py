"""Training with SD and SDXL pipelines in every pairing of student and teacher, as the table's part (e) asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from add.config.load import load_baseline, load_scale
from add.config.resolve import resolve
from add.config.yaml import SpecError
from add.models.diffusion import load_diffusion, trainable_unet, unet_output
from add.models.frozen import load_frozen_networks
from add.train import train
from eval.system import load_system
from tests.support.smoke import REPOSITORY, smoke_run
from tests.support.tiny_pipelines import tiny_run, write_sd, write_xl


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("networks")
    return {"sd": write_sd(root / "sd", "v_prediction"), "xl": write_xl(root / "xl")}


@pytest.mark.parametrize(("student", "teacher"), [("sd", "sd"), ("sd", "xl"), ("xl", "sd"), ("xl", "xl")])
def test_every_pair_trains_in_pixel_space_and_its_student_samples(
    smoke: Path, pipelines: dict[str, Path], tmp_path: Path, student: str, teacher: str
):
    """Breaks when a row of the table whose networks differ in text encoders, VAE or prediction cannot run."""
    run = tiny_run(pipelines[student], pipelines[teacher], teacher_guidance=2.0)
    train(run, 0, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "train" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1]
    assert all(record["loss_distill"] > 0 and record["grad_norm"] > 0 for record in records)
    trained, before = load_diffusion(str(tmp_path / "student")), load_diffusion(str(pipelines[student]))
    assert trained.resolution == 32
    assert not torch.equal(trained.unet.conv_in.weight, before.unet.conv_in.weight), "nothing was trained"
    kind = type(DiffusionPipeline.from_pretrained(tmp_path / "student")).__name__
    assert kind == {"sd": "StableDiffusionPipeline", "xl": "StableDiffusionXLPipeline"}[student]
    assert load_system(str(tmp_path / "student")).images(["a cat"], [0], 1).shape == (1, 32, 32, 3)


def test_an_sdxl_teacher_is_told_the_size_of_the_students_images(smoke: Path, pipelines: dict[str, Path]):
    """Breaks when a teacher made for 1024 pixels is told that the student's 512 are 1024."""
    run = tiny_run(pipelines["sd"], pipelines["xl"], resolution=32)
    networks = load_frozen_networks(run, "cpu")
    assert networks.teacher is not None
    added = networks.teacher.embed(["x"]).added
    assert added is not None
    assert added["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]]
    values = run.model_dump()
    del values["training"]["resolution"]
    native = load_frozen_networks(type(run).model_validate_json(json.dumps(values)), "cpu")
    assert native.teacher is not None
    assert (native.student.resolution, native.teacher.resolution) == (64, 64)


@pytest.mark.parametrize("form", ["exponential", "nfsd"])
def test_null_and_negative_prompts_reach_an_sdxl_teacher_whole(
    smoke: Path, pipelines: dict[str, Path], form: str
):
    """Breaks when guidance or NFSD gives the teacher embeddings without their pooled half or their zeros."""
    from add.batch import draw_batch
    from add.data.training_set import open_training_set
    from add.step import student_output, target_of

    nfsd = {"guidance": 7.5, "threshold": 200, "negative_prompt": "blurry"}
    run = tiny_run(pipelines["xl"], pipelines["xl"], teacher_guidance=2.0, nfsd=nfsd)
    values = run.model_dump()
    values["variant"]["loss"]["distillation"] = form
    run = type(run).model_validate_json(json.dumps(values))
    networks = load_frozen_networks(run, "cpu")
    teacher = networks.teacher
    assert teacher is not None
    data = open_training_set(run.data.train)
    batch = draw_batch(run, data, 32, teacher.latent_shape, 0, 0, 0)
    latents, images = student_output(run, networks, teacher.unet, batch)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = teacher.unet.register_forward_pre_hook(
        lambda _, given, named: calls.append((given[2], named["added_cond_kwargs"]["text_embeds"])),
        with_kwargs=True,
    )
    target_of(run, networks, latents, images, batch)
    hook.remove()
    n = len(batch.real)
    assert all(len(e) == n and len(p) == n for e, p in calls)
    zero = [not bool(e.any()) and not bool(p.any()) for e, p in calls]
    assert zero.count(True) == 1, "one pass is the null's, and it is zeros"
    assert len(calls) == (2 if form == "exponential" else 3)
    negative = teacher.embed(["blurry"])
    assert any(torch.equal(e[0], negative.embeddings[0]) for e, _ in calls) == (form == "nfsd")


def test_a_latent_distance_between_two_vaes_is_refused(smoke: Path, pipelines: dict[str, Path]):
    """Breaks when latents of two VAEs are subtracted, because a scale says so or because it calls them equal."""
    scale = load_scale(REPOSITORY / "config" / "smoke.yaml")
    baseline = load_baseline(REPOSITORY / "ablations" / "baseline.yaml")
    loss = baseline.loss.model_copy(update={"space": "latent"})
    with pytest.raises(SpecError, match="latent-space distance between two VAEs is not defined"):
        resolve(scale, baseline.model_copy(update={"teacher": "sdxl", "loss": loss}), ())
    run = tiny_run(pipelines["sd"], pipelines["xl"], space="latent")
    values = run.model_dump()
    for network in values["networks"]["diffusion"].values():
        network["latents"] = "one"
    with pytest.raises(ValueError, match=r"the VAEs differ .*scaling_factor"):
        load_frozen_networks(type(run).model_validate_json(json.dumps(values)), "cpu")


def test_the_resolution_is_left_out_of_a_runs_values_while_it_is_unset(smoke: Path):
    """Breaks when a new setting changes the values of runs that do not use it: all would be trained anew."""
    assert "resolution" not in smoke_run().training.model_dump()
    assert smoke_run(resolution=32).training.model_dump()["resolution"] == 32


def test_a_random_start_of_an_sdxl_student(pipelines: dict[str, Path]):
    """Breaks when the row without pretraining cannot be run with SDXL, or starts from the teacher's weights."""
    network = load_diffusion(str(pipelines["xl"]), resolution=32)
    x_t, t = torch.zeros(1, *network.latent_shape), torch.tensor([999])
    outputs = [network.predict(x_t, t, network.null())]
    outputs += [
        unet_output(trainable_unet(network, "random", s), x_t, t, network.null()).detach() for s in (0, 0, 1)
    ]
    assert torch.equal(outputs[1], outputs[2])
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[3])
