"""Frozen encoders that remember: their output for real images and captions is read from disk where it is known.

An entry is found by the content of its input (an image's values, a caption's text). A store belongs to one encoder:
its weights, its configuration, and whatever else decides bits (device, precision, torch's version). So nothing goes
stale: another crop, resolution, VAE or text is another entry. Names and times of files play no part.

The last bits of a row depend on how many rows are encoded together. An entry is therefore valid for one batch size,
and a batch with a missing row is encoded whole, by the same call that a run without memory makes. A row must not
depend on its neighbours; each process tests that once and refuses the encoder otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from add.config.training import CACHED, Cached, CacheSpec, TrainingSetSpec
from add.errors import InputError
from add.models.diffusion import DiffusionNetwork
from add.models.features import ImageCondition
from add.models.tensor_store import KEY_BYTES, TensorStore
from add.models.text import TextCondition, TextConditioning

_Inputs = TypeVar("_Inputs", Tensor, Sequence[str])


class EncoderCache:
    """The stores of one process, one for each kind of output and encoder. `calls` counts the batches encoded."""

    def __init__(self, settings: CacheSpec) -> None:
        self.settings = settings
        self.calls = 0
        self._stores: dict[tuple[str, int], tuple[TensorStore, Sequence[Any]]] = {}
        self._tested: set[TensorStore] = set()

    def rows(
        self,
        kind: Cached,
        made_by: Sequence[Any],
        inputs: _Inputs,
        encode: Callable[[_Inputs], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """`encode(inputs)`, named tensors with one row per input, from disk where every row is there.

        made_by: what `encode` uses: a module, then its tokenizers or settings as text. Raises InputError where a
        file on disk does not belong to this encoder, or a row's bits depend on its place in the batch.
        """
        if kind not in self.settings.keep:
            return dict(encode(inputs))
        device = next(made_by[0].parameters()).device
        store = self._store(kind, made_by, device)
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        keys = content_keys(inputs, f"{len(inputs)}/{dtype}")
        found = store.get(keys)
        if found is not None:
            return {name: tensor.to(device) for name, tensor in found.items()}
        self.calls += 1
        made = dict(encode(inputs))
        if len(inputs) > 1 and store not in self._tested:
            self._tested.add(store)
            again = encode(inputs.flip(0) if isinstance(inputs, Tensor) else inputs[::-1])
            if any(not torch.equal(again[key].flip(0), tensor) for key, tensor in made.items()):
                raise InputError(
                    f"data.cache: on this device the bits of {kind} depend on an image's or a text's place in its "
                    f"batch, so keeping them would change results; take {kind} out of data.cache.keep"
                )
        store.put(keys, made)
        return made

    def flush(self) -> None:
        """Write what is not on disk yet."""
        for store, _ in self._stores.values():
            store.flush()

    def _store(self, kind: str, made_by: Sequence[Any], device: torch.device) -> TensorStore:
        name = (kind, id(made_by[0]))
        if name not in self._stores:
            identity = {"kind": kind, "encoder": fingerprint(made_by), **surroundings(device)}
            digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
            store = TensorStore(Path(self.settings.directory) / f"{kind}-{digest}", identity)
            self._stores[name] = store, made_by  # the reference keeps the id from being used again
        return self._stores[name][0]


@dataclass(frozen=True)
class RememberingNetwork(DiffusionNetwork):
    """A diffusion network that remembers the latents of images and the conditioning of prompts."""

    cache: EncoderCache = field(kw_only=True)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `DiffusionNetwork.encode`; a sample of the posterior (`noise`) is not remembered."""
        if noise is not None:
            return super().encode(images, noise)
        plain = super().encode
        return self.cache.rows("latents", (self.vae,), images, lambda x: {"latents": plain(x)})["latents"]

    def embed(self, prompts: Sequence[str]) -> TextConditioning:
        """As `DiffusionNetwork.embed`."""
        plain = super().embed

        def parts(texts: Sequence[str]) -> dict[str, Tensor]:
            made = plain(texts)
            named = {part.name: getattr(made, part.name) for part in fields(made)}
            return {name: tensor for name, tensor in named.items() if tensor is not None}

        made_by = (*self.text.encoders, *self.text.tokenizers, f"at {self.sizes}")
        return TextConditioning(**self.cache.rows("text", made_by, prompts, parts))


@dataclass(frozen=True)
class RememberingImageCondition(ImageCondition):
    """A c_img that remembers."""

    cache: EncoderCache

    def __call__(self, images: Tensor) -> Tensor:
        """As `ImageCondition`."""
        made_by, plain = (self.network, f"at {self.network.image_size}"), super().__call__
        return self.cache.rows("c_img", made_by, images, lambda x: {"image": plain(x)})["image"]


@dataclass(frozen=True)
class RememberingTextCondition(TextCondition):
    """A c_text that remembers."""

    cache: EncoderCache

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """As `TextCondition`."""
        made_by, plain = (self.encoder, self.vocabulary), super().__call__
        return self.cache.rows("c_text", made_by, prompts, lambda texts: {"text": plain(texts)})["text"]


def remembering(frozen: Any, kind: type[Any], cache: EncoderCache | None) -> Any:
    """`frozen` as an object of its remembering class `kind`; `frozen` itself without a cache, and None for None."""
    if cache is None or frozen is None:
        return frozen
    return kind(**{field.name: getattr(frozen, field.name) for field in fields(frozen)}, cache=cache)


def open_cache(settings: CacheSpec | None, train: TrainingSetSpec) -> EncoderCache | None:
    """The cache that a scale asks for. Raises InputError where such data cannot be kept."""
    if settings is None:
        return None
    if reason := settings.refusal(train):
        raise InputError("data.cache", reason)
    return EncoderCache(settings)


def content_keys(inputs: Tensor | Sequence[str], context: str) -> list[bytes]:
    """A digest of each input, a text or an image (a row of the tensor: dtype, shape and values), in this context."""
    if isinstance(inputs, Tensor):
        context = f"{context}/{inputs.dtype}/{tuple(inputs.shape[1:])}"
        rows = inputs.detach().cpu().contiguous().view(torch.uint8)  # NumPy knows no bfloat16
        contents = [row.numpy().tobytes() for row in rows]
    else:
        contents = [text.encode() for text in inputs]
    start = f"{context}/".encode()
    return [hashlib.blake2b(start + content, digest_size=KEY_BYTES).digest() for content in contents]


def fingerprint(parts: Sequence[Any]) -> str:
    """SHA-256 (64 hex) over modules (configuration, each tensor with dtype and layout), tokenizers and texts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(type(part).__qualname__.encode())
        if isinstance(part, str):
            digest.update(part.encode())
        elif isinstance(part, torch.nn.Module):
            configs = {id(c): c for m in part.modules() if (c := getattr(m, "config", None)) is not None}
            for config in configs.values():
                settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)
                stated = {k: v for k, v in settings.items() if k not in _NAMES}
                digest.update(json.dumps(stated, sort_keys=True, default=str).encode())
            digest.update(str(getattr(part, "_compiled_call_impl", None) is not None).encode())
            for name, tensor in (*part.named_parameters(), *part.named_buffers()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        else:
            rules = json.loads(part.backend_tokenizer.to_str())
            # These come from the last call, not from the tokenizer.
            rules |= {"padding": None, "truncation": None}
            digest.update(json.dumps(rules, sort_keys=True).encode())
            digest.update(str(part.model_max_length).encode())
    return digest.hexdigest()


_NAMES = {"_name_or_path", "_diffusers_version", "transformers_version", "_commit_hash", "_class_name"}
"""Entries of a configuration that do not change what the network computes."""


def surroundings(device: torch.device) -> dict[str, str | int]:
    """Everything beside the network that decides bits: device, precision settings, threads, torch's version."""
    if device.type == "cuda":
        unit = torch.cuda.get_device_name(device)
    else:
        unit = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": unit,
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn_tf32": str(torch.backends.cudnn.allow_tf32),
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "torch": torch.__version__,
    }


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """The options `--cache` and `--keep` of a training, for `stated_cache`."""
    parser.add_argument("--cache", metavar="DIRECTORY", help="keep the encoders' output there")
    kinds = "kinds to keep (default: all)"
    parser.add_argument("--keep", nargs="+", choices=CACHED, default=CACHED, help=kinds)


def stated_cache(options: argparse.Namespace) -> CacheSpec | None:
    """What these options say."""
    return CacheSpec(directory=options.cache, keep=tuple(options.keep)) if options.cache else None
