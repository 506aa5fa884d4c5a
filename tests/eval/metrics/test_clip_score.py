"""CLIP score against open_clip by hand, on a tiny model saved in the layout that a scale names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from add.config.scale import ClipSpec as ClipSpec
from add.models.weights import WeightsError, weights_hash
from eval.metrics.alignment import Clip, clip_score, load_clip
from tests.support.evaluation import picture, save_clip

PROMPTS = ["a red circle", "two blue squares on sand", "a red circle"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def clip(directory: Path) -> Clip:
    return load_clip(ClipSpec(model=f"local-dir:{directory}"))


def images(size: int = 20) -> np.ndarray:
    return np.stack([picture(k, size) for k in range(3)])


def test_agrees_with_open_clip_by_hand(directory: Path, clip: Clip) -> None:
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{directory}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{directory}")
    model.eval()
    expected = []
    with torch.no_grad():
        for image, prompt in zip(images(), PROMPTS, strict=True):
            x = model.encode_image(preprocess(Image.fromarray(image))[None], normalize=True)
            y = model.encode_text(tokenizer([prompt]), normalize=True)
            expected.append((x * y).sum().item())
    found = clip.cosines(images(), PROMPTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(expected) > 1e-3, "the tiny model tells nothing apart: this test could not fail"
    score = clip_score(found)
    assert score.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert score.error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(3), abs=1e-6)
    assert score.interval == (score.value - 1.96 * score.error, score.value + 1.96 * score.error)


def test_each_image_goes_with_the_prompt_in_its_place(clip: Clip) -> None:
    straight = clip.cosines(images(), PROMPTS)
    reverse = clip.cosines(images()[::-1].copy(), PROMPTS[::-1])
    np.testing.assert_allclose(straight, reverse[::-1], atol=1e-6)
    assert abs(straight - clip.cosines(images(), [PROMPTS[1], PROMPTS[0], PROMPTS[1]])).max() > 1e-4
    with pytest.raises(ValueError, match="do not pair up"):
        clip.cosines(images(), PROMPTS[:2])


def test_it_does_not_depend_on_the_batch(clip: Clip) -> None:
    one = np.concatenate([clip.cosines(images()[k : k + 1], PROMPTS[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(one, clip.cosines(images(), PROMPTS), atol=1e-6)


def test_the_hash_of_the_weights_is_recorded_and_checked(directory: Path, clip: Clip) -> None:
    found = weights_hash(directory)
    assert clip.network.sha256 == found
    assert load_clip(ClipSpec(model=f"local-dir:{directory}", sha256=found)).network.sha256 == found
    with pytest.raises(WeightsError, match="other weights"):
        load_clip(ClipSpec(model=f"local-dir:{directory}", sha256="0" * 64))


def test_a_local_tokenizer_is_used_where_the_config_names_one(directory: Path, tmp_path: Path) -> None:
    """A vocabulary of our own (as the miniature's) lies in the same directory as the weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: k for k, word in enumerate(["<pad>", "a", "red", "circle", "two", "<end>"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    target = tmp_path / "model"
    target.mkdir(parents=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    tokenizer.save_pretrained(target)
    config = json.loads((directory / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "beside this file", "context_length": 77}
    (target / "open_clip_config.json").write_text(json.dumps(config))
    (target / "open_clip_model.safetensors").write_bytes(
        (directory / "open_clip_model.safetensors").read_bytes()
    )
    loaded = load_clip(ClipSpec(model=f"local-dir:{target}"))
    assert loaded.tokenizer(["a red circle"])[0, :4].tolist() == [1, 2, 3, 0]
    assert np.isfinite(loaded.cosines(images(), PROMPTS)).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model": "local-dir:absent"}, "holds no open_clip_config.json"),
        ({"model": "local-dir:absent", "pretrained": "openai"}, "leave `pretrained` null"),
        ({"model": "ViT-g-14"}, "needs a `pretrained` tag"),
        ({"model": "ViT-g-14", "pretrained": "laion3b"}, "knows no weights called 'laion3b'"),
    ],
)
def test_a_model_that_is_not_there_says_what_to_do(values: dict[str, str], reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        load_clip(ClipSpec(**values))


def test_a_directory_without_weights_is_refused(directory: Path, tmp_path: Path) -> None:
    """open_clip itself only warns, and would score with random weights."""
    (tmp_path / "open_clip_config.json").write_bytes((directory / "open_clip_config.json").read_bytes())
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        load_clip(ClipSpec(model=f"local-dir:{tmp_path}"))


def test_a_score_needs_numbers() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        clip_score(np.array([0.3]))
    with pytest.raises(ValueError, match="image 1 is not finite"):
        clip_score(np.array([0.3, np.nan]))


@pytest.fixture
def built_in(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """open_clip's own model `tiny`, its twin with QuickGELU, and tags of one file: what `openai` is to ViT-B-32."""
    import open_clip
    from open_clip.pretrained import _PRETRAINED, _pcfg, _slpcfg

    config = json.loads((directory / "open_clip_config.json").read_text())["model_cfg"]
    registered = {"tiny": config, "tiny-quickgelu": {**config, "quick_gelu": True}}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", registered)
    file = directory / "open_clip_model.safetensors"
    here = {"file": str(file), "url": f"https://example.org/{weights_hash(file)}/tiny.pt"}
    tags = {"openai": _pcfg(quick_gelu=True) | here, "plain": _pcfg(), "squashed": _slpcfg()}
    monkeypatch.setitem(_PRETRAINED, "tiny", tags)
    return file


def loaded(file: Path, model: str = "tiny", **values: str) -> Clip:
    return load_clip(ClipSpec(model=model, path=str(file.parent), file=file.name, **values))


def id_of(clip: Clip) -> str:
    from tests.eval.metrics.test_protocol import protocol

    return protocol(network=clip.network).id()


def test_one_file_under_two_architectures_has_two_identities(built_in: Path) -> None:
    plain, quick = loaded(built_in), loaded(built_in, "tiny-quickgelu")
    assert plain.network.sha256 == quick.network.sha256
    assert abs(plain.cosines(images(), PROMPTS) - quick.cosines(images(), PROMPTS)).max() > 1e-6
    assert id_of(plain) != id_of(quick)


def test_a_tag_keeps_its_activation_wherever_its_file_comes_from(built_in: Path, tmp_path: Path) -> None:
    quick = loaded(built_in, "tiny-quickgelu")
    copy = tmp_path / "any name.safetensors"
    copy.write_bytes(built_in.read_bytes())
    for same in (
        loaded(built_in, pretrained="openai"),
        load_clip(ClipSpec(model="tiny", pretrained="openai")),
        load_clip(ClipSpec(model="tiny", pretrained=str(copy))),  # known by its hash
    ):
        assert id_of(same) == id_of(quick)
        np.testing.assert_array_equal(same.cosines(images(), PROMPTS), quick.cosines(images(), PROMPTS))
    assert id_of(loaded(built_in, pretrained="plain")) == id_of(loaded(built_in)) != id_of(quick)


def test_a_tag_keeps_its_preprocessing(built_in: Path) -> None:
    plain, squashed = loaded(built_in), loaded(built_in, pretrained="squashed")
    assert squashed.network.preprocessing is not None
    assert (squashed.network.preprocessing["resize_mode"], squashed.network.preprocessing["mean"]) == (
        "squash",
        (0.5, 0.5, 0.5),
    )
    assert id_of(plain) != id_of(squashed)
    with pytest.raises(WeightsError, match="knows no weights called 'opnai'"):
        loaded(built_in, pretrained="opnai")


def test_preprocessing_and_tokenizer_of_a_directory_are_its_identity(directory: Path, tmp_path: Path) -> None:
    import shutil

    def changed(name: str, **values: object) -> str:
        shutil.copytree(directory, tmp_path / name)
        file = tmp_path / name / "open_clip_config.json"
        config = json.loads(file.read_text())
        config["preprocess_cfg"] |= values
        file.write_text(json.dumps(config, indent=4))  # formatting is no identity
        return id_of(load_clip(ClipSpec(model=f"local-dir:{tmp_path / name}")))

    own = id_of(load_clip(ClipSpec(model=f"local-dir:{directory}")))
    assert changed("elsewhere") == own
    assert changed("other mean", mean=[0.4, 0.5, 0.5]) != own
    test_a_local_tokenizer_is_used_where_the_config_names_one(directory, tmp_path / "words")
    assert id_of(load_clip(ClipSpec(model=f"local-dir:{tmp_path / 'words' / 'model'}"))) != own


def test_prompts_that_the_tokenizer_cuts_are_counted(clip: Clip, directory: Path, tmp_path: Path) -> None:
    fits, cut = "red " * 75, "red " * 76  # 77 tokens are 75 and two marks
    assert clip.truncated([fits, cut, "a cat", "red " * 200]) == 2
    assert clip.truncated(["a cat"]) == 0
    mini = load_clip(ClipSpec(model="local-dir:mini/weights/eval_clip"))
    length = mini.tokenizer.context_length
    assert mini.truncated(["red " * (length - 2), "red " * (length + 3)]) == 1
