"""Remake the miniature's weights: `python -m mini.pretrain [STAGE ...]`, about four hours on two cores.

Without arguments it runs every stage whose card is missing below --out, two processes at a time with one thread each.
An interrupted stage starts from the beginning; a finished one is left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from add.files import write_whole
from add.lock import only_writer
from mini.pretrain import classify, contrast, diffusion, vae
from mini.pretrain.cards import add_teacher_quality, pin
from mini.pretrain.loop import Recipe

WEIGHTS = Path("mini/weights")


def _sd21_vae(out: Path) -> None:
    here = out / "sd21" / "vae"
    vae.train(Recipe(here, seed=21, steps=6000, batch=32, lr=2e-3))
    vae.refine(Recipe(here, seed=11, steps=2600, batch=32, lr=1.2e-3))


def _sdxl_vae(out: Path) -> None:
    here = out / "sdxl" / "vae"
    vae.train(Recipe(here, seed=42, steps=6000, batch=32, lr=2e-3))
    vae.refine(Recipe(here, seed=12, steps=2600, batch=32, lr=1.2e-3))
    vae.refine(Recipe(here, seed=13, steps=4500, batch=32, lr=1.2e-3), emphasis=20.0)


# The committed UNets started on the latents of the VAEs before these were refined (their cards tell the order). When
# everything is remade, the VAEs are refined first, so the UNets see one kind of latents.
def _sd21(out: Path) -> None:
    here, channels, text = out / "sd21", (32, 64), (96, 3)
    first = Recipe(here, seed=21, steps=7700, batch=64, lr=1e-3)
    diffusion.train(first, channels=channels, text=text, paraphrases=True)
    for seed, steps, lr in ((1021, 8000, 1e-3), (2021, 12000, 1e-3), (3021, 10000, 8e-4), (4021, 8500, 8e-4)):
        diffusion.train(Recipe(here, seed, steps, 32, lr), channels=channels, text=text, resume=True)


def _sdxl(out: Path) -> None:
    here, channels, text = out / "sdxl", (48, 96), (128, 3)
    diffusion.train(Recipe(here, seed=42, steps=8000, batch=32, lr=1.2e-3), channels=channels, text=text)
    # The committed one also had 3000 steps of a phase that was broken off, between the next two.
    for seed, steps, lr in ((1042, 9000, 1.2e-3), (3042, 7000, 1e-3), (4042, 7000, 1e-3)):
        diffusion.train(Recipe(here, seed, steps, 32, lr), channels=channels, text=text, resume=True)


def _oracle(out: Path) -> None:
    recipe = Recipe(out / "oracle", seed=1, steps=2500, batch=64, lr=2e-3)
    classify.train(recipe, nuisances=False, vaes=(out / "sd21" / "vae", out / "sdxl" / "vae"))


def _eval_extractor(out: Path) -> None:
    classify.train(Recipe(out / "eval_extractor", seed=2, steps=2200, batch=64, lr=2e-3), nuisances=True)


def _eval_clip(out: Path) -> None:
    contrast.train_evaluation_clip(Recipe(out / "eval_clip", seed=7, steps=1000, batch=128, lr=1e-3))


def _features(
    name: str, seed: int, steps: int, hidden: tuple[int, ...], instance: bool
) -> Callable[[Path], None]:
    def run(out: Path) -> None:
        recipe = Recipe(out / name, seed, steps, batch=128, lr=2e-3)
        contrast.train_features(recipe, hidden=hidden, instance=instance)

    return run


def _vit_l_clip(out: Path) -> None:
    recipe = Recipe(out / "vit_l_clip", seed=6, steps=1000, batch=128, lr=1e-3)
    contrast.train_discriminator_clip(recipe, out / "clip_text")


STAGES: dict[str, Callable[[Path], None]] = {
    "sd21-vae": _sd21_vae,
    "sdxl-vae": _sdxl_vae,
    "sd21": _sd21,
    "sdxl": _sdxl,
    "oracle": _oracle,
    "eval_extractor": _eval_extractor,
    "eval_clip": _eval_clip,
    "vit_s_dinov1": _features("vit_s_dinov1", 3, 1000, (24, 48, 96), instance=False),
    "vit_s_dinov2": _features("vit_s_dinov2", 4, 1200, (32, 64, 128), instance=True),
    "vit_l_dinov2": _features("vit_l_dinov2", 5, 800, (48, 96, 192), instance=True),
    "vit_l_clip": _vit_l_clip,
}
"""Every stage, in the order in which two at a time end soonest. A stage is done if its folder has a card."""
NEED_VAES = ("sd21", "sdxl", "oracle")


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
                STAGES[name](out)
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
