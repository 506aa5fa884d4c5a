"""The options of `training.performance`: the same gradients, fewer bytes, the same saved format, exact resume."""

from __future__ import annotations

import copy
import gc
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from add.batch import draw_batch
from add.config.run import Run
from add.config.training import PerformanceSpec
from add.data.training_set import open_training_set
from add.models.diffusion import load_diffusion, student_x0, trainable_unet
from add.models.frozen import (
    FrozenNetworks,
    apply_options,
    load_frozen_networks,
    make_heads,
    release_unused,
    to_bf16,
)
from add.noise import NoiseSchedule
from add.step import discriminator_features, losses, student_output, target_of
from add.train import autocast, train
from tests.support.smoke import smoke_run

STUDENT = "student/unet/diffusion_pytorch_model.safetensors"


def prepared(run: Run, options: PerformanceSpec) -> tuple[FrozenNetworks, Any, Any, Any]:
    torch.manual_seed(0)
    networks = load_frozen_networks(run, "cpu")
    data = open_training_set(run.data.train)
    unet = trainable_unet(networks.student, "pretrained", 0)
    heads = make_heads(run, networks, 32, 0)
    apply_options(options, networks, unet)
    return networks, unet, heads, draw_batch(run, data, 32, (4, 8, 8), 0, 0, 0)


def step_gradients(run: Run, options: PerformanceSpec) -> tuple[dict[str, torch.Tensor], int]:
    """Both networks' gradients after one step, and the bytes that were kept for the backward pass."""
    networks, unet, heads, batch = prepared(run, options)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, autocast(run.training.precision, "cpu"):
        student_loss, head_loss, _ = losses(run, networks, unet, heads, batch)
        bytes_kept = sum(kept.values())
    student_loss.backward()
    assert head_loss is not None
    head_loss.backward()
    named = [*unet.named_parameters(), *heads.named_parameters()]
    return {f"{i}.{name}": p.grad for i, (name, p) in enumerate(named)}, bytes_kept


@pytest.mark.parametrize("name", ["baseline", "discriminator_features-vit-l-clip"], ids=["stages", "blocks"])
@pytest.mark.parametrize("network", ["unet", "decoder", "features"])
def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradients(
    smoke: Path, network: Any, name: str
) -> None:
    run = smoke_run(name)
    plain, kept = step_gradients(run, PerformanceSpec())
    again, kept_less = step_gradients(run, PerformanceSpec(gradient_checkpointing=(network,)))
    assert kept_less < kept, f"{network}: nothing was left to be computed again"
    for key, gradient in plain.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("frozen", ["float32", "bf16"])
def test_checkpointed_training_in_bf16_ends_in_the_same_bits(
    smoke: Path, tmp_path: Path, frozen: Any
) -> None:
    # The backward pass runs outside of autocast: what is computed again there must be so in the same precision.
    every: tuple[Any, ...] = ("unet", "decoder", "features")
    run = smoke_run(precision="bf16")
    plain, kept = step_gradients(run, PerformanceSpec(frozen_precision=frozen))
    for network in every:
        options = PerformanceSpec(frozen_precision=frozen, gradient_checkpointing=(network,))
        again, kept_less = step_gradients(run, options)
        assert kept_less < kept, f"{network}: nothing was left to be computed again"
        assert all(torch.equal(again[name], gradient) for name, gradient in plain.items()), network
    for name, networks in (("plain", ()), ("again", every)):
        given = {"frozen_precision": frozen, "gradient_checkpointing": networks}
        train(smoke_run(precision="bf16", steps=3, performance=given), 0, tmp_path / name)
    assert (tmp_path / "again" / STUDENT).read_bytes() == (tmp_path / "plain" / STUDENT).read_bytes()


def assert_same_gradients(found: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    """Every parameter's gradient to 0.1%, but for those whose gradient is rounding noise."""
    largest = max(float(gradient.norm()) for gradient in plain.values())
    for name, gradient in plain.items():
        assert float((found[name] - gradient).norm()) <= 1e-3 * float(gradient.norm()) + 1e-6 * largest, name


def test_channels_last_gives_the_same_gradients(smoke: Path) -> None:
    plain, _ = step_gradients(smoke_run(), PerformanceSpec())
    found, _ = step_gradients(smoke_run(), PerformanceSpec(channels_last=True))
    assert_same_gradients(found, plain)
    networks, unet, _, batch = prepared(smoke_run(), PerformanceSpec(channels_last=True))
    _, images = student_output(smoke_run(), networks, unet, batch)
    for tensor in (unet.conv_in.weight, unet.mid_block.resnets[0].conv1.weight.detach(), images):
        assert tensor.is_contiguous(memory_format=torch.channels_last), "the option does nothing"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_give_the_same_gradients(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cache of its own: what a killed process left half written in the machine's would fail here.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, _ = step_gradients(smoke_run(), PerformanceSpec())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found, _ = step_gradients(smoke_run(), PerformanceSpec(compile=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert_same_gradients(found, plain)


def test_frozen_networks_in_bf16_take_half_the_memory_and_change_gradients_little(smoke: Path) -> None:
    run = smoke_run("teacher_type-sd2-1-sdxl", precision="bf16")
    networks, unet, heads, _ = prepared(run, PerformanceSpec(frozen_precision="bf16"))
    assert networks.teacher is not None
    assert networks.features is not None
    assert networks.c_text is not None
    for module in (
        networks.teacher.unet,
        networks.student.vae,
        networks.features.model,
        networks.c_text.encoder,
    ):
        kept = {name for name, p in module.named_parameters() if p.dtype != torch.bfloat16}
        assert kept <= {"conv_out.weight", "conv_out.bias"}
    assert networks.teacher.unet.conv_out.weight.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in (*unet.parameters(), *heads.parameters()))

    def gradient(options: PerformanceSpec) -> torch.Tensor:
        networks, unet, heads, batch = prepared(run, options)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _, _ = losses(run, networks, unet, heads, batch)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in unet.parameters()])

    ours, theirs = gradient(PerformanceSpec(frozen_precision="bf16")), gradient(PerformanceSpec())
    # In networks this small and untrained bf16 by itself turns the gradient by as much.
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.9


@pytest.mark.parametrize("frozen", ["float32", "bf16"])
def test_half_precision_keeps_x_0_of_an_epsilon_network_near_float32(
    smoke: Path, frozen: Literal["float32", "bf16"]
) -> None:
    """Breaks when rounding in the last convolution, or after it, is magnified by 1 / alpha = 14.6 at t = 999.

    Rounding before it stays, and is most of what is left: .0118 of x_0's deviation here, .0120 with all in bf16.
    """
    network = load_diffusion("data/smoke/networks/sd21")
    scheduler = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    real = NoiseSchedule.from_scheduler(scheduler)  # Stable Diffusion's own
    assert 1 / float(real.alphas[-1]) == pytest.approx(14.6, abs=0.05)
    network = replace(network, schedule=real)
    unet = trainable_unet(network, "pretrained", 0)
    with torch.no_grad():  # of the size that a network has which has learnt to predict noise
        unet.conv_out.weight.mul_(20)
    text, noise = network.embed(["a red cat"] * 8), torch.randn(8, 4, 8, 8)
    s = torch.full((8,), 999)

    def x_0(unet: Any) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            return student_x0(network, unet, torch.zeros_like(noise), noise, s, text)

    def error(found: torch.Tensor) -> float:
        return float((found - expected).square().mean().sqrt() / expected.std())

    with torch.no_grad():
        expected = student_x0(network, unet, torch.zeros_like(noise), noise, s, text)
    rounded = copy.deepcopy(unet)
    rounded.conv_out.__class__ = torch.nn.Conv2d
    if frozen == "bf16":
        to_bf16(unet)
        to_bf16(rounded)
    ours, theirs = x_0(unet), x_0(rounded)
    assert ours.dtype == torch.float32
    assert error(ours) < min(error(theirs), 0.02)


def test_no_graph_is_kept_where_no_gradient_goes(smoke: Path) -> None:
    # A teacher's activations, kept for nothing, would be a third of the memory of a step.
    run = smoke_run("teacher_type-sd2-1-sdxl")
    networks, unet, _, batch = prepared(run, PerformanceSpec())
    latents, images = student_output(run, networks, unet, batch)
    kept: list[torch.Size] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        target, _ = target_of(run, networks, latents, images, batch)
        given = networks.conditions(batch.real, batch.prompts)
        assert networks.features is not None
        with torch.no_grad():
            real = discriminator_features(run, batch.real, networks.features, batch)
    assert not kept
    assert not any(t.requires_grad for t in (target, *given.values(), *real))


def test_one_decode_serves_both_of_the_students_losses(smoke: Path) -> None:
    networks, unet, heads, batch = prepared(smoke_run(), PerformanceSpec())
    calls: list[bool] = []
    networks.student.vae.decoder.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    losses(smoke_run(), networks, unet, heads, batch)
    assert calls.count(True) == 1, "the student's output is decoded with a graph more than once"
    assert calls.count(False) == 1, "the teacher's target is decoded once, without one"


def test_attention_is_scaled_dot_product_attention(smoke: Path) -> None:
    from diffusers.models.attention_processor import AttnProcessor2_0

    networks = load_frozen_networks(smoke_run("discriminator_features-vit-l-clip"), "cpu")
    unet = trainable_unet(networks.student, "pretrained", 0)
    assert unet.attn_processors
    assert all(type(p) is AttnProcessor2_0 for p in unet.attn_processors.values())
    assert networks.features is not None
    assert networks.features.model.config._attn_implementation == "sdpa"


def test_an_unused_frozen_unet_is_released_and_a_teacher_is_not(smoke: Path) -> None:
    released = load_frozen_networks(smoke_run("loss_terms-l-adv"), "cpu")
    trainable_unet(released.student, "pretrained", 0)
    release_unused(released)
    gc.collect()
    assert released.student.unet.device.type == "meta"
    assert released.student.device.type == "cpu", "the pipeline's own device is that of what it runs"
    teaching = load_frozen_networks(smoke_run(), "cpu")
    release_unused(teaching)
    assert teaching.teacher is not None
    assert teaching.teacher.unet.device.type == "cpu"


def test_an_8_bit_optimiser_without_its_library_is_refused_with_what_to_install(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    run = smoke_run(performance={"eight_bit_optimiser": True})
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        train(run, 0, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"channels_last": True, "gradient_checkpointing": ["unet", "decoder", "features"]},
        {"channels_last": True, "frozen_precision": "bf16"},
        pytest.param(
            {"eight_bit_optimiser": True},
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes"),
        ),
    ],
    ids=["float32", "bf16", "8 bit"],
)
def test_a_run_with_options_resumes_exactly_and_saves_an_ordinary_student(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    # Strides are state that an update reads: an optimiser's moments restored in others would be mixed up.
    import add.train

    form = "bf16" if "frozen_precision" in options else "float32"
    run = smoke_run(steps=4, checkpoint_every=2, precision=form, performance=options, ema=0.5)
    train(run, 0, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def update(*given: Any) -> dict[str, float]:
        if given[3] == 3:  # the step after the checkpoint's next
            raise KilledError
        return untouched(*given)

    untouched = add.train.update
    monkeypatch.setattr(add.train, "update", update)
    with pytest.raises(KilledError):
        train(run, 0, tmp_path / "broken")
    monkeypatch.undo()
    monkeypatch.chdir(smoke)
    train(run, 0, tmp_path / "broken")
    assert (tmp_path / "broken" / STUDENT).read_bytes() == (tmp_path / "whole" / STUDENT).read_bytes()
    for part in ("unet", "vae"):
        saved = load_file(tmp_path / "whole" / "student" / part / "diffusion_pytorch_model.safetensors")
        assert {t.dtype for t in saved.values()} == {torch.float32}, f"the {part} was saved as it was trained"


def test_options_that_are_not_set_leave_the_values_as_they_were(smoke: Path) -> None:
    # Otherwise every result made before there were options would be made again.
    assert "performance" not in smoke_run().training.model_dump()
    assert "performance" not in smoke_run().model_dump_json()
    given = smoke_run(performance={"compile": True}).training.model_dump()["performance"]
    assert given["compile"] is True
    assert given["channels_last"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen_precision": "bf16"}, "needs training.precision bf16"),
        ({"gradient_checkpointing": ["unet", "unet"]}, "names a network twice"),
        ({"gradient_checkpointing": ["teacher"]}, "'decoder', 'features'|unet"),
        ({"flash": True}, "flash"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        smoke_run(performance=options)
