"""The libraries' resizes pixel for pixel, JPEG, and what each preprocessing does to a photograph."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from eval.images import decode_image, to_square
from eval.protocols.pixels import Picture, reencoded, resizer, symmetric, tensorflow1_bilinear
from tests.support.evaluation import picture, shared
from tests.support.protocol_sets import stripes

GOLDEN = Path(__file__).parent / "tensorflow1_bilinear.json"
SYNTHETIC = [picture(1, 32), picture(2, 96)[:70], picture(3, 400)[:, :310], stripes(64)]


def images() -> list[np.ndarray]:
    """Synthetic ones, and six real COCO photographs where they are."""
    try:
        folder = shared("coco/val2017")
    except pytest.skip.Exception:
        return SYNTHETIC
    return SYNTHETIC + [np.array(decode_image(file)) for file in sorted(folder.iterdir())[:6]]


@pytest.mark.parametrize(("mode", "name"), [("clean", "clean"), ("legacy_pytorch", "pytorch")])
def test_the_resizes_are_clean_fids_modes_pixel_for_pixel(mode: str, name: str) -> None:
    """A protocol called legacy_pytorch must be clean-fid's, or its row explains nothing."""
    from cleanfid.resize import build_resizer

    with warnings.catch_warnings():
        theirs = build_resizer(mode)
    ours = resizer(name, 299)  # type: ignore[arg-type]
    for image in images():
        np.testing.assert_array_equal(ours(image), theirs(image))


def test_legacy_pytorch_is_what_pytorch_fid_does() -> None:
    """pytorch-fid resizes inside its network, from 0..1: the same up to rounding."""
    for image in SYNTHETIC:
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float() / 255
        inside = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)[0]
        np.testing.assert_allclose(
            resizer("pytorch", 299)(image), inside.numpy().transpose(1, 2, 0) * 255, atol=1e-3
        )


def test_tensorflow1_is_tensorflows_bit_for_bit() -> None:
    """Against what TensorFlow 2.21's tf.compat.v1.image.resize_bilinear gave (align_corners=False)."""
    for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]:
        expected = np.array(case["resized"], np.float32)
        found = tensorflow1_bilinear(np.array(case["image"], np.uint8), len(expected))
        np.testing.assert_array_equal(found, expected)


def plain(image: np.ndarray, size: int) -> np.ndarray:
    """The definition, pixel by pixel, in double precision."""
    height, width, _ = image.shape
    x = image.astype(float)
    out = np.empty((size, size, 3))
    for i in range(size):
        for j in range(size):
            y0, x0 = int(i * height / size), int(j * width / size)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            dy, dx = i * height / size - y0, j * width / size - x0
            upper = x[y0, x0] * (1 - dx) + x[y0, x1] * dx
            out[i, j] = upper * (1 - dy) + (x[y1, x0] * (1 - dx) + x[y1, x1] * dx) * dy
    return out


@pytest.mark.parametrize("size", [7, 33, 64])
def test_tensorflow1_agrees_with_its_definition(size: int) -> None:
    for image in (picture(4, 40)[:27], picture(5, 16)):
        np.testing.assert_allclose(tensorflow1_bilinear(image, size), plain(image, size), atol=2e-3)


class Inception(torch.nn.Module):
    """The interface of the TorchScript Inception of 2015-12-05 as clean-fid calls it with resize_inside.

    Its own resize is TensorFlow 1's, by a sampling grid whose first point lies on the first pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.AvgPool2d(74), torch.nn.Flatten(), torch.nn.Linear(48, 2048)
        )

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        height, width = x.shape[2], x.shape[3]
        theta = torch.eye(2, 3)
        theta[0, 2] += theta[0, 0] / width - theta[0, 0] / 299
        theta[1, 2] += theta[1, 1] / height - theta[1, 1] / 299
        grid = F.affine_grid(
            theta.unsqueeze(0).repeat(x.shape[0], 1, 1), [x.shape[0], 3, 299, 299], align_corners=False
        )
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return self.layers((x - 128) / 128)


def test_legacy_tensorflow_is_clean_fids_mode_through_its_wrapper(tmp_path: Path) -> None:
    """clean-fid leaves this resize to the network; ours comes before it and must give the same features."""
    from cleanfid.inception_torchscript import InceptionV3W

    torch.manual_seed(0)
    torch.jit.script(Inception().eval()).save(str(tmp_path / "inception-2015-12-05.pt"))
    inside = InceptionV3W(str(tmp_path), download=False, resize_inside=True).eval()
    outside = InceptionV3W(str(tmp_path), download=False, resize_inside=False).eval()
    for image in images():
        whole = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float()
        ours = torch.from_numpy(tensorflow1_bilinear(image, 299).transpose(2, 0, 1)[None].copy())
        with torch.no_grad():
            np.testing.assert_allclose(outside(ours).numpy(), inside(whole).numpy(), atol=1e-4)


def test_the_legacy_resizes_alias_and_the_clean_one_does_not() -> None:
    """One bright column in four has mean 63.75; shrunk by four it must be even, not black and white."""
    shrunk = {
        name: resizer(name, 16)(stripes(64))[2:-2, 2:-2] for name in ("clean", "pytorch", "tensorflow1")
    }
    assert np.abs(shrunk["clean"] - 63.75).max() < 8
    assert np.abs(shrunk["pytorch"] - 63.75).max() > 50
    assert np.abs(shrunk["tensorflow1"] - 63.75).max() > 150


def test_resizing_leaves_warnings_as_they_were_and_a_size_that_fits_alone() -> None:
    before = list(warnings.filters)
    for name in ("clean", "pytorch", "tensorflow1", "pillow_bilinear", "pillow_bicubic"):
        same = resizer(name, 32)(SYNTHETIC[0])
        assert same.dtype == np.float32
        np.testing.assert_array_equal(same, SYNTHETIC[0])
    assert list(warnings.filters) == before


def test_jpeg_loses_more_at_lower_quality_and_png_nothing() -> None:
    image = SYNTHETIC[1]
    assert reencoded(image, "png") is image
    loss = [np.abs(reencoded(image, f"jpeg-{q}").astype(int) - image).mean() for q in (95, 75, 30)]
    assert 0 < loss[0] < loss[1] < loss[2]


def test_a_picture_is_cropped_resized_and_encoded_in_this_order() -> None:
    image = Image.fromarray(SYNTHETIC[2])
    assert Picture(None, "none", "bicubic", "png")(image).shape == (400, 310, 3)
    assert Picture(None, "center", "bicubic", "png")(image).shape == (310, 310, 3)
    square = to_square(image, 50, "center")
    np.testing.assert_array_equal(Picture(50, "center", "bicubic", "png")(image), square)
    expected = reencoded(square, "jpeg-75")
    np.testing.assert_array_equal(Picture(50, "center", "bicubic", "jpeg-75")(image), expected)
    assert (
        Picture(50, "none", "nearest", "png")(image) != Picture(50, "none", "lanczos", "png")(image)
    ).any()


def test_symmetric_pixels_reach_inception_as_pytorch_fid_has_them() -> None:
    x = torch.arange(256, dtype=torch.float32)
    np.testing.assert_allclose(((symmetric(x) - 128) / 128).numpy(), (2 * (x / 255) - 1).numpy(), atol=1e-6)
