"""Image-text networks: the discriminator's CLIP (transformers) and the evaluation's own (open_clip)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mini.pretrain.cards import probe_card
from mini.pretrain.classify import enlarge
from mini.pretrain.contrast import info_nce
from mini.pretrain.diffusion import caption_tokens
from mini.pretrain.loop import batches, fit, jitter, photographs, to_tensor, write_card
from mini.pretrain.tokens import MAX_LENGTH, build_tokenizer
from mini.world import Split

_MEAN = [0.5, 0.5, 0.5]


def build_clip(vocabulary: int) -> Any:
    """An untrained transformers CLIPModel: a ViT on 64x64 images with patches of 8, and a text encoder."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": vocabulary,
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "projection_dim": 96,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "projection_dim": 96,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def _train(
    split: Split,
    encode_image: Any,
    encode_text: Any,
    parameters: Any,
    tokenizer: Any,
    *,
    name: str,
    seed: int,
    steps: int,
    lr: float,
    batch: int,
    n: int,
) -> float:
    scenes, _, pictures = photographs(split, n, 2)
    images = to_tensor(pictures)
    ids, count = caption_tokens(tokenizer, scenes)
    order = batches(n, batch, steps, seed)
    generator = torch.Generator().manual_seed(seed)
    choice = np.random.default_rng(seed).random((steps, batch))

    def loss(step: int) -> torch.Tensor:
        index = order[step]
        side = torch.from_numpy((choice[step] * 2 * (count[index] > 1)).astype(np.int64))
        x = enlarge(jitter(images[index], generator, shift=1))
        return info_nce(encode_image(x), encode_text(ids[index, side]), 0.07)

    return fit(parameters, loss, steps, lr, name=name)


@torch.no_grad()
def retrieval(encode_image: Any, encode_text: Any, tokenizer: Any) -> float:
    """Share of 1000 validation images that find their caption among 100 (ten groups; equal captions count)."""
    scenes, _, pictures = photographs("val", 1000)
    ids, _ = caption_tokens(tokenizer, scenes)
    found = []
    for index in torch.arange(1000).split(100):
        x = nn.functional.normalize(encode_image(enlarge(to_tensor(pictures[index.numpy()]))), dim=1)
        y = nn.functional.normalize(encode_text(ids[index, 0]), dim=1)
        best = (x @ y.T).argmax(1)
        found.append((ids[index[best], 0] == ids[index, 0]).all(1).float())
    return round(float(torch.cat(found).mean()), 3)


def train_discriminator_clip(
    vision_out: Path,
    text_out: Path,
    *,
    seed: int,
    steps: int,
    lr: float = 1e-3,
    batch: int = 128,
    n: int = 30000,
) -> None:
    """Train CLIP on the discriminator split; save the image encoder and, apart, the text encoder for c_text."""
    from transformers import CLIPTextModelWithProjection, CLIPVisionModel

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    clip = build_clip(len(tokenizer))

    def encode_image(x: torch.Tensor) -> torch.Tensor:
        return clip.visual_projection(clip.vision_model(x).pooler_output)

    def encode_text(ids: torch.Tensor) -> torch.Tensor:
        return clip.text_projection(clip.text_model(ids).pooler_output)

    seconds = _train(
        "discriminator", encode_image, encode_text, clip.parameters(), tokenizer,
        name=str(vision_out), seed=seed, steps=steps, lr=lr, batch=batch, n=n,
    )  # fmt: skip
    clip.eval()
    found = retrieval(encode_image, encode_text, tokenizer)
    vision = CLIPVisionModel(clip.config.vision_config).eval()
    vision.load_state_dict(_renamed(clip.vision_model, vision))
    text = CLIPTextModelWithProjection(clip.config.text_config).eval()
    text.load_state_dict(
        _renamed(clip.text_model, text) | {"text_projection.weight": clip.text_projection.weight}
    )
    untrained = CLIPVisionModel(clip.config.vision_config).eval()
    quality = {"caption_among_100": found, **probe_card(vision, untrained)}
    vision.half().save_pretrained(vision_out)
    text.half().save_pretrained(text_out)
    tokenizer.save_pretrained(text_out)
    card = {
        "recipe": f"image-caption InfoNCE, AdamW {lr} cosine, batch {batch}, seed {seed}",
        "data": f"{n} captioned photographs of the world's discriminator split",
        "steps": steps,
        "cpu_seconds": round(seconds),
    }
    size = f"{vision.num_parameters()} parameters"
    write_card(
        vision_out, {"network": f"CLIPVisionModel, 6 layers of 128, {size}", **card, "quality": quality}
    )
    network = "CLIPTextModelWithProjection, 3 layers of 96"
    write_card(text_out, {"network": network, **card, "quality": {"caption_among_100": found}})
    print(vision_out, quality, flush=True)


def _renamed(part: nn.Module, whole: nn.Module) -> dict[str, torch.Tensor]:
    """State of `part` under the names it has inside `whole` (with or without its prefix)."""
    wanted = whole.state_dict()
    state = part.state_dict()
    return {name: state[key] for name in wanted for key in state if name == key or name.endswith(f".{key}")}


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
    preprocess = {"mean": _MEAN, "std": _MEAN, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def build_evaluation_clip(config: dict[str, Any]) -> nn.Module:
    """The untrained open_clip model of such a config."""
    import open_clip

    return open_clip.CLIP(**config["model_cfg"])


def train_evaluation_clip(
    out: Path, *, seed: int, steps: int, lr: float = 1e-3, batch: int = 128, n: int = 30000
) -> None:
    """Train open_clip's CLIP with a ResNet on the evaluation split; save it as an open_clip 'local-dir'."""
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(
        0
    )  # open_clip pads with 0 and pools at the highest id
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    config = evaluation_clip_config(len(tokenizer))
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = build_evaluation_clip(config)
    model.train()
    seconds = _train(
        "evaluation", model.encode_image, model.encode_text, model.parameters(), tokenizer,
        name=str(out), seed=seed, steps=steps, lr=lr, batch=batch, n=n,
    )  # fmt: skip
    model.eval()
    quality = {"caption_among_100": retrieval(model.encode_image, model.encode_text, tokenizer)}
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, out / "open_clip_model.safetensors")
    write_card(
        out,
        {
            "network": f"open_clip CLIP, ResNet of width 16, {sum(p.numel() for p in model.parameters())} parameters",
            "recipe": f"image-caption InfoNCE, AdamW {lr} cosine, batch {batch}, seed {seed}",
            "data": f"{n} captioned photographs of the world's evaluation split",
            "steps": steps,
            "cpu_seconds": round(seconds),
            "quality": quality,
        },
    )
    print(out, quality, flush=True)
