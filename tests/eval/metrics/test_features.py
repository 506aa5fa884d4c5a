"""Feature extraction: clean-fid's resize, the network's own normalisation, the right weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from add.config.scale import ExtractorSpec as ExtractorSpec
from add.models.weights import WeightsError, weights_hash
from eval.metrics.features import INCEPTION_FILE, Extractor, ImageBatch, clean_resize, load_extractor
from tests.support.evaluation import picture, save_classifier

IMAGES = np.stack([picture(k, 20) for k in range(3)])


def spec(path: Path, **changes: object) -> ExtractorSpec:
    values = {"kind": "transformers", "path": str(path), "image_size": 32}
    channels = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    return ExtractorSpec.model_validate(values | channels | changes)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("extractor") / "model")


def test_the_resize_is_clean_fids() -> None:
    from cleanfid.resize import build_resizer

    expected = np.stack([build_resizer("clean")(image) for image in IMAGES]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(clean_resize(IMAGES, 299).numpy(), expected)
    assert clean_resize(IMAGES, 20).numpy().astype(np.uint8).tolist() == IMAGES.transpose(0, 3, 1, 2).tolist()


def test_one_resize_feeds_every_network_of_a_size() -> None:
    batch = ImageBatch(IMAGES)
    assert batch.resized(32) is batch.resized(32)
    assert batch.resized(16).shape == (3, 3, 16, 16)


def test_features_are_the_networks_pooled_output(directory: Path) -> None:
    from transformers import ResNetModel

    extractor = load_extractor(spec(directory))
    model = ResNetModel.from_pretrained(directory).eval()
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    pixels = torch.from_numpy(((clean_resize(IMAGES, 32).numpy() / 255 - mean) / std).astype(np.float32))
    with torch.no_grad():
        expected = model(pixels).pooler_output.flatten(1).numpy()
    found = extractor(ImageBatch(IMAGES))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (3, 12)
    assert found.dtype == np.float32
    single = np.concatenate([extractor(ImageBatch(IMAGES[k : k + 1])) for k in range(3)])
    np.testing.assert_allclose(single, found, atol=1e-5)


def test_half_precision_weights_are_run_in_float32(directory: Path, tmp_path: Path) -> None:
    from transformers import ResNetForImageClassification

    ResNetForImageClassification.from_pretrained(directory).half().save_pretrained(tmp_path)
    found = load_extractor(spec(tmp_path))(ImageBatch(IMAGES))
    np.testing.assert_allclose(found, load_extractor(spec(directory))(ImageBatch(IMAGES)), atol=2e-2)
    assert found.dtype == np.float32


def test_the_hash_is_recorded_and_other_weights_are_refused(directory: Path) -> None:
    found = load_extractor(spec(directory)).network
    assert found.sha256 == weights_hash(directory)
    with pytest.raises(WeightsError, match="other weights"):
        load_extractor(spec(directory, sha256="f" * 64))
    with pytest.raises(WeightsError, match="no such directory"):
        load_extractor(spec(directory / "absent"))


class _Layers(nn.Module):
    """A stand-in with Inception's interface: `layers`, on values from -1 to 1, to 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(74), nn.Flatten(), nn.Linear(48, 2048))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_inception_goes_through_clean_fids_wrapper(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stand_in = _Layers().eval()
    torch.jit.script(stand_in).save(str(tmp_path / INCEPTION_FILE))
    wanted = spec(tmp_path, kind="inception", image_size=299)
    extractor = load_extractor(wanted)
    found = extractor(ImageBatch(IMAGES))
    with torch.no_grad():
        expected = stand_in((clean_resize(IMAGES, 299) - 128) / 128).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert extractor.network.sha256 == weights_hash(tmp_path / INCEPTION_FILE)
    with pytest.raises(WeightsError, match="takes 299 pixels"):
        load_extractor(spec(tmp_path, kind="inception", image_size=64))


def test_without_inceptions_weights_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"download https://.*{INCEPTION_FILE}"):
        load_extractor(spec(tmp_path, kind="inception", image_size=299))


def test_an_edited_configuration_is_another_network(tmp_path: Path) -> None:
    """The same weights with another activation give other features: one hash of weights is no identity."""
    import json
    import shutil

    from tests.eval.metrics.test_protocol import protocol

    def extractor(directory: Path) -> Extractor:
        middle = (0.5, 0.5, 0.5)
        spec = ExtractorSpec(kind="transformers", path=str(directory), image_size=32, mean=middle, std=middle)
        return load_extractor(spec)

    one = save_classifier(tmp_path / "one")
    other, moved = (Path(shutil.copytree(one, tmp_path / name)) for name in ("other", "moved"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_act": "tanh"}))
    (moved / "config.json").write_text(
        json.dumps(config | {"transformers_version": "9", "_name_or_path": "x"})
    )
    networks = [extractor(directory).network for directory in (one, other, moved)]
    assert len({network.sha256 for network in networks}) == 1
    first, changed, same = (protocol(network=network).id() for network in networks)
    assert first == same != changed
