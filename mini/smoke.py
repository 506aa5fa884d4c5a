"""The smoke scale's data and tiny untrained networks: `python -m mini.smoke --out data/smoke`, in seconds.

Every network has the format and the interface of its large counterpart, so every rule of the workflow runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from add.errors import refuses
from add.lock import only_writer
from mini.dataset import write_dataset
from mini.pretrain import classify, contrast, vae
from mini.pretrain.diffusion import (
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    save_pipeline,
)


def write_networks(root: Path) -> None:
    """Every network that config/smoke.yaml names, below `root`."""
    import open_clip
    from transformers import CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    for name, channels, width in (("sd21", (8, 16), 16), ("sdxl", (16, 16), 24)):
        text_encoder = build_text_encoder(width, 1, len(tokenizer))
        unet = build_unet(channels, width)
        scheduler = build_scheduler("v_prediction")
        save_pipeline(root / name, vae.build((8, 8, 8), 4), text_encoder, tokenizer, unet, scheduler)
    for name, hidden in (
        ("vit_s_dinov1", (8, 8, 16)),
        ("vit_s_dinov2", (8, 16, 16)),
        ("vit_l_dinov2", (8, 16, 32)),
    ):
        contrast.build_features(hidden).save_pretrained(root / name)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    CLIPVisionModel(vision).save_pretrained(root / "vit_l_clip")
    text = build_text_encoder(16, 1, len(tokenizer))
    CLIPTextModelWithProjection(text.config).save_pretrained(root / "c_text")
    tokenizer.save_pretrained(root / "c_text")
    for name in ("eval_extractor", "oracle"):
        classifier = classify.build(classify.label_names(), (8, 8, 8), (1, 1, 1))
        classifier.save_pretrained(root / name)
    config = contrast.evaluation_clip_config(len(tokenizer), width=8, text_width=32)
    contrast.build_open_clip_tokenizer().save_pretrained(root / "eval_clip")
    contrast.save_evaluation_clip(
        root / "eval_clip", json.dumps(config), open_clip.CLIP(**config["model_cfg"])
    )


@refuses
def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(prog="python -m mini.smoke", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with only_writer(arguments.out):
        write_networks(arguments.out / "networks")
        write_dataset(arguments.out, train=24, val=8, reference=8, prompts=12)


if __name__ == "__main__":
    sys.exit(main())
