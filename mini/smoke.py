"""The smoke scale's data and tiny untrained networks: `python -m mini.smoke --out data/smoke`, in seconds.

Every network has the format and the interface of its big sibling, so that every rule of the workflow runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mini.dataset import write_dataset
from mini.pretrain.classify import build as build_classifier
from mini.pretrain.classify import label_names
from mini.pretrain.contrast import build as build_features
from mini.pretrain.diffusion import SCHEDULE, build_text_encoder, build_unet, save_pipeline
from mini.pretrain.tokens import build_tokenizer
from mini.pretrain.vae import build as build_vae


def write_pipeline(out: Path, channels: tuple[int, int], width: int) -> None:
    """A StableDiffusionPipeline directory with untrained networks."""
    from diffusers import DDIMScheduler

    tokenizer = build_tokenizer()
    text_encoder = build_text_encoder(width, 1, len(tokenizer), tokenizer.model_max_length)
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=True, steps_offset=1)
    unet = build_unet(channels, width)
    save_pipeline(out, build_vae((8, 8, 8), 4), text_encoder, tokenizer, unet, scheduler)


def write_networks(root: Path) -> None:
    """Every network that config/smoke.yaml names, below `root`."""
    from safetensors.torch import save_file
    from transformers import CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    write_pipeline(root / "sd21", (8, 16), 16)
    write_pipeline(root / "sdxl", (16, 16), 24)
    for name, hidden in (
        ("vit_s_dinov1", (8, 8, 16)),
        ("vit_s_dinov2", (8, 16, 16)),
        ("vit_l_dinov2", (8, 16, 32)),
    ):
        build_features(hidden).save_pretrained(root / name)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    CLIPVisionModel(vision).save_pretrained(root / "vit_l_clip")
    tokenizer = build_tokenizer()
    text = build_text_encoder(16, 1, len(tokenizer), tokenizer.model_max_length)
    CLIPTextModelWithProjection(text.config).save_pretrained(root / "c_text")
    tokenizer.save_pretrained(root / "c_text")
    for name in ("eval_extractor", "oracle"):
        build_classifier(label_names(), (8, 8, 8), (1, 1, 1)).save_pretrained(root / name)

    from mini.pretrain.language import build_evaluation_clip, evaluation_clip_config

    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.save_pretrained(root / "eval_clip")
    config = evaluation_clip_config(len(tokenizer), width=8, text_width=32)
    (root / "eval_clip" / "open_clip_config.json").write_text(json.dumps(config) + "\n")
    state = build_evaluation_clip(config).state_dict()
    save_file(
        {k: v.contiguous() for k, v in state.items()}, root / "eval_clip" / "open_clip_model.safetensors"
    )


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(prog="python -m mini.smoke", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_networks(arguments.out / "networks")
    write_dataset(arguments.out, train=24, val=8, reference=8, prompts=12)


if __name__ == "__main__":
    main()
