"""Frozen feature networks: images to the token sequences or feature maps of several layers, F_k in the paper.

Any `save_pretrained` directory or hub id of the families in `BLOCKS`. Layer i is transformers'
hidden_states[i]: 0 is what enters the first block or stage (tokens with positional embedding; a convolutional
stem's output), i > 0 is what block or stage i puts out, before any final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from add.errors import InputError
from add.models.hub import local_directory
from add.models.weights import check_complete, weight_variant

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# config.model_type -> where the blocks are, and the final norm that a shortened network must do without
BLOCKS = {
    "vit": ("layers", "layernorm"),
    "dinov2": ("encoder.layer", "layernorm"),
    "clip_vision_model": ("encoder.layers", "post_layernorm"),
    "resnet": ("encoder.stages", None),
    "convnext": ("encoder.stages", "layernorm"),
    "convnextv2": ("encoder.stages", "layernorm"),
    "bit": ("encoder.stages", "norm"),
}
INTERPOLATING = ("vit", "clip_vision_model")  # take interpolate_pos_encoding; dinov2 always interpolates


@dataclass(frozen=True)
class FeatureShape:
    """Shape of one feature without its batch: channels, and (L,) for tokens or (H, W) for a map."""

    channels: int
    size: tuple[int, ...]


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear resize (B, 3, H, W) to (B, 3, size, size), antialiased when shrinking."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    shrinking = height > size or width > size
    if images.is_cuda:
        return resize_by_products(images, size, shrinking)
    # In float32 as the products above; and the CPU's antialiased kernel takes no bfloat16.
    whole = F.interpolate(
        images.float(), (size, size), mode="bilinear", align_corners=False, antialias=shrinking
    )
    return whole.to(images.dtype)


def resize_by_products(images: Tensor, size: int, antialias: bool) -> Tensor:
    """The same by one matrix product an axis, in float32.

    On a GPU, the gradient of torch's interpolation sums in any order, so its bits differ from run to run.
    """
    rows, columns = (_weights(side, size, antialias).to(images.device) for side in images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):
        return (rows @ images.float() @ columns.T).to(images.dtype)


def _weights(side: int, size: int, antialias: bool) -> Tensor:
    """(size, side): what each of `side` pixels in a row adds to each of `size`."""
    unit = torch.eye(side)[None, None]
    resized = F.interpolate(unit, (size, side), mode="bilinear", align_corners=False, antialias=antialias)
    return resized[0, 0]


def load_features(
    path: str, *, layers: Sequence[int] = (), image_size: int, mean: Sequence[float], std: Sequence[float]
) -> FeatureNetwork:
    """Load a frozen `FeatureNetwork` from safetensors, in float32.

    path: a transformers directory or hub id; of a whole CLIP only the vision half is loaded. A pooler without weights
    (as in DINOv1's published files) is left out, since it would be random. The settings are `FeatureNetwork`'s.

    Raises InputError for an unsupported family and as `FeatureNetwork`, WeightsError where weights are missing.
    """
    from transformers import AutoConfig, AutoModel, CLIPVisionModel

    directory = local_directory(path)
    kind = AutoConfig.from_pretrained(directory).model_type
    if kind not in (*BLOCKS, "clip"):
        raise InputError(
            f"{path}: feature networks of type {kind!r} are not supported; use one of {', '.join(BLOCKS)}"
        )
    family: Any = CLIPVisionModel if kind in ("clip", "clip_vision_model") else AutoModel
    options = {"dtype": torch.float32, "use_safetensors": True, "variant": weight_variant(directory)}
    model, report = family.from_pretrained(directory, output_loading_info=True, **options)
    missing = set(report["missing_keys"])
    pooler = {name for name in missing if name.startswith("pooler.")}
    check_complete(missing - pooler, path)
    if pooler:
        model.pooler = None
    return FeatureNetwork(model, layers=layers, image_size=image_size, mean=mean, std=std, name=path)


def shorten(model: PreTrainedModel, kind: str, depth: int) -> None:
    """Keep the first `depth` blocks, in place; the final norm goes as its width belongs to the last block."""
    where, norm = BLOCKS[kind]
    parent, _, attribute = where.rpartition(".")
    blocks = attrgetter(where)(model)
    setattr(attrgetter(parent)(model) if parent else model, attribute, blocks[:depth])
    if norm is not None:
        setattr(model, norm, nn.Identity())


class FeatureNetwork(nn.Module):
    """A frozen network: no parameter has requires_grad, always in eval mode, gradients reach the images.

    layers: indices into hidden_states, in the order in which the features are wanted; blocks beyond the deepest are
    dropped. Without layers the network is whole and only `pooled` can be used. image_size: pixels of the square input.
    mean, std: of the normalisation, for values in [0, 1], one a channel. name: for messages.

    Raises InputError for an unsupported family, a layer that the network does not have, a repeated layer, or an
    image_size that is no multiple of the patch size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        layers: Sequence[int],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        name: str = "feature network",
    ) -> None:
        super().__init__()
        config: Any = model.config
        self.kind: str = config.model_type
        if self.kind not in BLOCKS:
            raise InputError(f"{name}: type {self.kind!r} is not supported; use one of {', '.join(BLOCKS)}")
        blocks = len(attrgetter(BLOCKS[self.kind][0])(model))
        wrong = [i for i in layers if not 0 <= i <= blocks]
        if wrong or len(set(layers)) != len(layers):
            raise InputError(
                f"{name}: layers {list(layers)} must be different indices in 0 .. {blocks}"
                f" (0: before the first of its {blocks} blocks, i: after block i)"
            )
        if self.kind in (*INTERPOLATING, "dinov2") and image_size % config.patch_size:
            raise InputError(
                f"{name}: image_size {image_size} is not a multiple of its patch size {config.patch_size};"
                " the pixels beyond the last whole patch would be ignored"
            )
        self.whole = not layers or max(layers) == blocks
        if not self.whole:
            # One block at least: transformers records what enters the first block when that block is called.
            shorten(model, self.kind, max(1, *layers))
        self.model = model
        self.name, self.layers, self.image_size = name, tuple(layers), image_size
        # The size that the position embeddings were made for may be another one.
        interpolate = self.kind in INTERPOLATING and config.image_size != image_size
        self.options = {"interpolate_pos_encoding": True} if interpolate else {}
        for statistic, values in (("mean", mean), ("std", std)):
            value = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(statistic, value, persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Always stay in eval mode: dropout and batch statistics would change the features."""
        return super().train(False)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], resized to the network's size and normalised."""
        return (resize(images, self.image_size) / 2 + 0.5 - self.mean) / self.std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of images (B, 3, H, W) in [-1, 1], one a layer: tokens (B, C, L) or maps (B, C, H', W').

        The CLS token is added to every patch token and then dropped, as in StyleGAN-T.
        Raises ValueError when the network was loaded without layers.
        """
        if not self.layers:
            raise ValueError(f"{self.name}: loaded without layers, so it has no features; name some layers")
        states = self.model(self.prepare(images), output_hidden_states=True, **self.options).hidden_states
        chosen = [states[i] for i in self.layers]
        return [
            h if h.ndim == 4 else (h[:, 1:] + h[:, :1]).transpose(1, 2).contiguous()  # a map, or tokens
            for h in chosen
        ]

    def pooled(self, images: Tensor) -> Tensor:
        """One embedding (B, D) an image: the pooler's output if there is one, else the CLS token.

        Raises ValueError where the network was shortened to its chosen layers: it has no final output.
        """
        if not self.whole:
            raise ValueError(
                f"{self.name}: cut off after layer {max(self.layers)}, so there is no pooled output; load it"
                " without layers for that"
            )
        output = self.model(self.prepare(images), **self.options)
        pooled = getattr(output, "pooler_output", None)
        return (output.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)

    def shapes(self, resolution: int | None = None) -> tuple[FeatureShape, ...]:
        """Shapes of the features, by a dry run on one black image of resolution x resolution pixels."""
        size = resolution or self.image_size
        with torch.no_grad():
            features = self(self.mean.new_zeros(1, 3, size, size))
        return tuple(FeatureShape(f.shape[1], tuple(f.shape[2:])) for f in features)


@dataclass(frozen=True)
class ImageCondition:
    """c_img: one embedding (B, D) of images (B, 3, H, W) in [-1, 1], the frozen network's pooled output."""

    network: FeatureNetwork

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed images."""
        return self.network.pooled(images)
