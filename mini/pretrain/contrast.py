"""Networks trained by InfoNCE: the discriminator's, between views or with captions, and the evaluation's CLIP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from add.batch import to_tensor
from mini.pretrain.classify import INPUT, enlarge, probe_card, residual_config
from mini.pretrain.diffusion import MAX_LENGTH, build_tokenizer, caption_tokens, text_settings
from mini.pretrain.loop import Recipe, batches, fit, jitter, photographs, rotate_colours, write_card
from mini.world import Split

SIDE = 48
"""Side in pixels of what the discriminator's networks see: maps of 12x12, 6x6 and 3x3 for its heads.

At 64 a training run costs a quarter more and is no better; at 32 the heads no longer see the texture.
"""
_COLOUR_ROTATION = 0.4  # the fraction of views with rotated colours
Encoder = Callable[[torch.Tensor], torch.Tensor]


def info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Symmetric InfoNCE between the rows of `a` and `b`, (N, D): row i of one should find row i of the other."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    target = torch.arange(len(a))
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def build_features(hidden: tuple[int, ...]) -> Any:
    """An untrained transformers ResNetModel, one block per stage."""
    from transformers import ResNetModel

    return ResNetModel(residual_config(hidden, (1,) * len(hidden)))


def _projector(width: int) -> nn.Module:
    """The small network between features and InfoNCE, thrown away after training."""
    return nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64))


def train_features(recipe: Recipe, *, hidden: tuple[int, ...], instance: bool) -> None:
    """Train without labels and captions, between two photographs of one scene.

    This makes the network know what the caption says. `instance` adds InfoNCE between two views of one photograph, by
    what distinguishes two pictures of a scene (texture, light, position; the cards' probe of texture and light sees no
    gain). Rotated colours make shape necessary (colours alone tell 128 scenes apart).
    """
    torch.manual_seed(recipe.seed)
    shots = [to_tensor(photographs("discriminator", recipe.n, shot)[2]) for shot in (0, 1)]
    network = build_features(hidden)
    heads = nn.ModuleDict({"scene": _projector(hidden[-1]), "instance": _projector(hidden[-1])})

    def loss(index: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        def view(images: torch.Tensor) -> torch.Tensor:
            return enlarge(rotate_colours(jitter(images, generator), _COLOUR_ROTATION, generator), SIDE)

        views = [view(shots[0][index]), view(shots[1][index])]
        if instance:
            views.append(view(shots[0][index]))
        features = network(torch.cat(views)).pooler_output.flatten(1)
        first, second, *again = features.chunk(len(views))
        value = info_nce(heads["scene"](first), heads["scene"](second))
        if again:
            value = value + info_nce(heads["instance"](first), heads["instance"](again[0]))
        return value

    seconds = fit(recipe, [network, heads], loss)
    objective = "two photographs of one scene" + " and two views of one photograph" * instance
    _save_features(
        recipe,
        network,
        hidden,
        seconds=seconds,
        how=f"InfoNCE between {objective}, colours rotated in {_COLOUR_ROTATION:.0%} of views; "
        f"{recipe}, seed {recipe.seed}",
        data=f"2 photographs of each of {recipe.n} scenes of the world's discriminator split",
        quality={},
    )


def save_untrained(recipe: Recipe, *, hidden: tuple[int, ...]) -> None:
    """Save a feature network with random weights and the batch statistics of `recipe.steps` batches, a rival to all.

    Random convolutions keep colour, place and texture. Without their statistics, layers would differ by their scale.
    """
    torch.manual_seed(recipe.seed)
    images = to_tensor(photographs("discriminator", recipe.n, 0)[2])
    network = build_features(hidden).train()
    with torch.no_grad():
        for index in batches(recipe.n, recipe.batch, recipe.steps, recipe.seed):
            network(enlarge(images[index], SIDE))
    _save_features(
        recipe,
        network,
        hidden,
        seconds=0.0,
        how=f"untrained, seed {recipe.seed}",
        data=f"batch statistics of {recipe.steps * recipe.batch} photographs of the discriminator split",
        quality={},
    )


def train_discriminator_clip(recipe: Recipe, text_out: Path, *, hidden: tuple[int, ...]) -> None:
    """Train CLIP on the discriminator split; save the image encoder, and the text encoder (c_text) to `text_out`.

    The image encoder is of the same kind as `train_features` has: only the objective differs.
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    text = CLIPTextModelWithProjection(CLIPTextConfig(**text_settings(96, 3, len(tokenizer))))
    network, projection = build_features(hidden), nn.Linear(hidden[-1], 96, bias=False)

    def encode_image(x: torch.Tensor) -> torch.Tensor:
        return projection(network(x).pooler_output.flatten(1))

    def encode_text(ids: torch.Tensor) -> torch.Tensor:
        return text(ids).text_embeds

    modules = [network, projection, text]
    card = _fit_clip(recipe, "discriminator", modules, encode_image, encode_text, tokenizer, SIDE)
    text.half().save_pretrained(text_out)
    tokenizer.save_pretrained(text_out)
    write_card(text_out, network="CLIPTextModelWithProjection, 3 layers of 96", recipe=recipe, **card)
    _save_features(recipe, network, hidden, **card)


def _save_features(
    recipe: Recipe, network: Any, hidden: tuple[int, ...], *, quality: dict[str, Any], **card: Any
) -> None:
    """Save a feature network with its card, linear probes among its qualities."""
    probes = probe_card(network.eval(), build_features(hidden).eval(), SIDE)
    network.half().save_pretrained(recipe.out)
    name = f"{type(network).__name__} {hidden}, {network.num_parameters()} parameters"
    write_card(recipe.out, recipe=recipe, network=name, quality=quality | probes, **card)


def train_evaluation_clip(recipe: Recipe) -> None:
    """Train open_clip's CLIP with a ResNet on the evaluation split; save it as an open_clip 'local-dir'."""
    import open_clip

    torch.manual_seed(recipe.seed)
    tokenizer = build_open_clip_tokenizer()
    tokenizer.save_pretrained(recipe.out)
    config = evaluation_clip_config(len(tokenizer))
    model = open_clip.CLIP(**config["model_cfg"]).train()
    card = _fit_clip(recipe, "evaluation", [model], model.encode_image, model.encode_text, tokenizer, INPUT)
    save_evaluation_clip(recipe.out, json.dumps(config, indent=2), model.half())
    size = sum(p.numel() for p in model.parameters())
    network = f"open_clip CLIP, ResNet of width 16, {size} parameters"
    write_card(recipe.out, recipe=recipe, network=network, **card)


def _fit_clip(
    recipe: Recipe,
    split: Split,
    modules: list[nn.Module],
    encode_image: Encoder,
    encode_text: Encoder,
    tokenizer: Any,
    side: int,
) -> dict[str, Any]:
    """Train between photographs and their captions; returns arguments of `write_card`."""
    scenes, _, pictures = photographs(split, recipe.n, 2)
    images, ids = to_tensor(pictures), caption_tokens(tokenizer, scenes)

    def loss(index: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        which = torch.randint(2, (recipe.batch,), generator=generator)
        x = enlarge(jitter(images[index], generator, shift=1), side)
        return info_nce(encode_image(x), encode_text(ids[index, which]), 0.07)

    seconds = fit(recipe, modules, loss)
    for module in modules:
        module.eval()
    return {
        "seconds": seconds,
        "how": f"image-caption InfoNCE, {recipe}, seed {recipe.seed}",
        "data": f"{recipe.n} captioned photographs of the world's {split} split",
        "quality": {"caption_among_100": retrieval(encode_image, encode_text, tokenizer, side)},
    }


@torch.no_grad()
def retrieval(encode_image: Encoder, encode_text: Encoder, tokenizer: Any, side: int) -> float:
    """Fraction of 1000 validation images that find their caption among 100 (ten groups; equal captions count)."""
    scenes, _, pictures = photographs("val", 1000)
    ids = caption_tokens(tokenizer, scenes)[:, 0]
    found = []
    for index in torch.arange(1000).split(100):
        x = F.normalize(encode_image(enlarge(to_tensor(pictures[index.numpy()]), side)), dim=1)
        y = F.normalize(encode_text(ids[index]), dim=1)
        best = (x @ y.T).argmax(1)
        found.append((ids[index[best]] == ids[index]).all(1).float())
    return round(float(torch.cat(found).mean()), 3)


def evaluation_clip_config(vocabulary: int, width: int = 16, text_width: int = 96) -> dict[str, Any]:
    """open_clip_config.json of the evaluation's CLIP: a ResNet image encoder on 64x64 pixels."""
    model = {
        "embed_dim": text_width,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": width, "head_width": 32},
        "text_cfg": {
            "context_length": MAX_LENGTH,
            "vocab_size": vocabulary,
            "width": text_width,
            "heads": 4,
            "layers": 3,
            "hf_tokenizer_name": "tokenizer beside this file",
        },
    }
    half = [0.5, 0.5, 0.5]
    preprocess = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def build_open_clip_tokenizer() -> Any:
    """The tokenizer as open_clip needs it: it pads with 0 and pools at the highest id."""
    tokenizer = build_tokenizer()
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def save_evaluation_clip(out: Path, config: str, model: nn.Module) -> None:
    """Save config (JSON) and weights beside the tokenizer, as open_clip's 'local-dir' reads them."""
    from safetensors.torch import save_file

    (out / "open_clip_config.json").write_text(config + "\n", encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "open_clip_model.safetensors")
