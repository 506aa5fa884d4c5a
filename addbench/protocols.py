"""The subcommand protocols: one set of images under several evaluation protocols.

This is the one place where numbers of different protocols stand beside each other, because their difference is the
question. Each number carries the hash of its protocol.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from add.config.load import load_scale
from add.device import add_device_option, open_device
from add.errors import InputError
from add.files import write_json, write_whole
from addbench.project import scale_path
from eval.protocols.spec import load_protocols, only

if TYPE_CHECKING:
    from eval.protocols.compare import ProtocolComparison

STANDARD = "config/protocols/standard.yaml"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`protocols --samples DIRECTORY` and what to compare them with."""
    add = command.add_argument
    samples = "a sample directory (results/mini/baseline/seed0/samples/coco-1step), or a folder of images"
    add("--samples", type=Path, required=True, metavar="DIRECTORY", help=samples)
    real = "the real images, as they are filed (default: the scale's)"
    add("--reference", type=Path, metavar="FOLDER", help=real)
    rule = "the scale's prompt set that the samples were drawn for (default: its first of kind coco)"
    add("--prompts", metavar="SET", help=rule)
    add("--any-prompts", action="store_true", help="do not look at what the samples were drawn for")
    own = "a second sample set, for a protocol whose samples must be drawn by another rule; repeatable"
    add("--samples-for", action="append", default=[], metavar="PROTOCOL=DIRECTORY", help=own)
    listed = f"the protocols (default: {STANDARD})"
    add("--protocols", type=Path, default=Path(STANDARD), metavar="FILE", help=listed)
    few = "only these of the file's protocols; the base is always among them"
    add("--only", metavar="NAME,NAME", help=few)
    add_device_option(command)
    files = "also write protocols.csv, protocols.md and protocols.json"
    add("--out", type=Path, metavar="DIRECTORY", help=files)


def protocols(options: argparse.Namespace) -> tuple[str, int]:
    """Score one set of images under several named protocols; print how far apart their FIDs are, and why.

    Writes the files of --out. Raises SpecError, InputError.
    """
    scale = load_scale(scale_path(options.scale))
    document = load_protocols(options.protocols)
    if options.only is not None:
        document = only(document, [name.strip() for name in options.only.split(",") if name.strip()])
    own = _own_samples(options.samples_for)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)  # now: scoring takes minutes
    from eval.protocols.compare import text_table
    from eval.protocols.run import Request, score_protocols

    training, o = scale.training, options
    device = open_device(o.device, training.device, training.threads)
    request = Request(o.samples, o.prompts, o.any_prompts, o.reference, own, device)
    comparison = score_protocols(document, scale, request)
    if options.out is not None:
        _write(options.out, comparison, device)
    return text_table(comparison), 0


def _own_samples(given: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in given:
        name, equals, directory = entry.partition("=")
        if not (name and equals and directory):
            raise InputError(f"--samples-for {entry}: should be PROTOCOL=DIRECTORY")
        if name in found:
            raise InputError(f"--samples-for: '{name}' is given twice")
        found[name] = Path(directory)
    return found


def _write(out: Path, comparison: ProtocolComparison, device: str) -> None:
    from eval.protocols.compare import csv_table, markdown_table
    from eval.result import commit, hardware, versions

    write_whole(out / "protocols.csv", csv_table(comparison))
    write_whole(out / "protocols.md", markdown_table(comparison))
    content = {
        "schema": 1,
        **comparison.facts,
        "rows": [asdict(row) for row in comparison.rows],
        "by_id": comparison.protocols,
        "provenance": {"versions": versions(), "commit": commit(), "hardware": hardware(device)},
    }
    write_json(out / "protocols.json", content)
