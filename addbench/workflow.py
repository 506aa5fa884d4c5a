"""What the Snakefile asks of the project before the first job: plain values for `params`, files, devices."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from add.config.data import CacheSpec, CocoSpec, ShardsSpec, TrainData

FIGURES = ("ranks", "steps", "scatter", "gap", "losses")
"""Figures of the report, each with a caption of its name under reports/captions; the samples come besides."""

RATING_FIGURES = ("winrates", "elo", "pairs")
"""Figures of a report with ratings, likewise."""


def scale_file(scale: str) -> str:
    """config/<scale>.yaml for a scale's name; a path to a YAML file stands for itself."""
    return scale if scale.endswith((".yaml", ".yml")) else f"config/{scale}.yaml"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name not in _PLACES
        }
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


_PLACES = ("file", "line")
"""Where a cell was written is no value of it: moving a row reruns nothing."""


def plain(value: Any) -> str:
    """Models, dataclasses and containers as one line of JSON; equal values give equal text."""
    return json.dumps(_plain(value), sort_keys=True)


def values(*parts: Any) -> str:
    """The JSON of several parts of a scale, for a rule that depends on just those."""
    return plain(list(parts))


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
    """The options of `python -m add.train` that are no value of a run: where the encoders' output is kept."""
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
