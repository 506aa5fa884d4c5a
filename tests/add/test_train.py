"""Training as a whole: who receives gradients, what is loaded, and that a killed run ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from add.batch import draw_batch
from add.checkpoint import latest_checkpoint
from add.config.run import Run
from add.data.training_set import open_training_set
from add.errors import InputError
from add.identity import spec_hash
from add.losses import (
    distillation_loss,
    distillation_weight,
    hinge_discriminator,
    hinge_generator,
    r1_penalty,
    weight_factor,
)
from add.models.diffusion import trainable_unet
from add.models.frozen import FrozenNetworks, load_frozen_networks, make_heads
from add.noise import ddim_timesteps
from add.step import discriminator_features, losses, student_output, target_of
from add.train import train
from tests.support.smoke import REPOSITORY, smoke_run
from tests.support.training_data import png

LATENT = (4, 8, 8)


def parts(run: Run, seed: int = 0, step: int = 0):
    networks = load_frozen_networks(run, "cpu")
    data = open_training_set(run.data.train)
    unet = trainable_unet(networks.student, run.variant.student_init, seed)
    heads = make_heads(run, networks, 32, seed)
    batch = draw_batch(run, data, 32, LATENT, seed, step, 0)
    return networks, unet, heads, batch


def gradients(module: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def frozen_modules(networks: FrozenNetworks) -> list[torch.nn.Module]:
    found = [networks.student.unet, networks.student.vae, *networks.student.text.encoders]
    if networks.teacher is not None:
        found += [networks.teacher.unet, networks.teacher.vae, *networks.teacher.text.encoders]
    return found + list(networks.side_networks.values())


def test_the_adversarial_gradient_reaches_the_student_through_decoder_and_features(smoke: Path):
    run = smoke_run("loss_terms-l-adv")
    networks, unet, heads, batch = parts(run)
    assert networks.teacher is None, "an adversarial run has nothing to distil"
    student_loss, _, _ = losses(run, networks, unet, heads, batch)
    student_loss.backward()
    assert gradients(unet) > 0


def test_nothing_frozen_receives_a_gradient_and_each_player_only_its_own(smoke: Path):
    run = smoke_run("teacher_type-sd2-1-sdxl")
    networks, unet, heads, batch = parts(run)
    assert heads is not None
    student_loss, head_loss, _ = losses(run, networks, unet, heads, batch)
    student_loss.backward()
    assert gradients(unet) > 0
    assert gradients(heads) == 0, "the student's loss trains the heads"
    unet.zero_grad()
    assert head_loss is not None
    head_loss.backward()
    assert gradients(heads) > 0
    assert gradients(unet) == 0, "the heads' loss trains the student"
    for module in frozen_modules(networks):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())


def test_one_pass_of_the_heads_gives_the_gradients_of_a_pass_for_each_player(smoke: Path):
    # The heads see the generated images once for both losses; written plainly, each player has a pass of its own.
    run = smoke_run()
    networks, unet, heads, batch = parts(run)
    assert heads is not None
    assert networks.features is not None
    heads.eval()  # no power iteration, which moves the heads by the number of passes
    draws = batch.draws.get_state()
    student_loss, head_loss, values = losses(run, networks, unet, heads, batch)
    assert head_loss is not None
    student_loss.backward()
    head_loss.backward(inputs=list(heads.parameters()))
    ours = [p.grad.clone() for p in (*unet.parameters(), *heads.parameters()) if p.grad is not None]

    unet.zero_grad()
    heads.zero_grad()
    batch.draws.set_state(draws)
    latents, images = student_output(run, networks, unet, batch)
    target, weight = target_of(run, networks, latents, images, batch)
    distil = distillation_loss(images, target, weight, "positions", latents[0, 0].numel())
    fake = discriminator_features(run, images, networks.features, batch)
    given = networks.conditions(batch.real, batch.prompts)
    adversarial = hinge_generator(heads(fake, given))
    plain = adversarial + run.variant.loss.distillation_weight * distil
    plain.backward(inputs=list(unet.parameters()))
    real = [f.requires_grad_(True) for f in discriminator_features(run, batch.real, networks.features, batch)]
    real_logits = heads(real, given)
    hinge = hinge_discriminator(real_logits, heads([f.detach() for f in fake], given))
    gamma = run.variant.discriminator.r1_gamma
    (hinge + gamma * r1_penalty(real_logits, real)).backward(inputs=list(heads.parameters()))
    theirs = [p.grad for p in (*unet.parameters(), *heads.parameters()) if p.grad is not None]
    torch.testing.assert_close(student_loss, plain)
    torch.testing.assert_close(values["loss_g_adv"], adversarial.detach())
    assert len(ours) == len(theirs) > 10
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_distillation_alone_needs_no_heads_and_trains_the_student(smoke: Path):
    run = smoke_run("loss_terms-l-distill")
    networks, unet, heads, batch = parts(run)
    assert heads is None
    assert networks.features is None
    student_loss, head_loss, values = losses(run, networks, unet, heads, batch)
    assert head_loss is None
    torch.testing.assert_close(student_loss.detach(), 2.5 * values["loss_distill"])
    student_loss.backward()
    assert gradients(unet) > 0


def test_the_teacher_sees_the_diffused_student_output_and_never_the_real_image(smoke: Path):
    # A common mistake of re-implementations is to give the teacher noised *real* images.
    run = smoke_run()
    networks, unet, _, batch = parts(run)
    latents, images = student_output(run, networks, unet, batch)
    calls: list[torch.Tensor] = []
    hook = networks.teacher.unet.register_forward_pre_hook(lambda _, given: calls.append(given[0].clone()))
    target_of(run, networks, latents, images, batch)
    hook.remove()
    schedule = networks.teacher.schedule
    a, s = schedule.alphas[batch.t].view(-1, 1, 1, 1), schedule.sigmas[batch.t].view(-1, 1, 1, 1)
    torch.testing.assert_close(calls[0], a * latents.detach() + s * batch.noise_t)
    real = networks.student.encode(batch.real)
    assert not torch.allclose(calls[0], a * real + s * batch.noise_t, atol=1e-2)


def test_a_mean_weight_as_the_exponential_ones_multiplies_the_weight_alone(smoke: Path):
    run = smoke_run("loss_terms-l-adv-lambda-l-distill-sds")
    loss = run.variant.loss.model_copy(update={"mean_weight": "exponential"})
    scaled = run.model_copy(update={"variant": run.variant.model_copy(update={"loss": loss})})
    networks, unet, _, batch = parts(run)
    latents, images = student_output(run, networks, unet, batch)
    (target, weight), (same, more) = (
        target_of(each, networks, latents, images, batch) for each in (run, scaled)
    )
    torch.testing.assert_close(same, target)
    factor = weight_factor(networks.teacher.schedule, run.training.distillation_timesteps, "sds")
    torch.testing.assert_close(more, factor * weight)
    assert factor > 2


def test_a_teacher_with_another_vae_sees_the_decoded_image_in_its_own_latents(smoke: Path):
    run = smoke_run("teacher_type-sd2-1-sdxl")
    networks, unet, _, batch = parts(run)
    assert not networks.shared_latents
    latents, images = student_output(run, networks, unet, batch)
    calls: list[torch.Tensor] = []
    hook = networks.teacher.unet.register_forward_pre_hook(lambda _, given: calls.append(given[0].clone()))
    target, _ = target_of(run, networks, latents, images, batch)
    hook.remove()
    schedule = networks.teacher.schedule
    a, s = schedule.alphas[batch.t].view(-1, 1, 1, 1), schedule.sigmas[batch.t].view(-1, 1, 1, 1)
    encoded = networks.teacher.encode(images.detach())
    torch.testing.assert_close(calls[0], a * encoded + s * batch.noise_t)
    assert target.shape == images.shape, "the two are compared in pixels"


def test_the_student_starts_from_pure_noise_at_the_last_timestep(smoke: Path):
    run = smoke_run(student_timesteps=[500, 999], student_timestep_weights=[1e-9, 1.0])
    networks, unet, _, batch = parts(run)
    assert bool((batch.s == 999).all())
    first, _ = student_output(run, networks, unet, batch)
    darker = type(batch)(**{**vars(batch), "real": batch.real * 0.5})
    second, _ = student_output(run, networks, unet, darker)
    assert torch.equal(first, second), "at s = 999 the student saw something of the real image"


def test_all_variants_of_one_seed_draw_the_same_data_timesteps_and_noise(smoke: Path):
    data_run, other = smoke_run(), smoke_run("loss_terms-l-adv")
    data = open_training_set(data_run.data.train)
    a = draw_batch(data_run, data, 32, LATENT, 3, 7, 0)
    b = draw_batch(other, data, 32, LATENT, 3, 7, 0)
    c = draw_batch(other, data, 32, LATENT, 4, 7, 0)
    for name in ("real", "s", "t", "noise", "noise_t"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.prompts == b.prompts
    assert not torch.equal(a.noise, c.noise), "another seed must draw other noise"


def test_conditioning_is_on_the_real_image_and_its_caption(smoke: Path):
    run = smoke_run()
    networks, _, _, batch = parts(run)
    given = networks.conditions(batch.real, batch.prompts)
    assert set(given) == {"text", "image"}
    torch.testing.assert_close(given["image"], networks.c_img(batch.real))
    none = smoke_run("discriminator_conditioning-none")
    assert load_frozen_networks(none, "cpu").conditions(batch.real, batch.prompts) == {}


def test_accumulation_gives_the_gradient_of_the_whole_batch(smoke: Path):
    whole = smoke_run("loss_terms-l-distill", batch=4, virtual_batch=1)
    halves = smoke_run("loss_terms-l-distill", batch=4, accumulate=2, virtual_batch=1)
    networks, unet, _, full = parts(whole)
    loss, _, values = losses(whole, networks, unet, None, full)
    loss.backward()
    norms = [float(values["gradient_distill"])]
    expected = [p.grad.clone() for p in unet.parameters() if p.grad is not None]
    unet.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        part = type(full)(
            full.real[half],
            full.prompts[half],
            full.s[half],
            full.t[half],
            full.noise[half],
            full.noise_t[half],
            full.draws,
        )
        loss, _, values = losses(halves, networks, unet, None, part)
        (loss / halves.training.accumulate).backward()
        norms.append(float(values["gradient_distill"]))
    found = [p.grad for p in unet.parameters() if p.grad is not None]
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    # What is logged is a sample's, whatever the parts: their mean is the whole batch's.
    assert sum(norms[1:]) / 2 == pytest.approx(norms[0], rel=1e-3)


def test_nfsd_is_weighed_at_the_timestep_of_its_direction(smoke: Path):
    run = smoke_run("loss_terms-l-adv-lambda-l-distill-nfsd")
    run = run.model_copy(update={"variant": run.variant.model_copy(update={"teacher_steps": 2})})
    networks, unet, _, batch = parts(run)
    assert networks.teacher is not None
    _, weight = target_of(run, networks, *student_output(run, networks, unet, batch), batch)
    last = ddim_timesteps(batch.t, 2)[-1]
    assert not torch.equal(last, batch.t)
    torch.testing.assert_close(weight, distillation_weight(networks.teacher.schedule, last, "nfsd"))


def test_random_and_pretrained_starts_differ_and_are_reproducible(smoke: Path):
    run = smoke_run()
    student = load_frozen_networks(run, "cpu").student
    name = "conv_in.weight"
    random = [trainable_unet(student, "random", seed).state_dict()[name] for seed in (0, 0, 1)]
    assert torch.equal(random[0], random[1])
    assert not torch.equal(random[0], random[2])
    assert torch.equal(
        trainable_unet(student, "pretrained", 5).state_dict()[name], student.unet.state_dict()[name]
    )


@pytest.mark.parametrize(
    "name", ["student_pretraining-random", "loss_terms-l-adv-lambda-l-distill-nfsd", "teacher_steps-4"]
)
def test_other_variants_train_and_leave_what_readers_expect(smoke: Path, tmp_path: Path, name: str):
    train(smoke_run(name, steps=2, pictures_every=1), 0, tmp_path)
    assert (tmp_path / "student" / "model_index.json").exists()
    records = [json.loads(line) for line in (tmp_path / "train" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [0, 1]
    assert {"loss_g", "loss_g_adv", "loss_distill", "loss_d", "r1", "gap", "gap_0", "lr"} <= set(records[0])
    assert list((tmp_path / "train" / "pictures").glob("*-real-student-target.png"))
    assert list((tmp_path / "train" / "tensorboard").iterdir())
    assert json.loads((tmp_path / "train" / "train.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("variant", "training"),
    [
        ({"loss.space": "latent"}, {}),
        (
            {"loss.distillation": "nfsd"},
            {"nfsd": {"guidance": 7.5, "threshold": 200, "negative_prompt": "blurry"}},
        ),
        ({}, {"teacher_guidance": 2.0, "augmentation": 1.0, "accumulate": 2, "virtual_batch": 2}),
        ({}, {"precision": "bf16"}),
    ],
    ids=["latent", "nfsd with a negative prompt", "guided, augmented, accumulated", "bf16"],
)
def test_settings_that_no_row_of_the_table_uses_train_too(
    smoke: Path, tmp_path: Path, variant: dict[str, Any], training: dict[str, Any]
):
    train(smoke_run(variant=variant, steps=2, log_every=1, **training), 0, tmp_path)
    assert len((tmp_path / "train" / "log.jsonl").read_text().splitlines()) == 2


def student_bytes(out: Path) -> bytes:
    return (out / "student" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_killed_and_started_again_ends_in_the_same_bits(smoke: Path, tmp_path: Path):
    run = smoke_run(steps=14, checkpoint_every=2, log_every=1)
    spec = tmp_path / "spec.json"
    spec.write_text(run.model_dump_json())
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "add.train", "--spec", str(spec), "--seed", "1", "--out", str(out)]

    process = subprocess.Popen(command(broken), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((broken / "train" / "checkpoints").glob("step-*.safetensors")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "student").exists(), "killed too late to test anything"
    # Snakemake removes what a failed job's rule lists as outputs; the log that goes on must not need them.
    (broken / "train" / "log.jsonl").unlink(missing_ok=True)
    train(run, 1, whole)
    subprocess.run(command(broken), env=environment, check=True, stderr=subprocess.DEVNULL)
    assert student_bytes(whole) == student_bytes(broken)
    assert (whole / "train" / "log.jsonl").read_text() == (broken / "train" / "log.jsonl").read_text()


@pytest.fixture
def interrupted(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run whose training was interrupted after a checkpoint at step 2."""

    def interrupt(log: Any, step: int, numbers: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("add.log.TrainLog.scalars", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(smoke_run(**SHORT), 0, tmp_path / "out")
    assert latest_checkpoint(tmp_path / "out/train/checkpoints") is not None
    return tmp_path / "out"


SHORT: dict[str, Any] = {"steps": 4, "checkpoint_every": 2, "log_every": 1}


def test_after_an_edited_value_training_starts_anew_and_keeps_the_earlier_checkpoints(
    interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    edited = smoke_run(**SHORT, ema=0.5)
    train(edited, 0, interrupted)
    kept = interrupted / "train" / f"checkpoints-{spec_hash(smoke_run(**SHORT))}"
    assert latest_checkpoint(kept) is not None
    assert str(kept) in capsys.readouterr().out
    train(edited, 0, tmp_path / "fresh")
    assert student_bytes(interrupted) == student_bytes(tmp_path / "fresh")


def test_how_often_checkpoints_are_written_may_change_in_the_middle(interrupted: Path, tmp_path: Path):
    train(smoke_run(**{**SHORT, "checkpoint_every": 3}), 0, interrupted)
    assert not list((interrupted / "train").glob("checkpoints*"))
    train(smoke_run(**SHORT), 0, tmp_path / "whole")
    assert student_bytes(interrupted) == student_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("data/smoke/networks/c_text/model.safetensors", "weights of c_text"),
        ("data/smoke/networks/sd21/scheduler/scheduler_config.json", "configurations of sd21"),
        ("data/smoke/train/000000000001.png", "data"),
    ],
)
def test_what_was_exchanged_in_the_middle_is_named(smoke: Path, interrupted: Path, file: str, named: str):
    path = smoke / file
    before = path.read_bytes()
    path.write_bytes(EXCHANGED[path.suffix](before))
    try:
        with pytest.raises(InputError, match=f"was made with {named} ") as refused:
            train(smoke_run(**SHORT), 0, interrupted)
    finally:
        path.write_bytes(before)
    assert len(refused.value.problems) == 2, "one change, and what to do"
    train(smoke_run(**SHORT), 0, interrupted)


def _another_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


EXCHANGED = {
    ".safetensors": _another_last_byte,
    ".json": lambda content: json.dumps(json.loads(content) | {"steps_offset": 0}).encode(),
    ".png": lambda content: png("red", size=(32, 32)),
}


def test_two_trainings_of_one_directory_are_one_training(smoke: Path, tmp_path: Path):
    # As after SIGKILL of Snakemake, whose orphan trains on while the next one starts the same training.
    run = smoke_run(steps=14, checkpoint_every=2, log_every=1)
    spec, out = tmp_path / "spec.json", tmp_path / "seed1"
    spec.write_text(run.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "add.train", "--spec", str(spec), "--seed", "1", "--out", str(out)]
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    (waiting,) = [text for text in said if "writes there; waiting" in text]
    assert "has finished this very training" in waiting
    train(run, 1, tmp_path / "alone")
    assert student_bytes(out) == student_bytes(tmp_path / "alone")
    log = Path("train/log.jsonl")
    assert (out / log).read_text() == (tmp_path / "alone" / log).read_text()
