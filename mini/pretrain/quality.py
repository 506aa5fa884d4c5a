"""How good a teacher is: its 25-step samples by the oracle, written into its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mini.pretrain.classify import enlarge
from mini.pretrain.data import to_tensor
from mini.pretrain.targets import attribute_hits, attribute_labels
from mini.world import caption, draw_scenes


@torch.no_grad()
def teacher_quality(pipeline: Any, oracle: Any, n: int, guidance: float, steps: int = 25) -> dict[str, Any]:
    """Share of the teacher's samples with all attributes right, for the first `n` validation captions."""
    from eval.systems import System

    scenes = draw_scenes("val", n)
    prompts = [caption(scenes, i) for i in range(n)]
    system = System("teacher", pipeline, {}, guidance)
    images = np.concatenate(
        [system.images(prompts[i : i + 50], list(range(i, min(i + 50, n))), steps) for i in range(0, n, 50)]
    )
    logits = torch.cat([oracle(enlarge(part)).logits for part in to_tensor(images).split(200)])
    hits = attribute_hits(logits, attribute_labels(scenes))
    return {
        "sampler": f"DDIM, {steps} steps, trailing",
        "guidance": guidance,
        "images": n,
        "all_right": round(float(hits.all(1).float().mean()), 4),
    }


def add_teacher_quality(directory: Path, oracle_directory: Path, n: int = 1000) -> None:
    """Measure the pipeline at `directory`, unguided and guided with 2, and add the figures to its card."""
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForImageClassification

    oracle = AutoModelForImageClassification.from_pretrained(oracle_directory, dtype=torch.float32).eval()
    pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    file = directory / "CARD.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    vae_card = json.loads((directory / "vae" / "CARD.json").read_text(encoding="utf-8"))
    samples = [teacher_quality(pipeline, oracle, n, guidance) for guidance in (1.0, 2.0)]
    card["quality"] = {"vae": vae_card["quality"], "samples": samples}
    file.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
