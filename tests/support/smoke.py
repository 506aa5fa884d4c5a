"""Runs of the smoke scale with a few values changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from add.config.run import Run
from tests.support.specs import put, table_of

REPOSITORY = Path(__file__).resolve().parents[2]


def smoke_run(name: str = "baseline", *, variant: dict[str, Any] | None = None, **training: Any) -> Run:
    """A run of the smoke scale, with variant (dotted keys) and training values replaced."""
    values = table_of(REPOSITORY, "smoke").runs[name].model_dump()
    values["training"] |= training
    for key, value in (variant or {}).items():
        put(values["variant"], key.split("."), value)
    return Run.model_validate_json(json.dumps(values))
