"""LCM-LoRA: the adapter alone is trained, and merged weights give the same output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from add.batch import draw_batch
from add.data.training_set import open_training_set
from add.models.diffusion import unet_output
from baselines.lcm_lora import ADAPTER, merged
from baselines.train import make_method
from tests.support.rivals import smoke_rival


@pytest.fixture
def trained(smoke: Path):
    spec = smoke_rival("lcm_lora", steps=3)
    method = make_method(spec, 0, "cpu", None)
    before = {name: value.clone() for name, value in method.student.state_dict().items()}
    data = open_training_set(spec.data.train)
    batches = [draw_batch(spec, data, 32, method.network.latent_shape, 0, step, 0) for step in range(3)]
    for step, batch in enumerate(batches):
        method.update(batch, step)
    return method, before, batches[0]


def test_the_adapter_alone_is_trained(trained):
    method, before, _ = trained
    moved = {
        name for name, value in method.student.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved
    assert all(".lora_" in name for name in moved)
    adapter = {name for name, p in method.student.named_parameters() if p.requires_grad}
    assert moved <= adapter
    assert all(".lora_" in name for name in adapter)
    sizes = [sum(p.numel() for p in group["params"]) for group in method.optimisers["student"].param_groups]
    assert sum(sizes) == sum(p.numel() for p in method.student.parameters() if p.requires_grad)


def test_merged_weights_give_the_same_output_and_the_teachers_differ(trained):
    method, _, batch = trained
    text = method.text(batch)
    with torch.no_grad():
        ours = unet_output(method.student, batch.noise, batch.t, text)
        plain = merged(method.student)
        theirs = unet_output(plain, batch.noise, batch.t, text)
        teacher = unet_output(method.network.unet, batch.noise, batch.t, text)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert float((ours - teacher).abs().max()) > 1e-3
    assert plain.state_dict().keys() == method.network.unet.state_dict().keys()


def test_the_saved_adapter_on_the_teacher_is_the_saved_student(trained, tmp_path: Path):
    from diffusers import UNet2DConditionModel

    method, _, batch = trained
    method.save(tmp_path)
    assert (tmp_path / ADAPTER).is_file()
    student = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    teacher = UNet2DConditionModel.from_pretrained("data/smoke/networks/sd21/unet")
    teacher.load_lora_adapter(tmp_path, weight_name=ADAPTER, prefix="unet")
    text = method.text(batch)
    with torch.no_grad():
        torch.testing.assert_close(
            unet_output(student, batch.noise, batch.t, text),
            unet_output(teacher, batch.noise, batch.t, text),
            rtol=1e-4,
            atol=1e-5,
        )
