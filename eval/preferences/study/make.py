"""Make a study: `python -m eval.preferences.study.make --systems FILE --out DIR --raters N ...`.

Writes study.json, images/, pages/ and the key. Give raters the pages alone; the key says which system is which.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from add.errors import InputError, at_least, refuses
from add.lock import only_writer
from eval.preferences.key import ATTENTION_CHECK as ATTENTION
from eval.preferences.key import KEY_SUFFIX, StudyKey, write_key
from eval.preferences.study.design import DesignSettings, PlannedComparison, design
from eval.preferences.study.page import code, destroyed, offline_page, png
from eval.preferences.study.plan import WORDINGS, StudyPlan, Trial, image_file
from eval.preferences.study.sources import ComparedSystem, prompts_of, read_sources

LARGEST_SIDE = 512
"""Section 4.2: images are shown at 512 x 512, larger outputs downsampled."""
_HEAVY_PAGE = 100 * 2**20


def make_study(
    sources: Sequence[ComparedSystem],
    prompts: Mapping[str, str],
    settings: DesignSettings,
    out: Path,
    *,
    side: int | None = None,
    ties: bool = True,
) -> StudyPlan:
    """Write a study into `out`, which must be empty or absent; whole or not at all. The same input, the same bytes.

    side: pixels of the images shown; by default that of the smallest system's, at most 512. Raises InputError.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty, and may hold answers; give a new directory")
    names, seed = [source.name for source in sources], settings.seed
    side = _side(sources, side)
    plan = design(names, list(prompts), settings)
    lists = {
        name: tuple(_trial(f"t{k:04d}", each, seed) for k, each in enumerate(comparisons, start=1))
        for name, comparisons in plan.items()
    }
    study = StudyPlan(
        study="study-unnamed",
        resolution=side,
        ties=ties,
        questions=dict(WORDINGS),
        prompts=dict(prompts),
        lists=lists,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        work = Path(scratch) / "study"
        (work / "images").mkdir(parents=True)
        (work / "pages").mkdir()
        images = _images(work, dict(zip(names, sources, strict=True)), plan, seed, side)
        digest = hashlib.sha256(study.model_dump_json().encode())
        for image in images:
            digest.update(image_file(work, image).read_bytes())
        # Another design, other prompts or other pixels are another study: their votes must not be taken for these.
        study = study.model_copy(update={"study": code(seed, "study", digest.hexdigest(), length=8)})
        systems = {code(seed, "sys", name): name for name in (*names, ATTENTION)}
        write_key(work / f"{study.study}{KEY_SUFFIX}", StudyKey(study.study, systems, images))
        text = json.dumps(study.model_dump(), ensure_ascii=False, separators=(",", ":"))
        (work / "study.json").write_text(text + "\n", encoding="utf-8", newline="")
        for name in study.lists:
            page = work / "pages" / f"{name}.html"
            page.write_text(offline_page(study, name, work), encoding="utf-8", newline="")
        work.replace(out)
    return study


def _side(sources: Sequence[ComparedSystem], side: int | None) -> int:
    smallest = min(sources, key=lambda source: source.resolution)
    if side is None:
        return min(smallest.resolution, LARGEST_SIDE)
    if not 1 <= side <= smallest.resolution:
        raise InputError(
            f"size {side}: the images of {smallest.name!r} have {smallest.resolution} pixels a side, and "
            "images are never enlarged: raters would know them by their blur"
        )
    return side


def _image(comparison: PlannedComparison, system: str, seed: int) -> str:
    """The code of the image by `system` in this comparison; a destroyed image has its own code."""
    destroys = (ATTENTION,) if system == ATTENTION else ()
    return code(seed, "img", *destroys, comparison.shown(system), comparison.prompt_id)


def _trial(name: str, comparison: PlannedComparison, seed: int) -> Trial:
    """The comparison in codes; a and b are in the order of their codes, which has no meaning."""
    codes = {system: code(seed, "sys", system) for system in (comparison.left, comparison.right)}
    a, b = sorted(codes, key=codes.__getitem__)
    return Trial(
        id=name,
        prompt_id=comparison.prompt_id,
        question=comparison.question,
        system_a=codes[a],
        system_b=codes[b],
        image_a=_image(comparison, a, seed),
        image_b=_image(comparison, b, seed),
        left="a" if comparison.left == a else "b",
        check="no" if not comparison.check else "b" if a == ATTENTION else "a",
    )


def _images(
    work: Path,
    sources: Mapping[str, ComparedSystem],
    plan: Mapping[str, Sequence[PlannedComparison]],
    seed: int,
    side: int,
) -> dict[str, str]:
    """Write every image that is shown; code -> source image id, sorted by code."""
    written: dict[str, str] = {}
    for comparison in (each for comparisons in plan.values() for each in comparisons):
        for system in (comparison.left, comparison.right):
            image, prompt_id = _image(comparison, system, seed), comparison.prompt_id
            if image in written:
                continue
            source = sources[comparison.shown(system)]
            pixels, written[image] = source.pixels(prompt_id, side), source.image_id(prompt_id)
            if system == ATTENTION:
                draw = hashlib.sha256(f"{seed}:{image}".encode()).digest()
                pixels = destroyed(pixels, int.from_bytes(draw[:8], "big"))
                written[image] += ", destroyed"
            image_file(work, image).write_bytes(png(pixels))
    return dict(sorted(written.items()))


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """The command. Exit status 1 and one line on stderr where the study cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m eval.preferences.study.make", description=__doc__)
    parser.add_argument("--systems", type=Path, required=True, help="JSON list of {name, samples}")
    parser.add_argument("--out", type=Path, required=True, help="a new directory")
    parser.add_argument("--raters", type=at_least(1), required=True)
    per_pair = "for each pair of systems and question, over all prompts"
    parser.add_argument("--votes-per-pair", type=at_least(1), required=True, help=per_pair)
    parser.add_argument("--seed", type=int, required=True, help="keep it as secret as the key")
    parser.add_argument("--prompts", type=at_least(1), help="how many, by a seeded rule (default: all)")
    parser.add_argument("--trials-per-rater", type=at_least(1), default=200, help="at most (default: 200)")
    parser.add_argument("--check-share", type=float, default=1 / 15, help="attention checks (default: 1/15)")
    size = "pixels a side (default: the smallest system's, at most 512)"
    parser.add_argument("--size", type=at_least(1), help=size)
    parser.add_argument("--no-ties", action="store_true", help="raters must choose, as in the paper")
    options = parser.parse_args(arguments)
    settings = DesignSettings(
        options.raters, options.votes_per_pair, options.seed, options.trials_per_rater, options.check_share
    )
    sources = read_sources(options.systems)
    prompts = prompts_of(sources, options.prompts, options.seed)
    with only_writer(options.out):
        study = make_study(
            sources, prompts, settings, options.out, side=options.size, ties=not options.no_ties
        )
    lengths = [len(trials) for trials in study.lists.values()]
    print(f"{study.study}: {len(lengths)} raters, {min(lengths)} to {max(lengths)} comparisons each")
    largest = max((options.out / "pages" / f"{name}.html").stat().st_size for name in study.lists)
    if largest > _HEAVY_PAGE:
        print(f"note: the largest page has {largest / 2**20:.0f} MiB; the server sends images one at a time")


if __name__ == "__main__":
    sys.exit(main())
