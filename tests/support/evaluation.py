"""Tiny random metric networks, a tiny data set and a scale that names them, to test evaluation with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from add.config.load import load_scale
from add.config.scale import Scale

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SIDE = 16
GROUPS = {"layout": ("single", "row"), "shape_0": ("circle", "square", "ring"), "shape_1": ("circle", "none")}


def shared(path: str) -> Path:
    """A real file, or skip."""
    file = SHARED / path
    if not file.exists():
        pytest.skip(f"the real data is not here: {file}")
    return file


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side, 3): smooth random colours with some noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    return (smooth + generator.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_pictures(directory: Path, seeds: range, side: int = SIDE) -> list[str]:
    """One PNG per seed; returns the names."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{k:06d}.png" for k in range(len(seeds))]
    for name, seed in zip(names, seeds, strict=True):
        Image.fromarray(picture(seed, side)).save(directory / name)
    return names


def coco_file(path: Path, captions: dict[str, list[str]]) -> Path:
    """A COCO captions file; image k (from 1) is the k-th name."""
    images = [{"id": k, "file_name": name} for k, name in enumerate(captions, start=1)]
    pairs = [(k, text) for k, texts in enumerate(captions.values(), start=1) for text in texts]
    notes = [{"id": 10 + i, "image_id": k, "caption": text} for i, (k, text) in enumerate(pairs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": notes}), encoding="utf-8")
    return path


def parti_file(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A PartiPrompts TSV."""
    lines = ["Prompt\tCategory\tChallenge\tNote", *("\t".join((*row, "")) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save_classifier(directory: Path, seed: int = 0) -> Path:
    """A tiny random ResNetForImageClassification with the outputs of GROUPS."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    names = dict(enumerate(f"{group}:{value}" for group, values in GROUPS.items() for value in values))
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="basic",
        id2label=names,
        label2id={name: k for k, name in names.items()},
    )
    ResNetForImageClassification(config).save_pretrained(directory)
    return directory


def save_clip(directory: Path, seed: int = 0) -> Path:
    """A tiny random open_clip model in the layout of 'local-dir', with open_clip's own tokenizer."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=dict(vision), text_cfg=dict(text))
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }
    directory.mkdir(parents=True)
    (directory / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, directory / "open_clip_model.safetensors")
    return directory


def scene(k: int) -> dict[str, str | None]:
    """The k-th of the few possible scenes."""
    return {group: values[(k // 3 + k) % len(values)] for group, values in GROUPS.items()}


def make_world(root: Path, images: int = 6, references: int = 9) -> Scale:
    """Networks, data and scale below `root`; every COCO prompt has a scene, no PartiPrompts prompt has."""
    captions = [f"a scene called {'abcdefgh'[k]}" for k in range(images)]
    names = write_pictures(root / "val", range(images))
    write_pictures(root / "reference", range(100, 100 + references))
    coco_file(root / "annotations/captions_val.json", {n: [c] for n, c in zip(names, captions, strict=True)})
    rows = [
        (f'{c} "drawn"', "Abstract", "Basic" if k == 0 else "Style & Format") for k, c in enumerate(captions)
    ]
    parti_file(root / "PartiPrompts.tsv", rows)
    scenes = {text: scene(k) for k, text in enumerate(captions)}
    (root / "scenes.json").write_text(json.dumps({"prompts": scenes}), encoding="utf-8")
    save_classifier(root / "oracle", 1)
    save_classifier(root / "extractor", 2)
    save_clip(root / "clip")
    return tiny_scale(root, images, references)


def tiny_scale(root: Path, images: int, references: int, **evaluation: Any) -> Scale:
    """The smoke scale, with sampling and evaluation pointed below `root`."""
    network = {"image_size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    values = load_scale(ROOT / "config/smoke.yaml").model_dump()
    values["sampling"] = {
        "steps": (1, 4),
        "seed": 7,
        "batch": 4,
        "prompts": {
            "coco": {
                "kind": "coco",
                "annotations": str(root / "annotations/captions_val.json"),
                "caption_rule": "first",
                "rule_seed": 0,
                "count": images,
            },
            "parti": {
                "kind": "partiprompts",
                "file": str(root / "PartiPrompts.tsv"),
                "exclude_challenges": ("Basic",),
                "count": images - 2,
                "rule_seed": 0,
            },
        },
    }
    values["evaluation"] = {
        "reference": {"images": str(root / "reference"), "count": references},
        "resolution": SIDE,
        "crop": "none",
        "extractor": {"kind": "transformers", "path": str(root / "extractor"), **network},
        "resize": "clean",
        "clip": {"model": f"local-dir:{root / 'clip'}"},
        "oracle": {"path": str(root / "oracle"), "scenes": str(root / "scenes.json"), **network},
        "batch": 4,
        **evaluation,
    }
    return Scale.model_validate(values)


def write_samples(
    directory: Path, prompts: list[tuple[str, str]], steps: int, seed: int = 7, first: int = 500
) -> Path:
    """A finished sample directory with one picture for each (prompt id, prompt)."""
    names = write_pictures(directory, range(first, first + len(prompts)))
    rows = [
        (name, *prompt, seed, 1000 + k) for k, (name, prompt) in enumerate(zip(names, prompts, strict=True))
    ]
    return write_index(directory, rows, steps)


def write_index(directory: Path, rows: list[tuple[str, str, str, int, int]], steps: int) -> Path:
    """index.csv, whose rows are given, and samples.json of a sample directory."""
    with (directory / "index.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([["file", "prompt_id", "prompt", "seed", "image_seed"], *rows])
    facts = {"system": "tiny", "steps": steps, "count": len(rows), "seconds": 0.5}
    (directory / "samples.json").write_text(json.dumps(facts), encoding="utf-8")
    return directory
