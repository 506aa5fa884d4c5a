"""How do prompts condition the UNet and the discriminator?

The UNet: one text encoder (Stable Diffusion) gives its last hidden states; two (SDXL, arXiv 2307.01952, section 2.1)
give their last but one, concatenated, and the second's projected embedding. Which of the two a pipeline is, its
directory says (model_index.json and the UNet's configuration), never its name.

The discriminator's c_text: CLIP's projected text embedding. Both published formats are read: a
transformers directory (config.json, of the text half or of the whole CLIP, and model*.safetensors) and an open_clip
one (open_clip_config.json and *.safetensors). A directory in both formats is read as the first, which loads the text
half alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from add.config.scale import NetworkSpec
from add.errors import InputError
from add.models.hub import network_directory
from add.models.weights import WeightsError, check_complete, weight_variant

ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
_CLASSES = ({"CLIPTextModel"}, {"CLIPTextModelWithProjection"})
_SIZES = 6  # numbers in time_ids
# Inputs of a UNet that are not supported here.
_OTHER_LATENTS = ("shift_factor", "latents_mean", "latents_std")
_OTHER_INPUTS = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "time_cond_proj_dim")


@dataclass(frozen=True)
class TextConditioning:
    """The UNet's conditioning beside the timestep, for a batch of B prompts; float32, or the dtype of autocast.

    embeddings: (B, L, D), cross-attended. For SDXL also pooled: (B, P), and time_ids: (B, 6), the original image's
    height and width, the crop's top and left, the target's height and width, in pixels.
    """

    embeddings: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    @property
    def added(self) -> dict[str, Tensor] | None:
        """diffusers' `added_cond_kwargs`; None where the UNet takes none."""
        if self.pooled is None or self.time_ids is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    def expand(self, n: int) -> TextConditioning:
        """One prompt's conditioning for n images."""
        parts = (self.pooled, self.time_ids)
        whole = [None if p is None else p.expand(n, *p.shape[1:]) for p in parts]
        return TextConditioning(self.embeddings.expand(n, *self.embeddings.shape[1:]), *whole)


@dataclass(frozen=True)
class TextEncoders:
    """A pipeline's one or two frozen text encoders, each with its tokenizer.

    zero_null: the null of classifier-free guidance is all zeros, not an encoded empty prompt. SDXL was trained like
    that: its model_index.json has `force_zeros_for_empty_prompt`, and diffusers' pipeline does it without a
    negative prompt.
    """

    encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    zero_null: bool = False

    def embed(self, prompts: Sequence[str], original: int, target: int) -> TextConditioning:
        """Encode prompts, padded and truncated to the tokenizers' lengths.

        original, target: sides in pixels that SDXL is told of its square images (arXiv 2307.01952, section 2.2); the
        crop is at 0, 0, as in a pipeline's call by default. The paper does not publish what it told SDXL.
        """
        device = next(self.encoders[0].parameters()).device
        with torch.no_grad():
            if len(self.encoders) == 1:
                ids = tokenize(self.tokenizers[0], prompts).to(device)
                return TextConditioning(self.encoders[0](ids).last_hidden_state)
            outputs = [
                encoder(tokenize(tokenizer, prompts).to(device), output_hidden_states=True)
                for encoder, tokenizer in zip(self.encoders, self.tokenizers, strict=True)
            ]
        embeddings = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        sizes = torch.tensor([original, original, 0, 0, target, target], dtype=torch.float32)
        time_ids = sizes.to(device).expand(len(prompts), _SIZES)
        return TextConditioning(embeddings, outputs[1].text_embeds, time_ids)

    def null(self, original: int, target: int) -> TextConditioning:
        """The null conditioning of classifier-free guidance, for one image."""
        empty = self.embed([""], original, target)
        if not self.zero_null:
            return empty
        pooled = None if empty.pooled is None else torch.zeros_like(empty.pooled)
        return TextConditioning(torch.zeros_like(empty.embeddings), pooled, empty.time_ids)


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids (B, L) of prompts, padded and truncated to the tokenizer's length."""
    length = tokenizer.model_max_length
    return tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids


def encoder_names(index: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The `ENCODERS` that a pipeline's model_index.json lists. Raises InputError for another kind of pipeline."""
    found = tuple(name for name in ENCODERS if (index.get(name) or [None])[0] is not None)
    if found not in (ENCODERS[:1], ENCODERS):
        raise InputError(
            f"{where}: model_index.json lists the text encoders {list(found)}; it takes text_encoder alone"
            " (Stable Diffusion) or with text_encoder_2 (SDXL's base; its refiner is no text-to-image model)"
        )
    for name, kinds in zip(found, _CLASSES, strict=False):
        if index[name][1] not in kinds:
            raise InputError(
                f"{where}: model_index.json: {name} is a {index[name][1]}, not a {' or '.join(kinds)}; pipelines"
                " of this kind are not supported"
            )
    return found


def zero_null(index: Mapping[str, Any]) -> bool:
    """Whether a pipeline's null conditioning is zeros: as its model_index.json says, for SDXL's by default."""
    return ENCODERS[1] in index and bool(index.get("force_zeros_for_empty_prompt", True))


def incompatibilities(unet: Mapping[str, Any], encoders: Sequence[Any], vae: Mapping[str, Any]) -> list[str]:
    """Reasons why a UNet, its text encoders and its VAE do not belong together; empty where they do.

    unet, vae: their configurations; encoders: the transformers configurations. No weights are needed.
    """
    found = []
    width, wanted = sum(int(e.hidden_size) for e in encoders), unet.get("cross_attention_dim")
    if width != wanted:
        found.append(f"the text encoders' width is {width}, the UNet's cross_attention_dim {wanted}")
    kind = unet.get("addition_embed_type")
    if kind not in (None, "text_time"):
        found.append(f"the UNet's addition_embed_type {kind!r} is not supported")
    elif (kind == "text_time") != (len(encoders) == len(ENCODERS)):
        found.append(f"the UNet's addition_embed_type is {kind}, but there are {len(encoders)} text encoders")
    elif kind == "text_time":
        pooled = int(encoders[1].projection_dim)
        given = _SIZES * int(unet["addition_time_embed_dim"]) + pooled
        takes = unet.get("projection_class_embeddings_input_dim")
        if given != takes:
            found.append(
                f"the second text encoder's projection_dim {pooled} and six embedded sizes make {given},"
                f" the UNet's projection_class_embeddings_input_dim is {takes}"
            )
    found += [f"the UNet takes {key}, which is not supported" for key in _OTHER_INPUTS if unet.get(key)]
    latent = (unet.get("in_channels"), unet.get("out_channels"))
    if latent != (vae.get("latent_channels"),) * 2:
        found.append(
            f"the UNet's in and out channels are {latent}, the VAE's latent_channels {vae.get('latent_channels')}"
        )
    # Sampling with Stable Diffusion's pipelines would not apply them, or not as training does.
    found += [f"the VAE states {key}, which is not supported" for key in _OTHER_LATENTS if vae.get(key)]
    return found


OPEN_CLIP_CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class TextCondition:
    """c_text: a frozen CLIP text encoder with projection, prompts to embeddings (B, D) float32, not normalised.

    embed: token ids (B, L) to embeddings, run by `encoder`. tokens: prompts to token ids. vocabulary: a text that
    identifies the tokenizer.
    """

    encoder: Any
    embed: Callable[[Tensor], Tensor]
    tokens: Callable[[Sequence[str]], Tensor]
    vocabulary: str

    def __post_init__(self) -> None:
        self.encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts; longer ones are truncated to the encoder's length."""
        device = next(self.encoder.parameters()).device
        return self.embed(self.tokens(prompts).to(device)).float()


def load_text_condition(network: NetworkSpec, device: str) -> TextCondition:
    """Load the text half of a CLIP and its tokenizer, in float32.

    Raises WeightsError where the directory is of neither format or lacks weights, OSError where a part is missing.
    """
    directory = network_directory(network)
    if (directory / "config.json").is_file() and any(directory.glob("model*.safetensors")):
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
    if (directory / OPEN_CLIP_CONFIG).is_file() and any(directory.glob("open_clip*.safetensors")):
        import open_clip

        name = f"local-dir:{directory}"
        model = open_clip.create_model(name, precision="fp32", device=device, require_pretrained=True)
        return open_clip_condition(model, open_clip.get_tokenizer(name))
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
        model, model.encode_text, lambda prompts: tokenizer(list(prompts)), open_clip_vocabulary(tokenizer)
    )


def open_clip_vocabulary(tokenizer: Any) -> str:
    """A text that identifies an open_clip tokenizer: its length, how it cleans a text, its vocabulary and rules."""
    wrapped = getattr(tokenizer, "tokenizer", None)  # a transformers tokenizer, or open_clip's own BPE
    words = wrapped.backend_tokenizer.to_str() if wrapped is not None else repr(list(tokenizer.bpe_ranks))
    cleaned = getattr(getattr(tokenizer, "clean_fn", None), "__qualname__", "")
    return f"{tokenizer.context_length} {cleaned} {words}"


def text_config(directory: Path) -> Any:
    """The CLIPTextConfig of a directory that holds one, or a whole CLIPConfig with one inside."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    if config.model_type != "clip":
        return config
    # The projection's size is the whole CLIP's; its text_config may still have the default, 512.
    config.text_config.projection_dim = config.projection_dim
    return config.text_config
