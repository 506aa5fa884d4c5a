"""Remake the miniature's weights: `python -m mini.pretrain [STAGE ...]`, about four hours on two cores.

Without arguments every stage whose card is missing below --out is run, two processes at a time with one thread
each. A stage that was interrupted starts anew; a finished one is left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def _vae(name: str, seed: int, *refinements: dict[str, Any]) -> Callable[[Path], None]:
    """A VAE's training, and those that went on from it."""

    def run(out: Path) -> None:
        from mini.pretrain.vae import refine, train

        train(out / name / "vae", seed=seed, steps=6000)
        for settings in refinements:
            refine(out / name / "vae", **settings)

    return run


# The committed UNets began on the latents of the VAEs before these were refined (their cards tell the order); from
# nothing, refining first spares them the change.
def _sd21(out: Path) -> None:
    from mini.pretrain.diffusion import train

    here = out / "sd21"
    size: dict[str, Any] = {"channels": (32, 64), "text": (96, 3)}
    train(here, seed=21, steps=7700, batch=64, lr=1e-3, paraphrases=True, **size)
    for seed, steps, lr in ((1021, 8000, 1e-3), (2021, 12000, 1e-3), (3021, 10000, 8e-4), (4021, 8500, 8e-4)):
        train(here, seed=seed, steps=steps, batch=32, lr=lr, start=here, **size)


def _sdxl(out: Path) -> None:
    from mini.pretrain.diffusion import train

    here = out / "sdxl"
    size: dict[str, Any] = {"channels": (48, 96), "text": (128, 3)}
    train(here, seed=42, steps=8000, batch=32, lr=1.2e-3, **size)
    # The committed one also had 3000 steps of a phase that was broken off, between the next two.
    for seed, steps, lr in ((1042, 9000, 1.2e-3), (3042, 7000, 1e-3), (4042, 7000, 1e-3)):
        train(here, seed=seed, steps=steps, batch=32, lr=lr, start=here, **size)


def _oracle(out: Path) -> None:
    from mini.pretrain.classify import train

    vaes = (out / "sd21" / "vae", out / "sdxl" / "vae")
    train(out / "oracle", seed=1, steps=2500, nuisances=False, vaes=vaes)


def _eval_extractor(out: Path) -> None:
    from mini.pretrain.classify import train

    train(out / "eval_extractor", seed=2, steps=2200, nuisances=True)


def _contrastive(
    name: str, seed: int, steps: int, hidden: tuple[int, ...], instance: bool
) -> Callable[[Path], None]:
    def run(out: Path) -> None:
        from mini.pretrain.contrast import train

        train(out / name, seed=seed, steps=steps, hidden=hidden, instance=instance, colour_rotation=0.4)

    return run


def _discriminator_clip(out: Path) -> None:
    from mini.pretrain.language import train_discriminator_clip

    train_discriminator_clip(out / "vit_l_clip", out / "clip_text", seed=6, steps=1000)


def _evaluation_clip(out: Path) -> None:
    from mini.pretrain.language import train_evaluation_clip

    train_evaluation_clip(out / "eval_clip", seed=7, steps=1000)


def _teacher_quality(out: Path) -> None:
    from mini.pretrain.cards import add_teacher_quality

    for name in ("sd21", "sdxl"):
        add_teacher_quality(out / name, out / "oracle")


STAGES: dict[str, tuple[str, tuple[str, ...], Callable[[Path], None]]] = {
    # stage: the directory whose card says that it is done, the stages that it needs, and what runs it
    "sd21-vae": ("sd21/vae", (), _vae("sd21", 21, {"seed": 11})),
    "sdxl-vae": (
        "sdxl/vae",
        (),
        _vae("sdxl", 42, {"seed": 12}, {"seed": 13, "steps": 4500, "emphasis": 20.0}),
    ),
    "sd21": ("sd21", ("sd21-vae",), _sd21),
    "sdxl": ("sdxl", ("sdxl-vae",), _sdxl),
    "oracle": ("oracle", ("sd21-vae", "sdxl-vae"), _oracle),
    "eval_extractor": ("eval_extractor", (), _eval_extractor),
    "eval_clip": ("eval_clip", (), _evaluation_clip),
    "vit_s_dinov1": ("vit_s_dinov1", (), _contrastive("vit_s_dinov1", 3, 1000, (24, 48, 96), instance=False)),
    "vit_s_dinov2": ("vit_s_dinov2", (), _contrastive("vit_s_dinov2", 4, 1200, (32, 64, 128), instance=True)),
    "vit_l_dinov2": ("vit_l_dinov2", (), _contrastive("vit_l_dinov2", 5, 800, (48, 96, 192), instance=True)),
    "vit_l_clip": ("vit_l_clip", (), _discriminator_clip),
}
"""Every stage, in an order in which two at a time end soonest."""


def _run_apart(stage: str, out: Path, logs: Path) -> None:
    log = logs / f"pretrain-{stage}.log"
    print(f"{stage}: started, see {log}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "mini.pretrain", stage, "--out", str(out)]
        subprocess.run(command, check=True, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    print(f"{stage}: done", flush=True)


def main() -> None:
    """Run the named stages here, or all that are missing in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m mini.pretrain", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[[], *STAGES], help=f"of {', '.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=Path("mini/weights"))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    if arguments.stages:
        import torch

        torch.set_num_threads(1)
        for stage in arguments.stages:
            STAGES[stage][2](arguments.out)
        return
    logs = Path("logs")
    logs.mkdir(exist_ok=True)
    missing = [
        s for s, (folder, _, _) in STAGES.items() if not (arguments.out / folder / "CARD.json").exists()
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        waves = [[s for s in missing if not STAGES[s][1]], [s for s in missing if STAGES[s][1]]]
        for wave in waves:
            list(pool.map(lambda stage: _run_apart(stage, arguments.out, logs), wave))
    _teacher_quality(arguments.out)
    if arguments.out == Path("mini/weights"):
        from mini.pretrain.cards import pin_file

        pin_file(Path("config/mini.yaml"))


if __name__ == "__main__":
    main()
