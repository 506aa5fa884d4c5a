"""The features that FID and KID compare: images -> one vector each, by a frozen network.

Resizing is clean-fid's (Parmar et al., arXiv 2104.11222): Pillow's antialiased bicubic filter on each
channel in floating point, without rounding. One decode and, for networks of one size, one resize feed every
network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from add.models.hub import mirrored, network_directory
from add.models.weights import WeightsError, check_weights
from eval.metrics.protocol import NetworkIdentity

if TYPE_CHECKING:
    import torch

    from add.config.scale import ExtractorSpec as ExtractorSpec
    from add.config.scale import ImageNetworkSpec

Numbers = TypeVar("Numbers", bound=NDArray[np.floating])

RESIZE_FILTER = "clean-fid: Pillow bicubic, antialiased, floating point"
INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_SIZE = 299
INCEPTION_SOURCE = (
    f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION_FILE}"
)
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of that file; as k-diffusion's k_diffusion/evaluation.py holds its download of it to."""


@dataclass(frozen=True)
class ImageBatch:
    """Images uint8 (n, H, W, 3); what is resized once is kept for the next network of that size."""

    images: NDArray[np.uint8]
    _resized: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def resized(self, size: int) -> torch.Tensor:
        """float32 (n, 3, size, size), 0 to 255."""
        if size not in self._resized:
            self._resized[size] = clean_resize(self.images, size)
        return self._resized[size]


@dataclass(frozen=True)
class Extractor:
    """A frozen network; `network` is its entry in the protocol."""

    network: NetworkIdentity
    size: int
    forward: Callable[[torch.Tensor], torch.Tensor]
    device: str

    def __call__(self, batch: ImageBatch) -> NDArray[np.float32]:
        """Features float32 (n, d)."""
        return self.of_pixels(batch.resized(self.size))

    def of_pixels(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """Features float32 (n, d) of float32 (n, 3, size, size), 0 to 255. Raises WeightsError where not finite."""
        import torch

        with torch.inference_mode():
            features = self.forward(pixels.to(self.device))
        return all_finite(np.asarray(features.float().cpu().numpy()), self.network.id)


def load_extractor(spec: ExtractorSpec, device: str = "cpu") -> Extractor:
    """The extractor that a scale names. Raises WeightsError where its weights are absent or others."""
    if spec.kind == "inception":
        return load_inception(spec, device)
    from transformers import AutoModel

    return load_image_network(spec, AutoModel, "pooler_output", "transformers, pooled output", device)[0]


def load_image_network(
    spec: ImageNetworkSpec,
    family: Any,
    output: Literal["pooler_output", "logits"],
    kind: str,
    device: str = "cpu",
) -> tuple[Extractor, Any]:
    """A transformers image model of `family`: one of its outputs, flat, as the features; and the model itself.

    `kind` is what the protocol calls it.
    Raises WeightsError where its weights are absent or others, or it has no such output.
    """
    import torch

    directory = network_directory(spec)
    sha256 = check_weights(directory, spec.sha256, spec.files)
    with quiet():
        model = load_frozen(family, directory, device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        found = getattr(model(pixel_values=(pixels / 255 - mean) / std), output)
        if found is None:
            raise WeightsError(f"{directory}: {type(model).__name__} has no {output} to take as features")
        return torch.flatten(found, 1)

    network = NetworkIdentity.of_transformers(spec, directory, sha256, kind)
    return Extractor(network, spec.image_size, forward, device), model


def load_inception(spec: ImageNetworkSpec, device: str = "cpu") -> Extractor:
    """Inception-v3 as FID has used it since 2017: clean-fid's wrapper of the TorchScript file, 2048 features.

    It takes 299 x 299 and normalises by itself, so image_size must be 299; mean and std are not used.
    """
    directory = Path(mirrored(spec.path, spec.revision)[0])
    file = directory / INCEPTION_FILE if directory.is_dir() else directory
    if file.name != INCEPTION_FILE or not file.is_file():
        raise WeightsError(
            f"{file}: no Inception weights; download {INCEPTION_SOURCE} and let evaluation.extractor.path "
            f"name the file, or the directory that holds it as {INCEPTION_FILE}"
        )
    if spec.image_size != INCEPTION_SIZE:
        raise WeightsError(
            f"{file}: Inception takes {INCEPTION_SIZE} pixels; image_size is {spec.image_size}"
        )
    sha256 = check_weights(file, spec.sha256)
    from cleanfid.inception_torchscript import InceptionV3W

    model = InceptionV3W(str(file.parent), download=False, resize_inside=False).to(device).eval()
    network = NetworkIdentity(
        kind="inception (TorchScript, 2048 features)",
        id=spec.path,
        revision=spec.revision,
        sha256=sha256,
        image_size=INCEPTION_SIZE,
    )
    return Extractor(network, INCEPTION_SIZE, model, device)


def clean_resize(images: NDArray[np.uint8], size: int) -> torch.Tensor:
    """float32 (n, 3, size, size), 0 to 255, of images uint8 (n, H, W, 3), by clean-fid's own resizer."""
    from cleanfid.resize import make_resizer

    resize = make_resizer("PIL", False, "bicubic", (size, size))
    return stacked([resize(image) for image in images])


def all_finite(values: Numbers, network: str) -> Numbers:
    """What a network makes of 8-bit images, (n, ...). Raises WeightsError where it is not finite for one of them."""
    broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(broken):
        raise WeightsError(
            f"{network}: its output is not finite for {len(broken)} of {len(values)} images (the first is number "
            f"{broken[0] + 1} of its batch); are its weights whole?"
        )
    return values


def stacked(images: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    """float32 (n, 3, h, w) of n images float32 (h, w, 3)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))


def load_frozen(family: Any, directory: Path, device: str) -> Any:
    """A transformers network in float32 and evaluation mode (weights may be stored in half precision)."""
    import torch

    try:
        model = family.from_pretrained(directory, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{directory}: transformers cannot load it: {error}") from error
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and its report of the classifier head left unused."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
