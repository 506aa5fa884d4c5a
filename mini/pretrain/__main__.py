"""Remake the miniature's weights: `python -m mini.pretrain [STAGE ...]`, about four hours on two cores.

Without arguments it runs every stage whose card is missing below --out, two processes at a time with one thread each.
An interrupted stage goes on from its last checkpoint, in the same bits; a finished one is left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from add.batch import to_tensor
from add.files import write_json, write_whole
from add.lock import only_writer
from add.models.weights import weights_hash
from mini.pretrain import classify, contrast, diffusion, vae
from mini.pretrain.loop import Recipe
from mini.world import caption, draw_scenes

WEIGHTS = Path("mini/weights")
# All feature networks are of one trunk in two sizes; what they learnt from differs.
_SMALL, _LARGE = (32, 64, 128), (48, 96, 192)


def _vae(name: str, first: Recipe, *more: tuple[Recipe, float], out: Path) -> None:
    """Train the VAE of a pipeline, and refine it with one emphasis after the other; phases are kept until the end."""
    here = out / name / "vae"
    places = [here.with_name(f"vae-{k}") for k in range(len(more))] + [here]
    if not (places[0] / "CARD.json").exists():
        vae.train(replace(first, out=places[0]))
    for (recipe, emphasis), start, place in zip(more, places, places[1:], strict=False):
        if not (place / "CARD.json").exists():
            vae.refine(replace(recipe, out=place), start, emphasis)
    for place in places[:-1]:
        shutil.rmtree(place, ignore_errors=True)


def _unet(
    name: str, seed: int, steps: int, lr: float, channels: tuple[int, int], text: int, out: Path
) -> None:
    diffusion.train(Recipe(out / name, seed, steps, 32, lr), channels=channels, text=(text, 3))


def _phase(seed: int, steps: int, lr: float = 1.2e-3) -> Recipe:
    return Recipe(Path(), seed, steps, batch=32, lr=lr)


def _oracle(out: Path) -> None:
    recipe = Recipe(out / "oracle", seed=1, steps=2500, batch=64, lr=2e-3)
    classify.train(recipe, nuisances=False, vaes=(out / "sd21" / "vae", out / "sdxl" / "vae"))


def _eval_extractor(out: Path) -> None:
    classify.train(Recipe(out / "eval_extractor", seed=2, steps=2200, batch=64, lr=2e-3), nuisances=True)


def _eval_clip(out: Path) -> None:
    contrast.train_evaluation_clip(Recipe(out / "eval_clip", seed=7, steps=1000, batch=128, lr=1e-3))


def _features(name: str, seed: int, steps: int, hidden: tuple[int, ...], instance: bool, out: Path) -> None:
    recipe = Recipe(out / name, seed, steps, batch=128, lr=2e-3)
    contrast.train_features(recipe, hidden=hidden, instance=instance)


def _untrained(out: Path) -> None:
    contrast.save_untrained(Recipe(out / "untrained", seed=8, steps=60, batch=128, lr=1e-3), hidden=_SMALL)


def _vit_l_clip(out: Path) -> None:
    recipe = Recipe(out / "vit_l_clip", seed=6, steps=1000, batch=128, lr=1e-3)
    contrast.train_discriminator_clip(recipe, out / "clip_text", hidden=_LARGE)


STAGES: dict[str, Callable[..., None]] = {
    "sd21-vae": partial(_vae, "sd21", _phase(21, 6000, 2e-3), (_phase(11, 2600), 12.0)),
    "sdxl-vae": partial(
        _vae, "sdxl", _phase(42, 6000, 2e-3), (_phase(12, 2600), 12.0), (_phase(13, 4500), 20.0)
    ),
    "sd21": partial(_unet, "sd21", 21, 54000, 1e-3, (32, 64), 96),
    "sdxl": partial(_unet, "sdxl", 42, 34000, 1.2e-3, (48, 96), 128),
    "oracle": _oracle,
    "eval_extractor": _eval_extractor,
    "eval_clip": _eval_clip,
    "vit_s_dinov1": partial(_features, "vit_s_dinov1", 3, 1200, _SMALL, False),
    "vit_s_dinov2": partial(_features, "vit_s_dinov2", 4, 1200, _SMALL, True),
    "vit_l_dinov2": partial(_features, "vit_l_dinov2", 5, 800, _LARGE, True),
    "vit_l_clip": _vit_l_clip,
    "untrained": _untrained,
}
"""Every stage, in the order in which two at a time end soonest. A stage is done if its folder has a card."""
NEED_VAES = ("sd21", "sdxl", "oracle")


def add_teacher_quality(directory: Path, oracle_directory: Path, n: int = 1000, steps: int = 25) -> None:
    """Add to a pipeline's card the fraction of its samples in which the oracle finds all attributes right.

    The samples are of the first `n` validation captions, without guidance and with a scale of 2.
    """
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForImageClassification

    from eval.sample import System

    oracle = AutoModelForImageClassification.from_pretrained(oracle_directory, dtype=torch.float32).eval()
    pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenes = draw_scenes("val", n)
    prompts = [caption(scenes, i) for i in range(n)]
    samples = []
    for guidance in (1.0, 2.0):
        system = System("teacher", pipeline, {}, guidance)
        parts = [
            system.images(prompts[i : i + 50], list(range(i, min(i + 50, n))), steps) for i in range(0, n, 50)
        ]
        labels = classify.attribute_labels(scenes)
        share = classify.all_right(oracle, to_tensor(np.concatenate(parts)), labels)
        sampler = f"DDIM, {steps} steps, trailing"
        samples.append({"sampler": sampler, "guidance": guidance, "images": n, "all_right": share})
    file = directory / "CARD.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    vae_card = json.loads((directory / "vae" / "CARD.json").read_text(encoding="utf-8"))
    card["quality"] = {"vae": vae_card["quality"], "samples": samples}
    write_json(file, card)


_PLACE = re.compile(r'^\s+(?:path|model):\s*"?(?:local-dir:)?(mini/weights/\w+)"?')
_HASH = re.compile(r"^(\s+sha256:\s*)(\S+)(\s*)(#.*)?$")


def pin(text: str, root: Path) -> str:
    """The YAML `text` with each `sha256` that follows a path below mini/weights set; comments stay.

    root: the repository's.
    """
    lines = []
    place = None
    for line in text.splitlines():
        found = _PLACE.match(line)
        if found:
            place = found[1]
        entry = _HASH.match(line)
        if entry and place:
            comment = f"  {entry[4]}" if entry[4] else ""
            line = f"{entry[1]}{weights_hash(root / place)}{comment}"
            place = None
        lines.append(line)
    return "\n".join(lines) + "\n"


def _run_apart(name: str, out: Path, logs: Path) -> None:
    log = logs / f"pretrain-{name}.log"
    print(f"{name}: started, see {log}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "mini.pretrain", name, "--out", str(out)]
        subprocess.run(command, check=True, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    print(f"{name}: done", flush=True)


def main() -> None:
    """Run the named stages here, or all missing ones in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m mini.pretrain", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[[], *STAGES], help=f"of {', '.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="directory of the weights")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if arguments.stages:
        torch.set_num_threads(1)
        for name in arguments.stages:
            with only_writer(out / name.replace("-", "/")):
                STAGES[name](out=out)
        return
    logs = Path("logs")
    logs.mkdir(exist_ok=True)
    missing = [name for name in STAGES if not (out / name.replace("-", "/") / "CARD.json").exists()]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for later in (False, True):
            wave = [name for name in missing if (name in NEED_VAES) is later]
            list(pool.map(lambda name: _run_apart(name, out, logs), wave))
    for name in ("sd21", "sdxl"):
        add_teacher_quality(out / name, out / "oracle")
    if out == WEIGHTS:
        file = Path("config/mini.yaml")
        write_whole(file, pin(file.read_text(encoding="utf-8"), Path()))


if __name__ == "__main__":
    main()
