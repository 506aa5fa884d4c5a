"""What do frozen encoders make of real images and captions? From disk where it is kept, and to the same bits.

An entry's key is the image's pixels as the encoder gets them, or the text; its identity is the encoder's weights and
configuration and what else decides bits (device, precision, version of torch). So nothing goes stale: another crop,
resolution, image, VAE or text is another entry. Not the file's name nor its time: these say nothing of its content.

The last bits of a row depend on how many rows are encoded together. So an entry is of one batch size, and a batch
of which any row is missing is encoded whole, by the very call that a run without a cache makes. What remains to be
true is that a row does not depend on its neighbours; that is tested once by each process, and refused otherwise.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from add.config.data import Cached, CacheSpec, TrainingSetSpec
from add.errors import InputError
from add.models.tensor_store import KEY_BYTES, TensorCache

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Inputs = TypeVar("_Inputs", Tensor, Sequence[str])


class EncoderCache:
    """The caches of one process, one for each kind and encoder."""

    def __init__(self, settings: CacheSpec) -> None:
        self.settings = settings
        self.calls = 0
        """Batches that an encoder was called for, since some of their rows were missing."""
        self._stores: dict[tuple[str, int], tuple[TensorCache, Sequence[Any]]] = {}
        self._tested: set[tuple[str, int]] = set()

    def rows(
        self,
        kind: Cached,
        made_by: Sequence[Any],
        keys: Sequence[bytes],
        inputs: _Inputs,
        encode: Callable[[_Inputs], Mapping[str, Tensor]],
        device: torch.device,
    ) -> dict[str, Tensor]:
        """`encode(inputs)`, named tensors with one row an input, from disk where all rows are there.

        made_by: what `encode` uses: a module, then its tokenizer or settings as text. Raises InputError where a
        file does not belong.
        """
        if kind not in self.settings.keep:
            return dict(encode(inputs))
        store = self._store(kind, made_by, device)
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        context = f"{len(keys)}/{dtype}/".encode()
        named = [hashlib.blake2b(context + key, digest_size=KEY_BYTES).digest() for key in keys]
        found = store.get(named)
        if found is not None:
            return {name: tensor.to(device) for name, tensor in found.items()}
        self.calls += 1
        made = dict(encode(inputs))
        self._test_rows(kind, made_by, inputs, encode, made)
        store.put(named, made)
        return made

    def flush(self) -> None:
        """Write what is not on disk yet."""
        for store, _ in self._stores.values():
            store.flush()

    def _store(self, kind: str, made_by: Sequence[Any], device: torch.device) -> TensorCache:
        name = (kind, id(made_by[0]))
        if name not in self._stores:
            identity = {"kind": kind, "encoder": fingerprint(made_by), **surroundings(device)}
            digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
            store = TensorCache(Path(self.settings.directory) / f"{kind}-{digest}", identity)
            self._stores[name] = store, made_by  # the reference keeps the id from being used again
        return self._stores[name][0]

    def _test_rows(
        self,
        kind: str,
        made_by: Sequence[Any],
        inputs: _Inputs,
        encode: Callable[[_Inputs], Mapping[str, Tensor]],
        made: Mapping[str, Tensor],
    ) -> None:
        """Raise InputError where a row's bits depend on its place among the others."""
        if (name := (kind, id(made_by[0]))) in self._tested or len(inputs) == 1:
            return
        self._tested.add(name)
        backwards = inputs.flip(0) if isinstance(inputs, Tensor) else inputs[::-1]
        again = encode(backwards)
        if any(not torch.equal(again[key].flip(0), tensor) for key, tensor in made.items()):
            raise InputError(
                f"data.cache: on this device the bits of {kind} depend on an image's or a text's place in its "
                f"batch, so keeping them would change results; take {kind} out of data.cache.keep"
            )


def open_cache(settings: CacheSpec | None, train: TrainingSetSpec) -> EncoderCache | None:
    """The cache that a scale asks for. Raises ValueError where such data cannot be kept."""
    if settings is None:
        return None
    if reason := settings.refusal(train):
        raise ValueError(f"data.cache: {reason}")
    return EncoderCache(settings)


def kept(
    cache: EncoderCache | None,
    kind: Cached,
    made_by: Sequence[Any],
    keys: Sequence[bytes],
    inputs: _Inputs,
    encode: Callable[[_Inputs], Mapping[str, Tensor]],
    device: torch.device,
) -> dict[str, Tensor]:
    """`EncoderCache.rows`; without a cache, or without keys, `encode(inputs)`."""
    if cache is None or not keys:
        return dict(encode(inputs))
    return cache.rows(kind, made_by, keys, inputs, encode, device)


def image_keys(images: NDArray[np.uint8]) -> tuple[bytes, ...]:
    """What names each of the images (B, H, W, 3): a digest of its size and pixels."""
    shape = str(images.shape[1:]).encode()
    return tuple(hashlib.blake2b(shape + i.tobytes(), digest_size=KEY_BYTES).digest() for i in images)


def text_keys(texts: Sequence[str]) -> tuple[bytes, ...]:
    """What names each text."""
    return tuple(hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts)


def fingerprint(parts: Sequence[Any]) -> str:
    """SHA-256 (64 hex) of modules (configurations, every tensor with its dtype and layout), tokenizers and texts."""
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
            # What the last call asked for, not what the tokenizer is.
            rules |= {"padding": None, "truncation": None}
            digest.update(json.dumps(rules, sort_keys=True).encode())
            digest.update(str(part.model_max_length).encode())
    return digest.hexdigest()


_NAMES = {"_name_or_path", "_diffusers_version", "transformers_version", "_commit_hash", "_class_name"}
"""Where a network came from and who wrote its file: no part of what it computes."""


def surroundings(device: torch.device) -> dict[str, str | int]:
    """What decides bits beside the network: the device, its precision settings, threads, torch's version."""
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
