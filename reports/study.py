"""What the report is about: the table's rows, the runs behind them and every setting, as plain values."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from add.config.resolve import Finding, Table
from add.config.run import Variant
from add.config.scale import Scale
from add.errors import InputError
from eval.findings.present import PresentStudy, present_study
from eval.result import require, seed_directory


@dataclass(frozen=True)
class ReportRow:
    """One row of a sub-table. Several rows may name one run: the shared default is in all six sub-tables."""

    part: str
    question: str
    label: str
    run: str
    default: bool
    published_fid: float | None = None
    published_clip_score: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class ReportSystem:
    """One system of the comparison at a number of steps; its name at it is `label`.

    run: of the table, for a student. results: its result files, one a training seed. samples: the sample directory of
    each prompt set. published, elsewhere: figures of the paper and of others (`add.config.system.FiguresSpec`).
    """

    name: str
    label: str
    steps: int
    run: str | None = None
    results: tuple[str, ...] = ()
    samples: dict[str, str] = field(default_factory=dict)
    published: dict[str, Any] | None = None
    elsewhere: dict[str, Any] | None = None


@dataclass(frozen=True)
class ReportStudy:
    """One scale's table before anything was measured.

    present: what a record of a run must be of to be one of this table. `published` and `chosen` are flattened settings
    (dotted key, value as text): the first are stated in the paper, the second are this project's own ("ours").
    `scenes`: the file with what each prompt asks for; `parti`: the files of the prompt sets that are PartiPrompts;
    `timing`: the file of the systems' times (`eval.timing`). `focus` names the systems whose win rates are shown; a
    scale whose votes are not rated has none.
    """

    scale: str
    description: str
    notice: str | None
    seeds: tuple[int, ...]
    rows: tuple[ReportRow, ...]
    present: PresentStudy
    published: tuple[tuple[str, str], ...]
    chosen: tuple[tuple[str, str], ...]
    focus: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    systems: tuple[ReportSystem, ...] = ()
    timing: str | None = None
    scenes: str | None = None
    parti: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[str, ...]:
        """The distinct runs, in the order in which the table first names them."""
        return tuple(dict.fromkeys(row.run for row in self.rows))

    @property
    def spec_hashes(self) -> dict[str, str]:
        """Each run's spec hash."""
        return self.present.specs

    @property
    def parts(self) -> dict[str, tuple[ReportRow, ...]]:
        """The rows of each sub-table by its letter, in order."""
        letters = dict.fromkeys(row.part for row in self.rows)
        return {part: tuple(row for row in self.rows if row.part == part) for part in letters}

    def files(self, results: Path, name: str) -> dict[tuple[str, int], Path]:
        """One file of every (run, seed), in the table's order. Raises InputError naming all that are missing."""
        keys = [(run, seed) for run in self.runs for seed in self.seeds]
        paths = {(run, seed): seed_directory(results, run, seed) / name for run, seed in keys}
        require(paths.values())
        return paths

    def name_of(self, run: str, *, full: bool = False) -> str:
        """A run's name for a reader: the first row that uses it, as letter of the sub-table and label.

        full: with the question if the label alone ("2", "none") says too little.
        """
        row = next(row for row in self.rows if row.run == run)
        if row.default:
            return "default"
        if not full or len(row.label) > 6 or any(letter.isdigit() for letter in row.label[1:]):
            return f"({row.part}) {row.label}"
        return f"({row.part}) {row.question[:1].lower()}{row.question[1:]}: {row.label}"

    def is_default(self, run: str) -> bool:
        """Whether this run is the shared default."""
        return any(row.default for row in self.rows if row.run == run)


def packed(study: ReportStudy) -> str:
    """A study as one word for the option `--study`: JSON, compressed, since the system takes no longer one than 128 kB.

    A table of eight seeds has 62 kB of JSON, one of 64 has 139 kB.
    """
    return b64encode(zlib.compress(TypeAdapter(ReportStudy).dump_json(study))).decode()


def unpacked(text: str) -> ReportStudy:
    """The study in what `packed` made. Raises InputError for any other text."""
    try:
        return TypeAdapter(ReportStudy).validate_json(zlib.decompress(b64decode(text, validate=True)))
    except (ValueError, zlib.error) as error:
        raise InputError(f"--study: is no study that the workflow packed: {error}") from error


NOT_PUBLISHED = ("loss.reduction", "loss.mean_weight")
"""Values of the shared default that the paper does not state."""


def study_from_spec(scale: Scale, baseline: Variant, resolved: Table) -> ReportStudy:
    """The study that a resolved specification describes."""
    rows = tuple(
        ReportRow(
            part=cell.part,
            question=cell.question,
            label=cell.label,
            run=cell.run,
            default=cell.is_default,
            published_fid=cell.published.fid if cell.published else None,
            published_clip_score=cell.published.clip_score if cell.published else None,
            note=cell.note,
        )
        for cell in resolved.cells
    )
    # The pages of systems and of ratings state theirs themselves.
    default = flatten(baseline.model_dump(mode="json"))
    settings = scale.model_dump(
        mode="json", exclude={"name", "description", "notice", "systems", "timing", "study"}
    )
    return ReportStudy(
        scale=scale.name,
        description=scale.description,
        notice=getattr(scale, "notice", None),
        seeds=tuple(scale.training.seeds),
        rows=rows,
        present=present_study(scale, resolved),
        published=tuple(pair for pair in default if pair[0] not in NOT_PUBLISHED),
        chosen=(*(pair for pair in default if pair[0] in NOT_PUBLISHED), *flatten(settings)),
        focus=scale.study.focus if scale.study is not None else (),
        findings=resolved.findings,
        scenes=scale.evaluation.oracle.scenes if scale.evaluation.oracle is not None else None,
        parti={name: p.file for name, p in scale.sampling.prompts.items() if p.kind == "partiprompts"},
    )


def flatten(tree: Any, prefix: str = "") -> tuple[tuple[str, str], ...]:
    """A nested JSON value as (dotted key, text) pairs, in its order; a list of scalars is one pair."""
    if isinstance(tree, dict) and tree:
        return tuple(
            pair
            for key, value in tree.items()
            for pair in flatten(value, f"{prefix}.{key}" if prefix else str(key))
        )
    if isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        return tuple(pair for i, item in enumerate(tree) for pair in flatten(item, f"{prefix}.{i}"))
    return ((prefix, as_text(tree)),)


def as_text(value: Any) -> str:
    """A scalar, or a list of scalars, as a reader expects it in a table."""
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(as_text(item) for item in value)
    return str(value)
