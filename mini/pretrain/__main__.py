"""One stage of the miniature's weights: `python -m mini.pretrain STAGE`; mini/pretrain/Snakefile runs them in order.

An interrupted stage goes on from its last checkpoint, in the same bits. Its card is written last: then it is done.
With `--share` it is a rehearsal of few steps, whose networks are of no use.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from add.errors import InputError, refuses
from add.files import write_whole
from add.lock import only_writer
from add.models.weights import weights_hash
from mini.pretrain import classify, contrast, diffusion, vae
from mini.pretrain.compare import compare, table
from mini.pretrain.loop import Recipe

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
    name: str,
    channels: tuple[int, int],
    layers: int,
    text: int,
    recipe: Recipe,
    out: Path,
    vae: str | None = None,
) -> None:
    """Train a pipeline on the latents of its VAE, or of the VAE of the pipeline named `vae`."""
    here = out / name
    if vae is not None:
        shutil.copytree(out / vae / "vae", here / "vae", dirs_exist_ok=True)
    recipe = replace(recipe, out=here)
    diffusion.train(recipe, channels=channels, layers=layers, text=(text, 3), judges=_judges(out))


def _sdxl(*phases: Recipe, out: Path) -> None:
    """Train `sdxl-0` on, first reading by the text encoder of sd21, then with both; phases are kept until the end."""
    places = [out / f"sdxl-{k}" for k in range(len(phases))] + [out / "sdxl"]
    for recipe, start, place in zip(phases, places, places[1:], strict=False):
        if not (place / "CARD.json").exists():
            reader = out / "sd21" if start == places[0] else None
            recipe = replace(recipe, out=place)
            diffusion.train_on(recipe, start, "v_prediction", judges=_judges(out), reader=reader)
    for place in places[:-1]:
        shutil.rmtree(place, ignore_errors=True)


def _epsilon(recipe: Recipe, out: Path) -> None:
    recipe = replace(recipe, out=out / "sd21_epsilon")
    diffusion.train_on(recipe, out / "sd21", "epsilon", judges=_judges(out))


def _judges(out: Path) -> classify.Judges:
    return classify.Judges(out / "oracle", out / "eval_extractor")


def _oracle(recipe: Recipe, out: Path) -> None:
    vaes = (out / "sd21" / "vae", out / "sdxl" / "vae")
    classify.train(replace(recipe, out=out / "oracle"), nuisances=False, vaes=vaes)


def _eval_extractor(recipe: Recipe, out: Path) -> None:
    classify.train(replace(recipe, out=out / "eval_extractor"), nuisances=True)


def _eval_clip(recipe: Recipe, out: Path) -> None:
    contrast.train_evaluation_clip(replace(recipe, out=out / "eval_clip"))


def _features(name: str, recipe: Recipe, hidden: tuple[int, ...], instance: bool, out: Path) -> None:
    contrast.train_features(replace(recipe, out=out / name), hidden=hidden, instance=instance)


def _untrained(recipe: Recipe, out: Path) -> None:
    contrast.save_untrained(replace(recipe, out=out / "untrained"), hidden=_SMALL)


def _vit_l_clip(recipe: Recipe, out: Path) -> None:
    recipe = replace(recipe, out=out / "vit_l_clip")
    contrast.train_discriminator_clip(recipe, out / "clip_text", hidden=_LARGE)


def stages(share: float = 1.0) -> dict[str, partial[None]]:
    """What makes each network, given `out`. share: of each training's steps; below 1 it is a rehearsal."""

    def recipe(seed: int, steps: int, batch: int, lr: float) -> Recipe:
        return Recipe(Path(), seed, max(1, round(share * steps)), batch, lr)

    def phase(seed: int, steps: int, lr: float = 1.2e-3) -> Recipe:
        return recipe(seed, steps, 32, lr)

    def features(name: str, seed: int, steps: int, hidden: tuple[int, ...], instance: bool) -> partial[None]:
        return partial(_features, name, recipe(seed, steps, 128, 2e-3), hidden, instance)

    return {
        "sd21/vae": partial(
            _vae, "sd21", phase(24, 6000, 2e-3), (phase(11, 2600), 12.0), (phase(14, 4500), 20.0)
        ),
        "sdxl/vae": partial(
            _vae, "sdxl", phase(42, 6000, 2e-3), (phase(12, 2600), 12.0), (phase(13, 4500), 20.0)
        ),
        "sd21": partial(_unet, "sd21", (32, 64), 1, 96, phase(21, 60000, 1e-3)),
        # It draws one object right and binds no words to two. Begun again from a high rate it stays there; with the
        # frozen text encoder of sd21, which does bind them, 4500 steps are enough to leave it. The last phase trains
        # both.
        "sdxl-0": partial(_unet, "sdxl-0", (48, 96), 2, 128, phase(42, 24000), vae="sdxl"),
        "sdxl": partial(_sdxl, phase(43, 9000, 1e-3), phase(44, 7000, 6e-4)),
        "sd21_epsilon": partial(_epsilon, phase(22, 12000, 7e-4)),
        "oracle": partial(_oracle, recipe(1, 2500, 64, 2e-3)),
        "eval_extractor": partial(_eval_extractor, recipe(2, 2200, 64, 2e-3)),
        "eval_clip": partial(_eval_clip, recipe(7, 1000, 128, 1e-3)),
        "vit_s_dinov1": features("vit_s_dinov1", 3, 1200, _SMALL, instance=False),
        "vit_s_dinov2": features("vit_s_dinov2", 4, 1200, _SMALL, instance=True),
        # Two more draws of the default's network: how much of part (a) is the draw (ablations/ours/feature_draws.yaml)?
        "vit_s_dinov2_b": features("vit_s_dinov2_b", 104, 1200, _SMALL, instance=True),
        "vit_s_dinov2_c": features("vit_s_dinov2_c", 204, 1200, _SMALL, instance=True),
        "vit_l_dinov2": features("vit_l_dinov2", 5, 800, _LARGE, instance=True),
        "vit_l_clip": partial(_vit_l_clip, recipe(6, 1000, 128, 1e-3)),
        "untrained": partial(_untrained, recipe(8, 60, 128, 1e-3)),
    }


STAGES = stages()
"""What makes the weights in each folder; vit_l_clip makes clip_text too, and sdxl removes sdxl-0, its first phase."""


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


def _compare(out: Path) -> None:
    """Print how the weights in `out` compare with the shipped ones. Raises InputError for one beyond its bound."""
    done, missing = compare(out, WEIGHTS)
    print(table(done))
    if missing:
        print(f"Not made in {out}: {', '.join(missing)}")
    if failed := [c.network for c in done if not c.holds]:
        raise InputError(out, f"beyond a bound of mini/pretrain/compare.py: {', '.join(failed)}")


def _share(text: str) -> float:
    """A type for argparse's arguments: above 0, at most 1."""
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"should be above 0 and at most 1, not {text}")
    return share


@refuses
def main() -> None:
    """Run one stage, enter the hashes of all weights in the miniature's scale, or compare weights with the shipped."""
    parser = argparse.ArgumentParser(prog="python -m mini.pretrain", description=__doc__)
    text = "`pin` enters all hashes in config/mini.yaml; `compare` compares the weights in --out with the shipped ones"
    parser.add_argument("stage", choices=[*STAGES, "pin", "compare"], help=text)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="directory of the weights")
    text = "train each network for this share of its steps, to see that every stage goes through: a rehearsal"
    parser.add_argument("--share", type=_share, default=1.0, help=text)
    arguments = parser.parse_args()
    if arguments.share < 1 and arguments.out.resolve() == WEIGHTS.resolve():
        parser.error("--share: the networks of a rehearsal are of no use; say with --out where they go")
    if arguments.stage == "compare":
        if arguments.out.resolve() == WEIGHTS.resolve():
            parser.error("compare: --out says where the remade weights are")
        _compare(arguments.out)
        return
    if arguments.stage == "pin":
        if arguments.out != WEIGHTS:
            return  # a trial: the scale goes on with the weights that it names
        file = Path("config/mini.yaml")
        write_whole(file, pin(file.read_text(encoding="utf-8"), Path()))
        return
    torch.set_num_threads(1)
    with only_writer(arguments.out / arguments.stage):
        stages(arguments.share)[arguments.stage](out=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
