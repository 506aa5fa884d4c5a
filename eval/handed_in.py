"""Images that were made elsewhere, as a sample directory like any other.

    python -m eval.handed_in --images DIR --set parti --steps 1 --label NAME --scale config/mini.yaml --out DIR

Which image is whose stands in the folder's `index.csv`, or in the file that `--prompts` names: a CSV with the columns
`file` and `prompt` (others are ignored), or a text file with one prompt a line, for the images in the order of their
names. The set's prompts must all be there, each with as many images as the set has it times; images of other prompts
are left out and counted.

What is converted, and written down: every image becomes an upright 8-bit RGB PNG (`add.data.images.upright_rgb`: 16-bit
values are scaled, CMYK, grey and palettes converted, transparency laid over white), and a larger square one is
downsampled to the scale's resolution (Pillow's bicubic, antialiased). What is refused, all at once: images that are
missing, truncated, of several frames, of one colour, not square, or smaller than the scale's resolution.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from add.data.images import decoded, upright_rgb
from add.data.reading import csv_rows, file_bytes, utf8_text
from add.errors import InputError, at_least, refuses
from add.files import whole_directory, write_json
from add.lock import only_writer
from eval.images import INDEX, SUFFIXES, SampledImage, to_square, write_index
from eval.prompts import Prompt, read_prompts
from eval.stage import MeasureValues, add_scale_option

_LISTED = 20
_PNG_DEPTH = 24  # the byte of a PNG that states the bits of a channel


def take_in(
    folder: Path,
    assignment: Path | None,
    prompts: Sequence[Prompt],
    seed: int,
    side: int,
    out: Path,
    facts: Mapping[str, Any],
) -> None:
    """Write the folder's images for `prompts` to the sample directory `out`, as sampling would have.

    assignment: the file that says which image is whose; None: the folder's index.csv. facts: of samples.json, besides
    what is found here. An image counts as the draw of the sampling `seed`. Raises InputError with every problem.
    """
    files, left_out = assigned(folder, assignment, [prompt.prompt for prompt in prompts])
    problems: list[str] = []
    converted: dict[str, list[str]] = {}
    rows: list[SampledImage] = []
    with whole_directory(out) as partial:
        for number, (prompt, file) in enumerate(zip(prompts, files, strict=True)):
            source = folder / file
            try:
                pixels, changes = usable(source, side)
            except InputError as error:
                problems.append(str(error))
                continue
            for change in changes:
                converted.setdefault(change, []).append(source.name)
            name = f"{number:06d}.png"
            Image.fromarray(pixels).save(partial / name, compress_level=1)
            rows.append(SampledImage(name, prompt.prompt_id, prompt.prompt, seed, 0))
        if problems:
            raise InputError.of(problems)
        write_index(partial / INDEX, rows)
        found: dict[str, Any] = {
            "pipeline": "none: images that were handed in",
            "converted": {change: len(names) for change, names in converted.items()},
            "of other prompts, left out": left_out,
        }
        write_json(
            partial / "samples.json",
            {**facts, "sampler": found, "count": len(rows), "seed": seed, "seconds": 0, "handed_in": True},
        )
    for change, names in converted.items():
        some = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        print(f"{folder}: {change}: {len(names)} of {len(rows)} images: {some}", file=sys.stderr)


def assigned(folder: Path, assignment: Path | None, prompts: Sequence[str]) -> tuple[list[str], int]:
    """The file name of each of these prompts' image, and how many images are of none of them.

    A prompt that is there k times has k images, in the order of the assignment. Raises InputError where it has fewer or
    more.
    """
    files = read_assignment(folder, assignment)
    where = assignment or folder / INDEX
    counts = Counter(prompts)
    there = {text: len(files.get(text, ())) for text in counts}
    if missing := [text for text, count in counts.items() if there[text] < count]:
        some = ", ".join(f"{text!r} ({counts[text]} wanted, {there[text]} there)" for text in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        reason = f"names too few images for {len(missing)} of {len(counts)} prompts: {some}{more}"
        raise InputError(where, reason)
    for text, count in counts.items():
        if there[text] > count:
            reason = f"names {there[text]} images for {text!r}, and the set has that prompt {count} time(s)"
            raise InputError(where, reason)
    each = {text: iter(files[text]) for text in counts}
    return [next(each[text]) for text in prompts], sum(map(len, files.values())) - len(prompts)


def read_assignment(folder: Path, assignment: Path | None) -> dict[str, list[str]]:
    """The file names of each prompt's images, in order. Raises InputError with file and line of what is wrong."""
    if not folder.is_dir():
        raise InputError(folder, "no such directory")
    if assignment is not None and assignment.suffix.lower() == ".txt":
        return _in_order(folder, assignment)
    path = assignment or folder / INDEX
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    for column in ("file", "prompt"):
        if header.count(column) != 1:
            raise InputError(path, "line 1", f"should have one column {column!r}; it has {header}")
    found: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        file, prompt = row[header.index("file")], row[header.index("prompt")]
        if (first := lines.setdefault(file, line)) != line:
            raise InputError(path, f"line {line}", f"the file {file!r} is in line {first} already")
        if not file or Path(file).name != file:
            raise InputError(path, f"line {line}", f"{file!r} is not the name of a file in {folder}")
        found.setdefault(prompt, []).append(file)
    return found


def _in_order(folder: Path, assignment: Path) -> dict[str, list[str]]:
    prompts = utf8_text(assignment).splitlines()
    names = sorted(
        f.name for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")
    )
    if len(prompts) != len(names):
        reason = f"has {len(prompts)} lines, and {folder} {len(names)} images; it is one prompt a line, in their order"
        raise InputError(assignment, reason)
    for name, counted in zip(names, sorted(names, key=_padded), strict=True):
        if name != counted:
            reason = (
                f"is for images in the order of their names, where {name} comes before {counted}: write numbers with "
                "zeros in front, or give a CSV with the columns file and prompt"
            )
            raise InputError(assignment, reason)
    found: dict[str, list[str]] = {}
    for prompt, name in zip(prompts, names, strict=True):
        found.setdefault(prompt, []).append(name)
    return found


def _padded(name: str) -> str:
    """A key by which 2.png comes before 10.png."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)


def usable(source: Path, side: int) -> tuple[NDArray[np.uint8], list[str]]:
    """An image as uint8 (side, side, 3), and what was converted. Raises InputError where it cannot be used."""
    raw = file_bytes(source)
    image = decoded(raw, source)
    changes = []
    deep = image.format == "PNG" and raw[_PNG_DEPTH] == 16
    if deep or image.mode.startswith("I;16"):
        changes.append("16 bits a channel to 8")
    elif image.mode != "RGB":
        changes.append(f"{image.mode} to RGB")
    try:
        upright = upright_rgb(image)
    except ValueError as error:
        raise InputError(source, error) from error
    if upright.width != upright.height:
        raise InputError(source, f"is {upright.width}x{upright.height}; images to be measured are square")
    if upright.width < side:
        raise InputError(
            source, f"is {upright.width}x{upright.height}, and {side}x{side} are measured; make it larger"
        )
    if upright.width > side:
        changes.append(f"{upright.width}x{upright.height} to {side}x{side}")
    pixels = to_square(upright, side, "none")
    if (pixels == pixels[0, 0]).all():
        raise InputError(source, "is one colour, which no system draws")
    return pixels, changes


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and take one set in."""
    parser = argparse.ArgumentParser(prog="python -m eval.handed_in", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="the folder")
    parser.add_argument("--prompts", type=Path, help="which image is whose (default: the folder's index.csv)")
    parser.add_argument("--set", required=True, help="the scale's prompt set")
    parser.add_argument("--steps", type=at_least(1), required=True, help="by which the images were made")
    parser.add_argument("--label", required=True, help="of the system")
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="the sample directory")
    options = parser.parse_args(arguments)
    images, out = options.images.resolve(), options.out.resolve()
    if out.is_relative_to(images) or images.is_relative_to(out):  # `out` is replaced as a whole
        raise InputError(options.out, "is the images' own folder, or in it, or holds it; write to another")
    values = MeasureValues.read(options.scale)
    if options.set not in values.prompts:
        raise InputError(f"the scale has no prompt set '{options.set}'; known: {', '.join(values.prompts)}")
    prompts = read_prompts(values.prompts[options.set].at(options.steps))
    facts = {"system": options.label, "prompts": options.set, "steps": options.steps}
    side = values.evaluation.resolution
    with only_writer(options.out):
        take_in(options.images, options.prompts, prompts, values.seed, side, options.out, facts)


if __name__ == "__main__":
    sys.exit(main())
