"""Makes the explorer: `python -m reports.explorer --entries entries.json --out reports/explorer.html`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from add.errors import InputError, refuses
from add.lock import only_writer
from reports.explorer.entries import read_entries
from reports.explorer.page import PROMPTS, write_explorer


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the page."""
    text = "Makes an offline page of the images behind the table."
    parser = argparse.ArgumentParser(prog="python -m reports.explorer", description=text)
    add = parser.add_argument
    add("--entries", type=Path, required=True, help="JSON: the image sets, in the order of the table")
    add("--out", type=Path, required=True, help="e.g. reports/explorer.html")
    add("--scenes", type=Path, help="JSON: what each prompt asks for, e.g. data/mini/scenes.json")
    text = "a set's PartiPrompts file, which has its categories and challenges"
    add("--parti", action="append", default=[], metavar="SET=FILE", help=text)
    add(
        "--images",
        type=int,
        default=PROMPTS,
        help=f"prompts of each set, the first ones (default: {PROMPTS})",
    )
    add("--notice", help="a sentence that stands on the page")
    options = parser.parse_args(arguments)
    if options.images < 1:
        raise InputError("--images", f"is {options.images}, and must be at least 1")
    parti = {}
    for given in options.parti:
        name, equals, file = given.partition("=")
        if not (name and equals and file):
            raise InputError("--parti", f"should be SET=FILE, not {given!r}")
        parti[name] = Path(file)
    entries = read_entries(options.entries)
    with only_writer(options.out):
        size = write_explorer(
            entries,
            options.out,
            scenes=options.scenes,
            parti=parti,
            prompts=options.images,
            notice=options.notice,
        )
    if size.prompts < options.images:
        print(f"note: {size.prompts} prompts of each set, to keep to the size", file=sys.stderr)
    said = (
        f"{size.bytes / 1e6:.1f} MB, up to {size.prompts} prompts a set, images of at most {size.side} pixels"
    )
    print(f"{options.out}: {said}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
