"""What the explorer is given: entries.json, a list of image sets in the order of the table."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from add.config.types import Count, Frozen, Text
from add.errors import InputError
from eval.result import read_json

ImagesKey = tuple[str, int, str, str | None]
"""Prompt set, steps, samples, scores: entries that have these in common show the same images."""


class TableCell(Frozen):
    """One cell of the table: the metric's name ("fid"), and the text as it is printed."""

    metric: Text
    text: str


class EntryFinding(Frozen):
    """A claim about the entry, and the verdict in a word or two."""

    claim: Text
    verdict: Text


class ExplorerEntry(Frozen):
    """One line of the table: a system sampled with `steps` steps on one prompt set.

    samples: its sample directory. scores: the CSV of `eval.image_scores`, None without one; both from the current
    directory. group: the question of its sub-table, or "systems". Several entries may name one sample directory: the
    default is a row of every sub-table.
    """

    system: Text
    steps: Count
    prompts: Text
    samples: Text
    scores: Text | None
    group: Text
    cells: list[TableCell]
    finding: EntryFinding | None

    @property
    def key(self) -> ImagesKey:
        """Which images it shows."""
        return self.prompts, self.steps, self.samples, self.scores


def read_entries(file: Path) -> tuple[ExplorerEntry, ...]:
    """The entries of a file, at least one. Raises InputError with every field that is missing, unknown or wrong.

    A name must lead to one image set: two entries of the same system, steps and prompts name the same samples. An entry
    has one cell a metric.
    """
    if not file.is_file():
        raise InputError(file, "no such file; it lists what the explorer shows")
    try:
        entries = TypeAdapter(list[ExplorerEntry]).validate_python(read_json(file), strict=True)
    except ValidationError as error:
        raise InputError.of(
            f"{file}: {'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
            for problem in error.errors()
        ) from error
    if not entries:
        raise InputError(file, "holds no entries: there is nothing to show")
    first: dict[tuple[str, int, str], int] = {}
    for k, entry in enumerate(entries):
        other = first.setdefault((entry.system, entry.steps, entry.prompts), k)
        metrics = [cell.metric for cell in entry.cells]
        if doubled := sorted({name for name in metrics if metrics.count(name) > 1}):
            raise InputError(
                file, f"{k}.cells", f"two cells have the metric {doubled[0]!r}; give one another name"
            )
        if entries[other].key != entry.key:
            reason = f"{entry.system!r} at {entry.steps} step(s) on {entry.prompts!r} has other samples or scores than "
            raise InputError(file, str(k), f"{reason}entry {other}; give one of them another name")
    return tuple(entries)
