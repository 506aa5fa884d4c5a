"""Protocols on Inception: clean-fid's three modes feature for feature, torchvision's weights at their real size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from add.config.scale import ExtractorSpec as ExtractorSpec
from add.config.scale import Scale
from eval.metrics.features import INCEPTION_FILE, load_extractor
from eval.protocols.pixels import features_by_preprocessing
from eval.protocols.plan import plan
from eval.protocols.run import Request, open_reference, score_protocols
from eval.protocols.spec import load_protocols
from tests.eval.protocols.test_pixels import Inception
from tests.support.evaluation import ROOT, write_pictures
from tests.support.protocol_sets import protocols, samples, world

ROWS = """\
  - {name: pytorch, why: aliases, set: {resize: pytorch, normalisation: symmetric}}
  - {name: tensorflow, why: aliases, set: {resize: tensorflow1}}
"""


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Scale:
    """A scale whose extractor is a TorchScript with the interface of Inception's of 2015-12-05."""
    root = tmp_path_factory.mktemp("world")
    found = world(root)
    torch.manual_seed(0)
    torch.jit.script(Inception().eval()).save(str(root / INCEPTION_FILE))
    extractor = ExtractorSpec(
        kind="inception", path=str(root), image_size=299, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    write_pictures(root / "squares", range(300, 306))
    reference = found.evaluation.reference.model_copy(update={"images": str(root / "squares"), "count": 6})
    changed = {"extractor": extractor, "reference": reference}
    return found.model_copy(update={"evaluation": found.evaluation.model_copy(update=changed)})


def clean_fid(folder: Path, mode: str, weights: Path) -> np.ndarray:
    """Features by clean-fid's own reader, resizer and wrapper; its PyTorch port is the same layers on 2x - 1."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(weights), download=False, resize_inside=mode == "legacy_tensorflow").eval()

    def port(x: torch.Tensor) -> torch.Tensor:
        return network.layers(2 * (x / 255) - 1)

    model = port if mode == "legacy_pytorch" else network
    return get_folder_features(
        str(folder), model, num_workers=0, batch_size=4, device=torch.device("cpu"), mode=mode, verbose=False
    )


@pytest.mark.parametrize(
    ("name", "mode"), [("base", "clean"), ("pytorch", "legacy_pytorch"), ("tensorflow", "legacy_tensorflow")]
)
def test_the_features_are_those_of_clean_fids_mode(
    name: str, mode: str, scale: Scale, tmp_path: Path
) -> None:
    """Reader, resize and normalisation together: a row by a mode's name holds that mode's FID."""
    document = protocols(tmp_path, ROWS)
    protocol = next(p for p in document.everything() if p.name == name)
    preprocessing = plan(document, protocol, scale, 6, own_samples=False).reference
    images, _ = open_reference(scale, None)
    extractors = {preprocessing.extractor: load_extractor(scale.evaluation.extractor)}
    found = features_by_preprocessing(images, [preprocessing], extractors, 4, tmp_path / "features")[
        preprocessing
    ]
    expected = clean_fid(images.files[0].parent, mode, Path(scale.evaluation.extractor.path))
    assert found.shape == (6, 2048)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.slow
def test_the_command_runs_on_inception_and_tells_the_normalisations_apart(
    scale: Scale, tmp_path: Path
) -> None:
    rows = ROWS + "  - {name: range, why: another zero, set: {normalisation: symmetric}}\n"
    directory = samples(scale, tmp_path / "samples")
    found = score_protocols(protocols(tmp_path, rows), scale, Request(directory))
    assert len({row.fid_protocol for row in found.rows}) == 4
    assert len({row.fid.value for row in found.rows if row.fid}) == 4
    last = found.protocols[found.rows[3].fid_protocol or ""]
    assert last["image_rule"]["normalisation"] == "0..255 to -1..1"
    assert "rank of at most 5" in str(found.rows[0].note)


@pytest.mark.slow
def test_torchvisions_inception_loads_as_the_hub_holds_it(tmp_path: Path) -> None:
    """At its real size with random weights: config.json as timm writes it, safetensors, 2048 features."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model: Any = timm.create_model("inception_v3", pretrained=False).eval()
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "inception_v3",
        "num_classes": 1000,
        "num_features": 2048,
        "pretrained_cfg": {
            "tag": "tv_in1k",
            "input_size": [3, 299, 299],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    document = load_protocols(ROOT / "config/protocols/inception_weights.yaml")
    spec = document.protocols[0].set.extractor
    assert isinstance(spec, ExtractorSpec)
    extractor = load_extractor(spec.model_copy(update={"path": str(tmp_path)}))
    x = torch.rand(2, 3, 299, 299) * 255
    found = extractor.of_pixels(x)
    with torch.no_grad():
        features = model.forward_features((x / 255 - 0.5) / 0.5)
        expected = model.forward_head(features, pre_logits=True)
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
