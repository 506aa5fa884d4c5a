"""c_text: the text embedding on which the discriminator is conditioned (CLIP's projected text embedding).

Two formats are published, and either will do: a transformers directory (config.json, of the text half or of the
whole CLIP, and model*.safetensors) and an open_clip one (open_clip_config.json and *.safetensors). A directory that
is both is read as the first, which loads the text half alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from add.spec_scale import Network
from add.text import tokenize
from add.weights import WeightsError, check_complete, network_directory, weight_variant

OPEN_CLIP_CONFIG = "open_clip_config.json"


class TextCondition:
    """A frozen CLIP text encoder with projection: prompts to embeddings (B, D) float32, not normalised.

    embed: token ids (B, L) to embeddings, run by `encoder`; tokens: prompts to token ids; vocabulary: a text that
    names the tokenizer, for caches.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embed: Callable[[Tensor], Tensor],
        tokens: Callable[[Sequence[str]], Tensor],
        vocabulary: str,
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.embed, self.tokens, self.vocabulary = embed, tokens, vocabulary

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts; longer ones are truncated to the encoder's length."""
        device = next(self.encoder.parameters()).device
        return self.embed(self.tokens(prompts).to(device)).float()


def load_text_condition(network: Network, device: str) -> TextCondition:
    """Load the text half of a CLIP and its tokenizer, in float32.

    Raises WeightsError where the directory is of neither format or lacks weights, OSError where a part is missing.
    """
    directory = network_directory(network)
    if (directory / "config.json").is_file() and any(directory.glob("model*.safetensors")):
        return _from_transformers(directory, device)
    if (directory / OPEN_CLIP_CONFIG).is_file() and any(directory.glob("open_clip*.safetensors")):
        return _from_open_clip(directory, device)
    raise WeightsError(
        f"{network.path}: holds neither a transformers CLIP (config.json, model.safetensors) nor an open_clip one"
        f" ({OPEN_CLIP_CONFIG}, open_clip_model.safetensors); pickled weights are not read"
    )


def transformers_condition(encoder: Any, tokenizer: Any) -> TextCondition:
    """c_text of a CLIPTextModelWithProjection and its CLIPTokenizer."""
    return TextCondition(
        encoder,
        lambda ids: encoder(ids).text_embeds,
        lambda prompts: tokenize(tokenizer, prompts),
        f"{tokenizer.model_max_length} {tokenizer.backend_tokenizer.to_str()}",
    )


def open_clip_condition(model: Any, tokenizer: Callable[[list[str]], Tensor]) -> TextCondition:
    """c_text of an open_clip CLIP, whose vision half is dropped."""
    del model.visual
    return TextCondition(
        model, model.encode_text, lambda prompts: tokenizer(list(prompts)), _open_clip_vocabulary(tokenizer)
    )


def _open_clip_vocabulary(tokenizer: Any) -> str:
    wrapped = getattr(tokenizer, "tokenizer", None)  # a transformers tokenizer, or open_clip's own BPE
    words = wrapped.backend_tokenizer.to_str() if wrapped is not None else repr(list(tokenizer.bpe_ranks))
    cleaned = getattr(getattr(tokenizer, "clean_fn", None), "__qualname__", "")
    return f"{tokenizer.context_length} {cleaned} {words}"


def _from_transformers(directory: Path, device: str) -> TextCondition:
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    encoder, report = CLIPTextModelWithProjection.from_pretrained(
        directory,
        config=text_config(directory),
        dtype=torch.float32,
        use_safetensors=True,
        variant=weight_variant(directory),
        output_loading_info=True,
    )
    check_complete(report["missing_keys"], str(directory))
    return transformers_condition(encoder.to(device), CLIPTokenizer.from_pretrained(directory))


def text_config(directory: Path) -> Any:
    """The CLIPTextConfig of a directory that holds one, or a whole CLIPConfig with one inside."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    if config.model_type != "clip":
        return config
    # The projection's size is the whole CLIP's; its text_config may still have the default, 512.
    config.text_config.projection_dim = config.projection_dim
    return config.text_config


def _from_open_clip(directory: Path, device: str) -> TextCondition:
    import open_clip

    name = f"local-dir:{directory}"
    model = open_clip.create_model(name, precision="fp32", device=device, require_pretrained=True)
    return open_clip_condition(model, open_clip.get_tokenizer(name))
