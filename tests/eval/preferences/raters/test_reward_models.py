"""PickScore and HPSv2 through their public formats: tiny models of the same kind, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from add.config.study import Hpsv2RaterSpec, PickScoreRaterSpec
from add.models.weights import WeightsError
from eval.preferences.raters.scores import load_hpsv2, load_pickscore
from tests.support.evaluation import picture

IMAGES = np.stack([picture(seed, 40) for seed in range(3)])
PROMPTS = ["a small red circle on sand", "a large ring at night", "a small red circle on sand"]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def pickscore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel and a CLIPProcessor as save_pretrained writes them."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from mini.pretrain.diffusion import build_tokenizer

    folder = tmp_path_factory.mktemp("pickscore")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": len(tokenizer), "max_position_embeddings": 16,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder / "model")
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder / "processor")
    return folder


def pickscore_spec(folder: Path, **more: object) -> PickScoreRaterSpec:
    values = {
        "path": str(folder / "model"),
        "processor": str(folder / "processor"),
        "questions": ("quality",),
    }
    return PickScoreRaterSpec.model_validate({"kind": "pickscore", **values, **more})


def test_pickscore_is_what_clipmodel_itself_gives(pickscore: Path):
    from transformers import AutoProcessor, CLIPModel

    scores = load_pickscore(pickscore_spec(pickscore)).scores(IMAGES, PROMPTS)
    model = CLIPModel.from_pretrained(pickscore / "model").eval()
    processor = AutoProcessor.from_pretrained(pickscore / "processor")
    pictures = [Image.fromarray(image) for image in IMAGES]
    inputs = processor(text=PROMPTS, images=pictures, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits_per_image.diag() / model.logit_scale.exp()
    np.testing.assert_allclose(scores, logits.numpy(), atol=1e-6)
    assert len(set(scores.round(9))) == 3, "neither image nor prompt is ignored"


def test_pickscore_cuts_a_prompt_that_is_too_long(pickscore: Path):
    model = load_pickscore(pickscore_spec(pickscore))
    assert np.isfinite(model.scores(IMAGES[:1], ["a small red circle " * 40])).all()


def test_pickscore_of_other_weights_or_without_processor_is_refused(pickscore: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="these are other weights"):
        load_pickscore(pickscore_spec(pickscore, sha256="0" * 64))
    with pytest.raises(WeightsError, match="no such directory"):
        load_pickscore(pickscore_spec(pickscore, path=str(tmp_path / "absent")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="cannot load a processor"):
        load_pickscore(pickscore_spec(pickscore, processor=str(tmp_path / "empty")))


@pytest.fixture(scope="module")
def hpsv2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as HPSv2's authors publish theirs, for a tiny open_clip model."""
    import open_clip

    folder = tmp_path_factory.mktemp("hpsv2")
    (folder / "tiny-hps.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-hps.json")
    torch.manual_seed(1)
    model = open_clip.create_model("tiny-hps")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, folder / "HPS_v2.1_compressed.pt")
    return folder


def hpsv2_spec(folder: Path, **more: object) -> Hpsv2RaterSpec:
    values = {"path": str(folder), "file": "HPS_v2.1_compressed.pt", "model": "tiny-hps"}
    return Hpsv2RaterSpec.model_validate(
        {"kind": "hpsv2", **values, "questions": ("quality", "alignment"), **more}
    )


def test_hpsv2_is_the_cosine_of_its_checkpoints_model(hpsv2: Path):
    import open_clip

    scores = load_hpsv2(hpsv2_spec(hpsv2)).scores(IMAGES, PROMPTS)
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-hps")
    state = torch.load(hpsv2 / "HPS_v2.1_compressed.pt", weights_only=True)["state_dict"]
    model.load_state_dict(state)
    pixels = torch.stack([preprocess(Image.fromarray(image)) for image in IMAGES])
    tokens = open_clip.get_tokenizer("tiny-hps")(PROMPTS)
    with torch.no_grad():
        image, text, _ = model.eval()(pixels, tokens)
    np.testing.assert_allclose(scores, (image * text).sum(1).numpy(), atol=1e-6)


def test_hpsv2_reads_the_same_weights_as_safetensors(hpsv2: Path):
    from safetensors.torch import save_file

    state = torch.load(hpsv2 / "HPS_v2.1_compressed.pt", weights_only=True)["state_dict"]
    save_file({name: value.contiguous() for name, value in state.items()}, hpsv2 / "hps.safetensors")
    one = load_hpsv2(hpsv2_spec(hpsv2)).scores(IMAGES, PROMPTS)
    two = load_hpsv2(hpsv2_spec(hpsv2, file="hps.safetensors")).scores(IMAGES, PROMPTS)
    np.testing.assert_array_equal(one, two)


class Harmful:
    """What a checkpoint may hold that is no tensor: unpickling it runs a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(hpsv2: Path, tmp_path: Path):
    torch.save({"state_dict": Harmful(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_hpsv2(hpsv2_spec(tmp_path, file="bad.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"file": "absent.pt"}, "no such file"),
        ({"path": "/no/such/place/at/all"}, "no such directory"),
        ({"sha256": "0" * 64}, "these are other weights"),
        ({"model": "ViT-B-32"}, "does not load into open_clip's ViT-B-32"),
    ],
)
def test_weights_that_are_absent_or_others_are_refused(hpsv2: Path, more: dict[str, str], message: str):
    with pytest.raises(WeightsError, match=message):
        load_hpsv2(hpsv2_spec(hpsv2, **more))
