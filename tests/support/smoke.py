"""The smoke scale as tests use it: networks and data made once, runs resolved with a few values changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from add.config.run import Run

REPOSITORY = Path(__file__).resolve().parents[2]


def smoke_run(name: str = "baseline", *, variant: dict[str, Any] | None = None, **training: Any) -> Run:
    """A run of the smoke scale, with variant (dotted keys) and training values replaced."""
    scale = load_scale(REPOSITORY / "config" / "smoke.yaml")
    ablations = REPOSITORY / "ablations"
    table = resolve(scale, load_baseline(ablations / "baseline.yaml"), load_ablations(ablations))
    run = table.runs[name]
    values = run.model_dump()
    values["training"] |= training
    for key, value in (variant or {}).items():
        section = values["variant"]
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    return Run.model_validate_json(json.dumps(values))
