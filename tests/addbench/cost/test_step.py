"""The modelled cost of a step: the bytes and operations of a real one, without its weights."""

from __future__ import annotations

import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from add.batch import draw_batch
from add.config.run import Run
from add.data.training_set import open_training_set
from add.models.diffusion import trainable_unet
from add.models.frozen import load_frozen_networks, make_heads
from add.step import losses
from add.train import make_optimiser, update
from addbench.cost.meters import Flops, LiveBytes
from addbench.cost.step import (
    Cost,
    count_step,
    estimate_cost,
    frozen_modules,
    module_bytes,
    step_losses,
    teacher_passes,
)
from tests.support.smoke import REPOSITORY, smoke_run


def real_step(run: Run) -> tuple[int, int, Any, Any, Any]:
    """Most bytes alive and operations of a step on real tensors; the networks; the student; the heads."""
    networks = load_frozen_networks(run, "cpu")
    data = open_training_set(run.data.train)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, 32, 0)
    batch = draw_batch(run, data, 32, networks.student.latent_shape, 0, 0, 0)
    with Flops() as flops, LiveBytes() as live:
        student_loss, head_loss, _ = losses(run, networks, unet, heads, batch)
        student_loss.backward()
        if heads is not None and head_loss is not None:
            head_loss.backward(inputs=list(heads.parameters()))
    return live.most, flops.total, networks, unet, heads


@pytest.mark.parametrize(
    "name", ["baseline", "teacher_type-sd2-1-sdxl", "loss_terms-l-adv", "loss_terms-l-distill"]
)
def test_the_counted_step_is_the_real_one(smoke: Path, name: str) -> None:
    # Would break as soon as add.step computes something that addbench.cost.step does not know of.
    run = smoke_run(name)
    live, flops, networks, unet, heads = real_step(run)
    cost = estimate_cost(run)
    assert cost.step_flops == flops
    assert cost.step_bytes == pytest.approx(live, rel=0.02)
    assert cost.trained_bytes == module_bytes([unet, *([heads] if heads is not None else [])])
    assert cost.average_bytes == module_bytes([unet])
    assert cost.frozen_bytes == module_bytes(frozen_modules(networks))
    assert cost.step_images == run.training.batch


def test_the_moments_are_the_optimisers(smoke: Path) -> None:
    run = smoke_run()
    _, _, _, unet, heads = real_step(run)
    held = 0
    for module, settings in ((unet, run.training.student_optimiser), (heads, run.training.head_optimiser)):
        optimiser = make_optimiser(module, settings)
        update(optimiser, module, settings, 0, 10)
        held += sum(v.nbytes for state in optimiser.state.values() for k, v in state.items() if k != "step")
    assert estimate_cost(run).moment_bytes == held


def test_checkpointing_in_bf16_costs_less_memory_and_more_work(smoke: Path) -> None:
    # What is computed again in the backward pass must be what the forward pass computed, or torch refuses it.
    networks = ["unet", "decoder", "features"]
    plain = estimate_cost(smoke_run(precision="bf16"))
    again = estimate_cost(smoke_run(precision="bf16", performance={"gradient_checkpointing": networks}))
    assert again.step_bytes < 0.8 * plain.step_bytes
    assert again.step_flops > plain.step_flops, "what is computed again is work"


@pytest.mark.slow
def test_smaller_numbers_cost_less_memory(smoke: Path) -> None:
    plain = estimate_cost(smoke_run(precision="bf16"))
    half = estimate_cost(smoke_run(precision="bf16", performance={"frozen_precision": "bf16"}))
    assert half.frozen_bytes == pytest.approx(plain.frozen_bytes / 2, rel=0.01)
    eight = estimate_cost(smoke_run(precision="bf16", performance={"eight_bit_optimiser": True}))
    assert eight.moment_bytes < plain.moment_bytes


def test_processes_take_their_share_and_shards_their_slice(smoke: Path) -> None:
    run = smoke_run(batch=8, virtual_batch=4)
    one, two, cut = estimate_cost(run), estimate_cost(run, 2), estimate_cost(run, 2, sharded=True)
    assert two.step_images == one.step_images // 2
    assert two.step_flops < 0.6 * one.step_flops
    assert cut.average_bytes == one.average_bytes // 2
    assert cut.peak_bytes < two.peak_bytes < one.peak_bytes
    with pytest.raises(ValueError, match="equal slices for 3 processes"):
        estimate_cost(run, 3)


def test_accumulated_parts_add_work_and_keep_their_gradients(smoke: Path) -> None:
    whole, halves = smoke_run(batch=8), smoke_run(batch=8, accumulate=2)
    part = count_step(smoke_run(batch=4), 4)
    assert estimate_cost(halves).step_flops == 2 * part.flops
    assert part.peak_bytes < estimate_cost(halves).step_bytes < estimate_cost(whole).step_bytes


def test_passes_of_the_teacher(smoke: Path) -> None:
    assert teacher_passes(smoke_run()) == 1
    assert teacher_passes(smoke_run(teacher_guidance=2.0)) == 2
    assert teacher_passes(smoke_run("teacher_steps-4", teacher_guidance=2.0)) == 8
    assert teacher_passes(smoke_run(variant={"loss.distillation": "nfsd"})) == 2
    assert teacher_passes(smoke_run("loss_terms-l-adv")) == 0


def test_live_bytes_are_those_of_what_lives() -> None:
    outside = torch.zeros(1000)
    with LiveBytes() as live:
        kept = outside[:10] + 1  # the view is outside's memory
        assert live.now == 40
        passing = torch.zeros(100)
        del passing
        assert (live.now, live.most) == (40, 440)
        del kept
    assert live.now == 0


def test_the_meter_finds_what_the_allocator_was_asked_for(smoke: Path) -> None:
    # torch's own profiler sees every allocation, workspaces inside of an operation among them.
    run = smoke_run(batch=16)
    networks = load_frozen_networks(run, "cpu")
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, 32, 0)
    assert heads is not None
    data = open_training_set(run.data.train)
    batch = draw_batch(run, data, 32, networks.student.latent_shape, 0, 0, 0)

    def step() -> None:
        for player in (unet, heads):
            player.zero_grad(set_to_none=True)
        student_loss, head_loss, _ = losses(run, networks, unet, heads, batch)
        student_loss.backward()
        assert head_loss is not None
        head_loss.backward()

    with LiveBytes() as live:
        step()
    step()  # both begin with the gradients of the step before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    recorded = profiled.profiler.kineto_results.events()
    sizes = [e.nbytes() for e in sorted(recorded, key=lambda e: e.start_ns()) if e.name() == "[memory]"]
    assert live.most == pytest.approx(max(accumulate(sizes)), rel=0.1)


def test_a_device_without_the_margin_does_not_do() -> None:
    cost = Cost({}, 10, 20, 30, 30, 10, 1, 1)
    assert cost.peak_bytes == 100
    assert cost.needed_bytes == 110


def test_what_plan_and_check_import_is_without_torch() -> None:
    # `addbench` starts in half a second; whoever counts a step imports torch when it does.
    code = "import addbench.cost.shapes, addbench.cost.timing, addbench.preflight.resources, addbench.preflight.inputs"
    code += ", sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_the_counted_losses_are_the_steps(smoke: Path) -> None:
    # On real tensors: the same losses, up to the teacher's target, which the counted step does not compute.
    run = smoke_run("loss_terms-l-adv")
    networks = load_frozen_networks(run, "cpu")
    data = open_training_set(run.data.train)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, 32, 0)
    assert heads is not None
    heads.eval()  # spectral norm's vectors stand still
    batch = draw_batch(run, data, 32, networks.student.latent_shape, 0, 0, 0)
    counted, real = step_losses(run, networks, unet, heads, batch), losses(run, networks, unet, heads, batch)
    torch.testing.assert_close(counted[0], real[0])
    torch.testing.assert_close(counted[1], real[1])
