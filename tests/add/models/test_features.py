"""Frozen feature networks of every family: which layers, which shapes, where gradients go."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import (
    BitConfig,
    BitModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2Model,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from add.models.features import FeatureNetwork, FeatureShape, load_features, resize
from add.models.weights import WeightsError

TOKEN = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
DROP = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
STAGES = {"hidden_sizes": [32, 64], "depths": [1, 1]}
NORMALISE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
FAMILIES = {
    "vit": lambda: ViTModel(ViTConfig(**TOKEN, **DROP, intermediate_size=32)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**TOKEN, **DROP, mlp_ratio=2, drop_path_rate=0.5)),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**TOKEN, intermediate_size=32, attention_dropout=0.5)),
    "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=32, layer_type="basic", **STAGES)),
    "convnext": lambda: ConvNextModel(ConvNextConfig(**STAGES, num_stages=2, drop_path_rate=0.5)),
    "convnextv2": lambda: ConvNextV2Model(ConvNextV2Config(**STAGES, num_stages=2, drop_path_rate=0.5)),
    "bit": lambda: BitModel(BitConfig(embedding_size=32, **STAGES, num_groups=4, drop_path_rate=0.5)),
}
TOKENS = ("vit", "dinov2", "clip")
every_family = pytest.mark.parametrize("family", FAMILIES)


def build(family):
    torch.manual_seed(0)
    return FAMILIES[family]()


def images(batch=2, size=16):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def normalised(pixels):
    mean, std = (torch.tensor(NORMALISE[name]).view(3, 1, 1) for name in ("mean", "std"))
    return ((pixels + 1) / 2 - mean) / std


@every_family
def test_features_are_the_hidden_states(family, tmp_path):
    """Breaks when transformers changes what hidden_states holds, a layer is off by one, or dropout is on."""
    model = build(family)
    model.save_pretrained(tmp_path)
    last = 3 if family in TOKENS else 2
    network = load_features(str(tmp_path), layers=[last, 0, 1], image_size=16, **NORMALISE).train()
    x = images()
    with torch.no_grad():
        states = model.eval()(normalised(x), output_hidden_states=True).hidden_states
        features = network(x)
    assert len(states) == last + 1
    for index, feature in zip([last, 0, 1], features, strict=True):
        expected = states[index]
        if family in TOKENS:
            expected = torch.stack([expected[:, i] + expected[:, 0] for i in range(1, 17)], 2)
        torch.testing.assert_close(feature, expected)
    assert network.shapes() == tuple(FeatureShape(f.shape[1], tuple(f.shape[2:])) for f in features)
    assert network.shapes(40) == network.shapes()


@every_family
def test_blocks_of_the_network_are_walked_by_hand(family):
    """Breaks when hidden_states[i] is not the output of block i before any final norm."""
    model = build(family).eval()
    blocks = {"vit": "layers", "dinov2": "encoder.layer", "clip": "encoder.layers"}.get(
        family, "encoder.stages"
    )
    outputs = []
    for block in model.get_submodule(blocks):
        block.register_forward_hook(
            lambda _m, _i, out: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
    network = FeatureNetwork(model, layers=[1, 2], image_size=16, **NORMALISE)
    features = network(images())
    for feature, out in zip(features, outputs[:2], strict=True):
        expected = (out[:, 1:] + out[:, :1]).transpose(1, 2) if family in TOKENS else out
        assert torch.equal(feature, expected)


@every_family
@pytest.mark.parametrize("layers", [[0], [1], [1, 0]])
def test_shortened_networks_give_the_same_features(family, layers):
    """Breaks when dropping the blocks beyond the deepest layer changes what is kept, or fails at layer 0."""
    whole = FeatureNetwork(build(family), layers=[*layers, 2], image_size=16, **NORMALISE)
    short = FeatureNetwork(build(family), layers=layers, image_size=16, **NORMALISE)
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in whole.parameters())
    for one, other in zip(short(images()), whole(images()), strict=False):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=f"cut off after layer {max(layers)}"):
        short.pooled(images())


@every_family
def test_gradient_reaches_the_images_and_nothing_frozen(family):
    """Breaks when the adversarial gradient stops at the features, or the frozen network is trained."""
    network = FeatureNetwork(build(family), layers=[0, 1, 2], image_size=16, **NORMALISE)
    network.train()
    assert not any(m.training for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for i in range(3):
        x = images().requires_grad_()
        network(x)[i].square().sum().backward()
        assert bool((x.grad.abs().amax((1, 2, 3)) > 0).all())
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@every_family
def test_features_do_not_depend_on_the_batch(family):
    """Breaks when batch statistics or dropout are on."""
    network = FeatureNetwork(build(family), layers=[1, 2], image_size=16, **NORMALISE)
    x = images(4)
    for whole, part in zip(network(x), network(x[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], part, rtol=1e-4, atol=1e-5)


@every_family
def test_pooled_embedding(family):
    """Breaks when c_img is a map, comes from another layer, or the pooler is not used where there is one."""
    model = build(family).eval()
    network = FeatureNetwork(build(family), layers=(), image_size=16, **NORMALISE)
    with torch.no_grad():
        expected = model(normalised(images())).pooler_output
        torch.testing.assert_close(network.pooled(images()), expected.flatten(1))
    with pytest.raises(ValueError, match="without layers"):
        network(images())


def test_pooled_is_the_cls_token_without_a_pooler():
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**TOKEN, intermediate_size=32), add_pooling_layer=False).eval()
    network = FeatureNetwork(model, layers=(), image_size=16, **NORMALISE)
    expected = model(normalised(images())).last_hidden_state[:, 0]
    torch.testing.assert_close(network.pooled(images()), expected)


@pytest.mark.parametrize("family", TOKENS)
def test_another_image_size_than_the_position_embeddings(family):
    """Breaks when a ViT refuses, or silently crops, the scale's image size."""
    network = FeatureNetwork(build(family), layers=[1], image_size=24, **NORMALISE)
    assert network.shapes() == (FeatureShape(16, (36,)),)
    with pytest.raises(ValueError, match="not a multiple of its patch size 4"):
        FeatureNetwork(build(family), layers=[1], image_size=18, **NORMALISE)


def test_unknown_layers_and_networks_are_refused(tmp_path):
    for layers in ([4], [-1], [1, 1]):
        with pytest.raises(ValueError, match=r"different indices in 0 \.\. 3"):
            FeatureNetwork(build("vit"), layers=layers, image_size=16, **NORMALISE)
    text = CLIPTextConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(text).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'clip_text_model' are not supported; use one of vit"):
        load_features(str(tmp_path), layers=[1], image_size=16, **NORMALISE)


def test_vision_half_of_a_clip_directory(tmp_path):
    """Breaks when loading a whole CLIP leaves the vision network untrained (keys that do not match)."""
    torch.manual_seed(0)
    vision = {**TOKEN, "intermediate_size": 32}
    text = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    clip.save_pretrained(tmp_path)
    network = load_features(str(tmp_path), layers=[3], image_size=16, **NORMALISE)
    states = clip.vision_model(normalised(images()), output_hidden_states=True).hidden_states
    expected = (states[3][:, 1:] + states[3][:, :1]).transpose(1, 2)
    torch.testing.assert_close(network(images())[0], expected)


def test_resize():
    """Breaks when shrinking aliases, or an image of the right size is filtered."""
    x = images(size=32)
    assert resize(x, 32) is x
    assert torch.equal(resize(x, 48), F.interpolate(x, (48, 48), mode="bilinear"))
    stripes = torch.ones(1, 3, 32, 32)
    stripes[..., ::4] = -1  # mean 0.5; without antialiasing only columns 1 and 2 of each four would be seen
    assert float((resize(stripes, 8) - 0.5).abs().max()) < 0.2
    assert resize(x[..., :20], 16).shape == (2, 3, 16, 16)


def test_published_vits_load_and_one_without_a_pooler_pools_its_cls_token(tmp_path):
    """Breaks when DINOv1's file, with its older names and no pooler, is refused or pooled by random weights."""
    model = build("vit").eval()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    older = {"layers.": "encoder.layer.", "q_proj": "attention.query", "k_proj": "attention.key"}
    older |= {"v_proj": "attention.value", "o_proj": "output.dense", "mlp.fc1": "intermediate.dense"}
    older |= {"mlp.fc2": "output.dense"}
    tensors = {}
    for name, tensor in model.state_dict().items():
        for new, old in older.items():
            name = name.replace(new, old)
        if not name.startswith("pooler."):
            tensors[name] = tensor
    assert "encoder.layer.0.attention.attention.query.weight" in tensors
    save_file(tensors, file)
    network = load_features(str(tmp_path), image_size=16, **NORMALISE)
    with torch.no_grad():
        expected = model(normalised(images())).last_hidden_state[:, 0]
        torch.testing.assert_close(network.pooled(images()), expected)
    del tensors["encoder.layer.1.attention.attention.query.weight"]
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=r"lack 1 of the network's weights, e.g. layers\.1\.attention"):
        load_features(str(tmp_path), layers=[1], image_size=16, **NORMALISE)


def test_published_dinov2_names_and_another_size_than_its_own(tmp_path):
    """Breaks when DINOv2's older names are not understood, or 224 pixels are not cut from 518's positions."""
    model = build("dinov2").eval()
    older = {"attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key"}
    older |= {"attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense"}
    model.save_pretrained(tmp_path)
    tensors = {}
    for name, tensor in model.state_dict().items():
        for new, old in older.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    assert "encoder.layer.0.attention.attention.query.weight" in tensors
    save_file(tensors, tmp_path / "model.safetensors")
    network = load_features(str(tmp_path), layers=[3], image_size=8, **NORMALISE)
    with torch.no_grad():
        states = model(normalised(images(size=8)), output_hidden_states=True).hidden_states
        expected = (states[3][:, 1:] + states[3][:, :1]).transpose(1, 2)
        torch.testing.assert_close(network(images(size=8))[0], expected)
