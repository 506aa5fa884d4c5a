"""c_text from both formats in which CLIPs are published, beside the library that each comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection

from add.config.scale import NetworkSpec
from add.models.text import load_text_condition
from add.models.weights import WeightsError
from tests.support.tiny_pipelines import LENGTH, text_config, write_tokenizer

PROMPTS = ["a red cat", "a caption that is far longer than the twelve tokens that there are"]
OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def condition(path: Path) -> Any:
    return load_text_condition(NetworkSpec(path=str(path)), "cpu")


def test_the_text_half_of_a_transformers_clip(tmp_path: Path):
    """Breaks when a whole CLIP's projection is taken for its text_config's default size, 512, or left random."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(tmp_path / "clip", "<|endoftext|>")
    text = text_config(16, 2, projection_dim=512).to_dict()
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    whole.save_pretrained(tmp_path / "clip")
    found = condition(tmp_path / "clip")(PROMPTS)
    ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        expected = whole.get_text_features(input_ids=ids.input_ids)
    expected = getattr(expected, "pooler_output", expected)
    assert found.shape == (2, 8)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[0], found[1])


def test_a_text_encoder_by_itself(tmp_path: Path):
    torch.manual_seed(0)
    tokenizer = write_tokenizer(tmp_path / "text", "<|endoftext|>")
    encoder = CLIPTextModelWithProjection(text_config(16, 2, projection_dim=8)).eval()
    encoder.save_pretrained(tmp_path / "text")
    ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(condition(tmp_path / "text")(PROMPTS), encoder(ids.input_ids).text_embeds)


def test_the_text_half_of_an_open_clip_directory(tmp_path: Path):
    """Breaks when ViT-g-14 as open_clip publishes it cannot be c_text, or its vision half stays in memory."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**OPEN_CLIP).eval()
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": {}})
    )
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    found = condition(tmp_path)
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer("ViT-g-14")(PROMPTS))
    torch.testing.assert_close(found(PROMPTS), expected)
    assert not hasattr(found.encoder, "visual")
    assert not any(p.requires_grad for p in found.encoder.parameters())


def test_other_directories_are_refused(tmp_path: Path):
    """Breaks when pickled weights would be read, or a directory of neither format fails without saying why."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"neither a transformers CLIP .* pickled weights are not read"):
        condition(tmp_path)
