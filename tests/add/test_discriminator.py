"""The heads: local batch norm, conditioning, token sequences and maps alike, exact restoring."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from add.discriminator import (
    ConditionMap,
    Discriminator,
    LocalBatchNorm,
    given_conditions,
    virtual_batches,
)
from add.losses import r1_penalty
from add.models.features import FeatureShape

TOKENS, MAP = FeatureShape(6, (9,)), FeatureShape(8, (4, 4))
DIMS = {"text": 5, "image": 7}


def make(condition_dims=DIMS, seed=0, **options):
    torch.manual_seed(seed)
    return Discriminator([TOKENS, MAP], condition_dims, width=16, **options)


def inputs(batch=8, seed=1):
    g = torch.Generator().manual_seed(seed)
    features = [torch.randn(batch, 6, 9, generator=g), torch.randn(batch, 8, 4, 4, generator=g)]
    return features, {n: torch.randn(batch, d, generator=g) for n, d in DIMS.items()}


@settings(max_examples=50, deadline=None)
@given(batch=st.integers(1, 70), size=st.integers(1, 16))
def test_virtual_batches_are_equal_and_never_larger(batch, size):
    """Breaks when a remainder is dropped or normalised by itself."""
    sizes = [samples for groups, samples in virtual_batches(batch, size) for _ in range(groups)]
    assert sum(sizes) == batch
    assert len(sizes) == -(-batch // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def norm_written_out(x, runs, weight, bias):
    out, start = torch.empty_like(x), 0
    for samples in runs:
        for c in range(x.shape[1]):
            values = [float(v) for b in range(start, start + samples) for v in x[b, c].flatten()]
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            for b in range(start, start + samples):
                out[b, c] = (x[b, c] - mean) / (variance + 1e-5) ** 0.5 * weight[c] + bias[c]
        start += samples
    return out


@pytest.mark.parametrize(
    ("batch", "runs"), [(8, [4, 4]), (3, [3]), (9, [3, 3, 3]), (10, [4, 3, 3]), (1, [1])]
)
@pytest.mark.parametrize("size", [(5,), (3, 2)])
def test_local_batch_norm_against_a_written_out_loop(batch, runs, size):
    """Breaks when it becomes group norm or plain batch norm, mixes virtual batches, or keeps statistics."""
    norm = LocalBatchNorm(2, virtual_batch=4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5]))
        norm.bias.copy_(torch.tensor([0.1, 0.2]))
    x = torch.randn(batch, 2, *size, dtype=torch.float64) * 3 + 1
    expected = norm_written_out(x, runs, norm.weight.tolist(), norm.bias.tolist())
    torch.testing.assert_close(norm(x).detach(), expected)
    assert torch.equal(norm.eval()(x), norm.train()(x))
    assert set(norm.state_dict()) == {"weight", "bias"}
    with pytest.raises(ValueError, match="at least 1"):
        LocalBatchNorm(2, 0)


def test_one_logit_a_position():
    for dims in (DIMS, {"text": 5}, {"image": 7}, {}):
        features, conditions = inputs()
        logits = make(dims)(features, {n: conditions[n] for n in dims})
        assert [tuple(x.shape) for x in logits] == [(8, 9), (8, 16)]


@pytest.mark.parametrize("name", ["text", "image"])
def test_each_condition_changes_the_logits(name):
    """Breaks when c_text or c_img is accepted and ignored (a mistake of public codes)."""
    discriminator = make().eval()
    features, conditions = inputs()
    other = {**conditions, name: conditions[name].roll(1, 0)}
    with torch.no_grad():
        before, after = discriminator(features, conditions), discriminator(features, other)
    for old, new in zip(before, after, strict=True):
        assert float((old - new).abs().amax(1).min()) > 1e-3
    conditions[name].requires_grad_()
    sum(x.square().sum() for x in discriminator(features, conditions)).backward()
    assert conditions[name].grad.abs().sum() > 0


def test_no_condition_dominates_by_its_scale():
    """Breaks when embeddings enter unnormalised: one a thousand times larger would drown the other."""
    discriminator = make().eval()
    features, conditions = inputs()
    scaled = {"text": conditions["text"] * 1000, "image": conditions["image"]}
    for old, new in zip(discriminator(features, conditions), discriminator(features, scaled), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-3, atol=1e-4)


def test_text_and_image_weigh_alike_whatever_their_dimensions():
    torch.manual_seed(0)
    head = Discriminator([TOKENS], {"text": 1280, "image": 96}, width=512).heads[0]
    unit = {d: torch.nn.functional.normalize(torch.randn(400, d)) for d in (1280, 96)}
    spread = [head.maps[n](unit[d]).std().item() for n, d in (("text", 1280), ("image", 96))]
    assert spread == pytest.approx([0.5**0.5] * 2, rel=0.05)


def functional_step(dimensions: int, scale: float, *, plain: bool = False) -> float:
    """By how much one update of StyleGAN-T's optimiser moves the map's output, as a share of its deviation."""
    torch.manual_seed(0)
    c = torch.nn.functional.normalize(torch.randn(1, dimensions))
    mapped: torch.nn.Module = ConditionMap(dimensions, 256, scale)
    if plain:
        mapped, c = torch.nn.Linear(dimensions, 256), c * dimensions**0.5
        torch.nn.init.normal_(mapped.weight, std=scale / dimensions**0.5)
    optimiser = torch.optim.Adam(mapped.parameters(), lr=2e-3, betas=(0.0, 0.99))
    before = mapped(c)
    before.sum().backward()
    optimiser.step()
    return float((mapped(c) - before).abs().mean() / scale)


def test_one_update_moves_the_map_of_c_by_the_same_small_share_for_every_dimension():
    """Breaks when the map learns the faster the larger c is: part (b) of the table would compare learning rates."""
    small, large = (functional_step(dimensions, 0.5**0.5) for dimensions in (96, 1024))
    assert [small, large] == pytest.approx([0.02, 0.02], rel=0.2)
    assert functional_step(1024, 0.5**0.5, plain=True) > 20 * large


def test_controls_tell_the_heads_another_c_or_the_same_for_all():
    c = {"text": torch.randn(19, 5), "image": torch.randn(19, 7)}
    own, constant, shuffled = (given_conditions(c, form, 8) for form in ("own", "constant", "shuffled"))
    assert all(own[name] is c[name] for name in c)
    assert {name: value.shape for name, value in constant.items()} == {k: v.shape for k, v in c.items()}
    assert len(torch.cat([constant["text"], constant["image"]], 1).unique(dim=0)) == 1
    # 19 samples in virtual batches of 8 are 7 + 6 + 6: each sees another sample of its own.
    order = [(first + (k + 1) % n) for first, n in ((0, 7), (7, 6), (13, 6)) for k in range(n)]
    assert all(torch.equal(shuffled[name], c[name][order]) for name in c)
    assert given_conditions({}, "shuffled", 8) == {}


def test_wrong_conditions_and_features_are_refused():
    """Breaks when a run silently trains without a condition that its row names."""
    discriminator = make()
    features, conditions = inputs()
    with pytest.raises(ValueError, match=r"\['image', 'text'\], got \['text'\]"):
        discriminator(features, {"text": conditions["text"]})
    with pytest.raises(ValueError, match="nothing, got"):
        make({})(features, conditions)
    with pytest.raises(ValueError, match=r"'image' has shape \(8, 5\), not \(B, 7\)"):
        discriminator(features, {"text": conditions["text"], "image": conditions["text"]})
    with pytest.raises(ValueError, match="1 features for 2 heads"):
        discriminator(features[:1], conditions)
    with pytest.raises(ValueError, match=r"features 0 .* made for \(B, 6, 9\)"):
        discriminator(features[::-1], conditions)
    with pytest.raises(ValueError, match="unknown conditioning"):
        make({"depth": 3})
    with pytest.raises(ValueError, match="no features"):
        Discriminator([], {})
    with pytest.raises(ValueError, match="smaller than the circular padding"):
        Discriminator([FeatureShape(3, (3,))], {})


def test_heads_are_the_same_however_the_subset_is_written():
    first, second = make(), make({"image": 7, "text": 5})
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_positions_wrap_around():
    """Breaks when the padding is zeros: heads would see where the border is. Tokens and maps shift alike."""
    discriminator = make().eval()
    (tokens, maps), conditions = inputs()
    plain = discriminator([tokens, maps], conditions)
    shifted = discriminator([tokens.roll(2, 2), maps.roll((1, 2), (2, 3))], conditions)
    torch.testing.assert_close(shifted[0], plain[0].roll(2, 1), rtol=1e-4, atol=1e-5)
    expected = plain[1].view(8, 4, 4).roll((1, 2), (1, 2)).flatten(1)
    torch.testing.assert_close(shifted[1], expected, rtol=1e-4, atol=1e-5)


def test_receptive_field_is_nine_positions():
    """Breaks when the residual block has other taps. (Norms, which couple all positions, are taken out.)"""
    torch.manual_seed(0)
    head = Discriminator([FeatureShape(6, (20,)), MAP], {}).eval()
    for module in head.modules():
        if isinstance(module, LocalBatchNorm):
            module.forward = lambda x: x
    tokens = torch.randn(1, 6, 20, requires_grad=True)
    maps = torch.randn(1, 8, 4, 4, requires_grad=True)
    first, second = head([tokens, maps])
    seen = torch.autograd.grad(first[0, 10], tokens)[0].abs().sum(1)[0]
    assert seen.nonzero().flatten().tolist() == list(range(6, 15))
    assert int((torch.autograd.grad(second[0, 5], maps)[0].abs().sum(1) > 0).sum()) == 9


def test_every_convolution_is_spectrally_normalised():
    """Breaks when a convolution loses its Lipschitz bound."""
    discriminator = make()
    features, conditions = inputs()
    for _ in range(60):
        discriminator(features, conditions)
    convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    assert len(convolutions) == 6
    discriminator.eval()
    for conv in convolutions:
        largest = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2)
        assert float(largest) == pytest.approx(1, abs=0.02)


def test_state_dict_restores_the_next_steps_to_the_bit():
    """Breaks when spectral norm's vectors are not saved: a resumed run would drift from one never killed."""
    discriminator = make()
    features, conditions = inputs()

    def steps(model):
        optimiser = torch.optim.Adam(model.parameters(), 1e-2, betas=(0.0, 0.99))
        for _ in range(2):
            optimiser.zero_grad()
            sum(x.square().mean() for x in model(features, conditions)).backward()
            optimiser.step()
        return model(features, conditions)

    steps(discriminator)
    restored = make(seed=9)
    restored.load_state_dict(load(save(discriminator.state_dict())))
    assert any(key.endswith("_u") for key in restored.state_dict())
    for one, other in zip(steps(discriminator), steps(restored), strict=True):
        assert torch.equal(one, other)


def test_r1_reaches_every_weight_before_the_logits():
    """Breaks when the heads cannot be differentiated twice (in-place activation, a norm without it)."""
    discriminator = make()
    features, conditions = inputs()
    for f in features:
        f.requires_grad_()
    r1_penalty(discriminator(features, conditions), features).backward()
    for name, parameter in discriminator.named_parameters():
        silent = name.endswith(("project.bias", "residual.norm.bias"))  # a constant moves no gradient
        assert silent or float(parameter.grad.abs().sum()) > 0, name
