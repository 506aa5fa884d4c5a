"""LADD and the GAN: whose gradient goes where, and what either of them does without."""

from __future__ import annotations

from pathlib import Path

import torch

from add.batch import draw_batch
from add.data.training_set import open_training_set
from add.models.diffusion import student_x0
from baselines.ladd import LatentAdversarial, logit_normal_timesteps
from baselines.rectified_flow import flow_times
from baselines.spec import LaddSpec
from baselines.train import counted, make_method
from baselines.unet_features import blocks
from tests.baselines.test_progressive import schedule
from tests.support.rivals import RIVALS, smoke_rival


def a_batch(spec, method, step: int = 0):
    data = open_training_set(spec.data.train)
    return draw_batch(spec, data, 32, method.network.latent_shape, 0, step, 0)


def test_the_noise_levels_that_ladds_heads_see_are_logit_normal():
    noise = schedule()
    settings = LaddSpec.model_validate({"kind": "ladd", **RIVALS["ladd"]})
    t = logit_normal_timesteps(noise, settings, 20_000, torch.Generator().manual_seed(0))
    logits = torch.logit(flow_times(noise)[t].clamp(1e-4, 1 - 1e-4))
    assert abs(float(logits.median()) - 1.0) < 0.05
    low, high = torch.quantile(logits, torch.tensor([0.1587, 0.8413]))
    assert abs(float(high - low) / 2 - 1.0) < 0.05


def test_ladds_gradient_reaches_the_latents_through_the_teachers_features(smoke: Path):
    spec = smoke_rival("ladd")
    method = make_method(spec, 0, "cpu", None)
    assert isinstance(method, LatentAdversarial)
    batch = a_batch(spec, method)
    x = batch.noise.clone().requires_grad_(True)
    text = method.text(batch)
    features = method.features(x, batch.t, text)
    assert len(features) == len(blocks(method.network.unet)) == len(method.heads.heads)
    logits = method.heads(features, {"text": text.embeddings.mean(1)})
    for head in logits:
        (gradient,) = torch.autograd.grad(head.sum(), x, retain_graph=True)
        assert float(gradient.abs().sum()) > 0


def test_ladd_decodes_nothing_and_its_heads_learn(smoke: Path):
    spec = smoke_rival("ladd")
    method = make_method(spec, 0, "cpu", None)
    calls = {kind: {"images": 0, "differentiated": 0} for kind in method.counted}
    before = {name: value.clone() for name, value in method.modules["heads"].state_dict().items()}
    with counted(method, calls):
        method.update(a_batch(spec, method), 0)
    n = spec.training.batch
    assert calls["decoder"]["images"] == 0
    assert calls["teacher"] == {"images": 2 * n, "differentiated": n}
    assert calls["student"] == {"images": n, "differentiated": n}
    after = method.modules["heads"].state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items())


def test_the_gan_begins_at_random_and_sees_noise_and_caption_alone(smoke: Path):
    spec = smoke_rival("gan")
    methods = [make_method(spec, seed, "cpu", None) for seed in (0, 1)]
    pretrained = methods[0].network.unet.state_dict()
    name = "conv_in.weight"
    weights = [method.student.state_dict()[name] for method in methods]
    assert not torch.equal(weights[0], pretrained[name])
    assert not torch.equal(weights[0], weights[1])
    method, batch = methods[0], a_batch(spec, methods[0])
    last = torch.full_like(batch.s, 999)
    with torch.no_grad():
        found = [
            student_x0(method.network, method.student, latents, batch.noise, last, method.text(batch))
            for latents in (batch.noise_t, 0 * batch.noise_t)
        ]
    assert torch.equal(*found)
    calls = {kind: {"images": 0, "differentiated": 0} for kind in method.counted}
    with counted(method, calls):
        method.update(batch, 0)
    assert calls["teacher"]["images"] == 0, "a GAN has no teacher"
    assert calls["features"]["images"] == 2 * spec.training.batch
