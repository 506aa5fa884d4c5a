"""Discriminator heads D_k on frozen features and their conditioning, after StyleGAN-T (paper, section 3.1).

A head: a convolution over single positions, a residual block over nine neighbours with circular padding, each
followed by local batch norm and LeakyReLU 0.2, and a projection to one logit per position. Spectral norm on
every convolution. Token sequences (B, C, L) are convolved in one dimension, feature maps (B, C, H, W) in two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from add.config.run import Given
from add.models.features import FeatureShape

TAPS = {1: 9, 2: 3}  # kernel side by number of spatial dimensions: nine taps in either case
CONDITIONS = ("text", "image")
SLOPE = 0.2
_STEP = 10.0


def given_conditions(conditions: Mapping[str, Tensor], given: Given, virtual_batch: int) -> dict[str, Tensor]:
    """What the heads are told of each sample, (B, D) each: its own c, or for a control something else.

    constant: one vector for all samples, whose form the heads have and from which they learn nothing. shuffled: the c
    of the next sample of the same virtual batch, so that c is distributed as it is and says nothing of the sample.
    """
    if given == "own" or not conditions:
        return dict(conditions)
    if given == "constant":
        return {name: torch.ones_like(c) for name, c in conditions.items()}
    order: list[int] = []
    for groups, samples in virtual_batches(len(next(iter(conditions.values()))), virtual_batch):
        for _ in range(groups):
            first = len(order)
            order += [first + (k + 1) % samples for k in range(samples)]
    return {name: c[order] for name, c in conditions.items()}


def virtual_batches(batch: int, size: int) -> list[tuple[int, int]]:
    """Split a batch into ceil(batch / size) virtual batches of consecutive samples, as equal as possible.

    Returns at most two pairs (number of virtual batches, samples in each), the larger batches first. No virtual batch
    exceeds `size`, and no remainder is normalised alone: 9 samples in batches of 8 are 5 + 4, not 8 + 1.
    """
    groups = -(-batch // size)
    small, larger = divmod(batch, groups)
    runs = [(larger, small + 1), (groups - larger, small)]
    return [run for run in runs if run[0] > 0]


class LocalBatchNorm(nn.Module):
    """Batch norm over virtual batches, without running statistics: training and evaluation do the same.

    Input (B, C, ...). Each channel is normalised over the samples and positions of its virtual batch of at most
    `virtual_batch` consecutive samples (see `virtual_batches`), then scaled and shifted by learnt parameters.
    """

    def __init__(self, channels: int, virtual_batch: int = 8, eps: float = 1e-5) -> None:
        super().__init__()
        if virtual_batch < 1:
            raise ValueError(f"virtual_batch must be at least 1, not {virtual_batch}")
        self.virtual_batch, self.eps = virtual_batch, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, ...), normalised."""
        done, outputs = 0, []
        for groups, samples in virtual_batches(len(x), self.virtual_batch):
            outputs.append(self._normalise(x[done : done + groups * samples], groups))
            done += groups * samples
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _normalise(self, x: Tensor, groups: int) -> Tensor:
        grouped = x.reshape(groups, -1, x.shape[1], math.prod(x.shape[2:]))
        centred = grouped - grouped.mean((1, 3), keepdim=True)
        variance = centred.square().mean((1, 3), keepdim=True)
        scale = (variance + self.eps).rsqrt() * self.weight[:, None]
        return (centred * scale + self.bias[:, None]).reshape(x.shape)


class ConvBlock(nn.Module):
    """Spectrally normalised circular convolution (k taps a dimension), local batch norm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, dimensions: int, taps: int, virtual_batch: int) -> None:
        super().__init__()
        make = nn.Conv1d if dimensions == 1 else nn.Conv2d
        # No bias: the norm would subtract it, and Adam would turn its vanishing gradient into a random walk.
        self.conv = spectral_norm(
            make(inputs, outputs, taps, padding=taps // 2, padding_mode="circular", bias=False)
        )
        self.norm = LocalBatchNorm(outputs, virtual_batch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to (B, C', ...), same positions."""
        return F.leaky_relu(self.norm(self.conv(x)), SLOPE)


class ConditionMap(nn.Module):
    """The linear map of c (B, D), of unit norm, to (B, width) at an equalised learning rate (StyleGAN-T's c-map).

    scale: standard deviation of the output before training. An optimiser such as Adam moves every weight by about its
    rate, whatever the gradient, so a plain layer's output moves the faster the larger D is, and an equalised one still
    by sqrt(2 D / pi) rates. Here the weights are kept at another size than they act with, by a gain at run time, so
    that for every D one update at rate r moves the output by about _STEP r of `scale` for a Gaussian c, and by 1.25
    _STEP r for a constant one, whose parts all pull one way; the bias adds r. The paper does not publish its c-map;
    StyleGAN-T's, for its c of 768 dimensions, moves by at most 22 r.
    """

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        rate = _STEP * math.sqrt(math.pi / (2 * inputs))
        self.gain = rate * scale
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, c: Tensor) -> Tensor:
        """(B, D) to (B, width)."""
        return F.linear(c, self.weight * self.gain, self.bias)


class Head(nn.Module):
    """One D_k: features (B, C, ...) and condition embeddings to one logit per position, (B, L)."""

    def __init__(
        self, shape: FeatureShape, condition_dims: Mapping[str, int], width: int, virtual_batch: int
    ) -> None:
        super().__init__()
        dimensions = len(shape.size)
        taps = TAPS[dimensions]
        if min(shape.size) < taps // 2:
            raise ValueError(
                f"features of size {shape.size} are smaller than the circular padding {taps // 2}"
            )
        channels = shape.channels
        self.point = ConvBlock(shape.channels, channels, dimensions, 1, virtual_batch)
        self.residual = ConvBlock(channels, channels, dimensions, taps, virtual_batch)
        self.project = spectral_norm(nn.Conv1d(channels, width if condition_dims else 1, 1))
        # Together of unit variance: text and image have equal weight.
        scale = 1 / math.sqrt(max(1, len(condition_dims)))
        self.maps = nn.ModuleDict(
            {name: ConditionMap(dim, width, scale) for name, dim in condition_dims.items()}
        )

    def forward(self, features: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """features (B, C, L) or (B, C, H, W), conditions (B, D) of unit norm. Returns logits (B, L)."""
        h = self.point(features)
        h = (h + self.residual(h)) / math.sqrt(2)
        out = self.project(h.flatten(2))
        if not self.maps:
            return out[:, 0]
        c = torch.stack([mapped(conditions[name]) for name, mapped in self.maps.items()]).sum(0)
        return torch.einsum("bwl,bw->bl", out, c) / math.sqrt(out.shape[1])


class Discriminator(nn.Module):
    """All trainable heads over one frozen feature network's layers, conditioned by projection.

    shapes: one per layer. condition_dims: the dimension of each embedding that is used, a subset of {"text", "image"};
    empty for none. width: channels of the map of c that the head's output is projected on. virtual_batch: size of
    the local batch norm's groups.

    state_dict includes the vectors of the spectral norms, so loading it restores the heads to the bit. In training mode
    each forward pass moves these vectors by one power iteration.
    """

    def __init__(
        self,
        shapes: Sequence[FeatureShape],
        condition_dims: Mapping[str, int],
        width: int = 64,
        virtual_batch: int = 8,
    ) -> None:
        super().__init__()
        unknown = set(condition_dims) - set(CONDITIONS)
        if unknown or not shapes:
            raise ValueError(
                f"discriminator: unknown conditioning {sorted(unknown)}; use {', '.join(CONDITIONS)}"
                if unknown
                else "discriminator: no features, so no heads; name some layers of the feature network"
            )
        self.shapes = tuple(shapes)
        # Canonical order: the same seed gives the same heads for any order of the subset.
        self.condition_dims = {name: condition_dims[name] for name in CONDITIONS if name in condition_dims}
        self.heads = nn.ModuleList(
            Head(shape, self.condition_dims, width, virtual_batch) for shape in self.shapes
        )

    def forward(
        self, features: Sequence[Tensor], conditions: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Logits, one (B, L_k) per head, of features (B, C_k, ...) and conditions {"text": (B, D), ...}.

        The conditions must be exactly the configured ones. Each embedding is scaled to unit norm, as in StyleGAN-T, so
        that none dominates by its scale.
        Raises ValueError for missing, additional or wrongly sized conditions, and features of other shapes.
        """
        normalised = self._normalised(conditions or {})
        if len(features) != len(self.shapes):
            raise ValueError(f"discriminator: {len(features)} features for {len(self.shapes)} heads")
        for k, (f, shape) in enumerate(zip(features, self.shapes, strict=True)):
            if f.ndim != 2 + len(shape.size) or f.shape[1] != shape.channels:
                raise ValueError(
                    f"discriminator: features {k} have shape {tuple(f.shape)}, the head was made for"
                    f" (B, {', '.join(map(str, (shape.channels, *shape.size)))})"
                )
        return [head(f, normalised) for head, f in zip(self.heads, features, strict=True)]

    def _normalised(self, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if set(conditions) != set(self.condition_dims):
            raise ValueError(
                f"discriminator: conditioned on {sorted(self.condition_dims) or 'nothing'}, got"
                f" {sorted(conditions) or 'nothing'}"
            )
        for name, dim in self.condition_dims.items():
            if conditions[name].ndim != 2 or conditions[name].shape[1] != dim:
                raise ValueError(
                    f"discriminator: condition {name!r} has shape {tuple(conditions[name].shape)},"
                    f" not (B, {dim})"
                )
        return {name: F.normalize(conditions[name]) for name in self.condition_dims}
