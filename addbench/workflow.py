"""What the Snakefile asks of the project before the first job: plain values for `params`, files, devices."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from add.config.data import CacheSpec, CocoSpec, ShardsSpec, TrainData
from add.config.resolve import Table
from add.config.run import Run, Variant
from add.config.scale import Scale
from eval.stage import MeasureValues, StageValues
from reports.study import study_from_spec

FIGURES = ("ranks", "steps", "scatter", "gap", "losses")
"""Figures of the report, each with a caption of its name under reports/captions; the samples come besides."""

RATING_FIGURES = ("winrates", "elo", "pairs")
"""Figures of a report with ratings, likewise."""


def scale_file(scale: str) -> str:
    """config/<scale>.yaml for a scale's name; a path to a YAML file stands for itself."""
    return scale if scale.endswith((".yaml", ".yml")) else f"config/{scale}.yaml"


def plain(run: Run) -> str:
    """A run's values as one line of JSON; equal values give equal text."""
    return json.dumps(run.model_dump(mode="json"), sort_keys=True)


def stage_values(stage: type[StageValues], scale: Scale) -> Callable[[Any], str]:
    """The stage's values as one line of JSON, for `params` and the stage's option `--scale`.

    A function of the wildcards, since Snakemake takes braces in a text, such as a range of shards, for wildcards.
    It is called for jobs that are planned: a scale without a study has no values for the study's stages.
    """
    return lambda wildcards: stage.of(scale).model_dump_json()


def report_values(scale: Scale, baseline: Variant, table: Table) -> Callable[[Any], str]:
    """What the report is about as one line of JSON, likewise, for `python -m reports.table --study`."""
    study = study_from_spec(scale, baseline, table)
    return lambda wildcards: json.dumps(dataclasses.asdict(study))


def build_options(scale: Scale) -> str:
    """The shell's options of the module that makes the data, besides `--out`: the scale's values for eval.adopted."""
    from eval.adopted import BUILD

    if scale.data.build != BUILD:
        return ""
    return shlex.join(["--scale", MeasureValues.of(scale).model_dump_json()])


def training_source(train: TrainData) -> str:
    """The file or folder whose change is a change of the training data: what rules have as input.

    Of shards it is the first: their folder changes when an index is written into it.
    """
    from add.data.shards import shard_paths

    if isinstance(train, CocoSpec):
        return train.annotations
    if isinstance(train, ShardsSpec):
        paths, _ = shard_paths(train.shards)
        return paths[0].as_posix() if paths else train.shards
    return train.path


def train_options(cache: CacheSpec | None) -> str:
    """The shell's options of `python -m add.train` for keeping what the frozen encoders make; "" without a cache."""
    return "" if cache is None else shlex.join(["--cache", cache.directory, "--keep", *cache.keep])


def gpu_jobs(setting: Any) -> int:
    """1 where jobs run on a GPU, else 0: as set (`--config gpu=1`), or whether the machine has one."""
    if setting is not None:
        return int(setting)
    return int(any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/kfd")))


def report_figures(flag: Callable[..., Any], steps: Sequence[int], rated: bool) -> list[Any]:
    """The report's figures as PNG, each flagged for `snakemake --report`, and as PDF.

    steps: those sampled. rated: whether the scale has a study, and so ratings.
    """
    captions = {name: name for name in (*FIGURES, *(RATING_FIGURES if rated else ()))}
    captions |= {f"samples-{k}step": "samples" for k in (min(steps), max(steps))}
    files: list[Any] = []
    for figure, caption in captions.items():
        text = f"reports/captions/{caption}.rst"
        files.append(flag(f"reports/figures/{figure}.png", caption=text, category="Figures"))
        files.append(f"reports/figures/{figure}.pdf")
    return files
