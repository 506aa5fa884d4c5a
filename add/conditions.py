"""c_text: the text embedding on which the discriminator is conditioned (CLIP's projected text embedding)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from add.spec_scale import Network


class TextCondition:
    """A frozen CLIP text encoder with projection: prompts to embeddings (B, D) float32."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts; longer ones are truncated to the encoder's length."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return self.encoder(tokens.input_ids.to(self.encoder.device)).text_embeds.float()


def load_text_condition(network: Network, device: str) -> TextCondition:
    """Load a CLIPTextModelWithProjection and its tokenizer. Raises OSError where a part is missing."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    where = {"revision": network.revision} if network.revision else {}
    encoder = CLIPTextModelWithProjection.from_pretrained(
        network.path, dtype=torch.float32, use_safetensors=True, **where
    )
    return TextCondition(encoder.to(device), CLIPTokenizer.from_pretrained(network.path, **where))
