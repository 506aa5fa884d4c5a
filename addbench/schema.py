"""The subcommand schema: JSON schemas of the YAML files, so that editors complete and check them.

A YAML file names its schema in its first line (`# yaml-language-server: $schema=...`). The schemas follow from the
pydantic models; they say draft 7, which editors know. What depends on several values, or on other files, is left to
`addbench validate`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from add.config.resolve import override_keys
from add.config.run import Ablation, Variant
from add.config.scale import Scale
from add.config.system import SystemSpec
from add.config.training import TrainingSpec
from add.errors import InputError
from add.files import write_whole
from add.models.hub import Mirrors
from addbench.project import CONFIG
from eval.protocols.spec import Protocols

SCHEMAS = CONFIG / "schema"
MODELS: dict[str, type[BaseModel]] = {
    "scale": Scale,
    "baseline": Variant,
    "ablation": Ablation,
    "system": SystemSpec,
    "protocols": Protocols,
    "mirrors": Mirrors,
}
"""By the name of the schema: the model of the YAML files that refer to it."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`schema [--check]`."""
    text = "write nothing; fail where a schema is not current"
    command.add_argument("--check", action="store_true", help=text)


def schema(options: argparse.Namespace) -> tuple[str, int]:
    """Write the JSON schemas of the YAML files to config/schema, for editors; or check that they are current.

    Raises InputError with every schema that is not current, or outside of a repository.
    """
    if not CONFIG.is_dir():
        raise InputError(CONFIG, "no such folder; run from the repository's root")
    wanted = {SCHEMAS / f"{name}.json": schema_text(name) for name in MODELS}
    stale = [f for f, text in wanted.items() if not f.is_file() or f.read_text(encoding="utf-8") != text]
    if options.check and stale:
        raise InputError.of(f"{file}: is not current; run `addbench schema`" for file in stale)
    for file in stale:
        write_whole(file, wanted[file])
    written = f", {len(stale)} written" if stale else ""
    return f"{len(wanted)} schemas in {SCHEMAS} are current{written}", 0


def schema_text(name: str) -> str:
    """The schema called `name` as the text of its file."""
    model = MODELS[name]
    models = (model, Variant, TrainingSpec) if model is Ablation else (model,)
    refs, shared = models_json_schema([(each, "validation") for each in models])
    found = _draft7({**refs[model, "validation"], **shared})
    if model is Ablation:
        definitions = found["$defs"]
        definitions["RowSpec"]["properties"]["set"] = {
            "type": "object",
            "description": "What the row changes in the baseline and in the scale's training.",
            "properties": {key: _setting(key, definitions) for key in sorted(override_keys())},
            "additionalProperties": False,
        }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"addbench: {name}"}
    return json.dumps({**head, **found}, indent=2, ensure_ascii=False) + "\n"


def _setting(key: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of what a row sets by a dotted key: of Variant, or of TrainingSpec after `training.`."""
    model = "TrainingSpec" if key.startswith("training.") else "Variant"
    node: dict[str, Any] = definitions[model]
    for part in key.removeprefix("training.").split("."):
        choices = node.get("anyOf", [node])  # an optional section is a reference or null
        reference = next((choice["$ref"] for choice in choices if "$ref" in choice), None)
        section = definitions[reference.rpartition("/")[2]] if reference else node
        node = section["properties"][part]
    return node


def _draft7(node: Any) -> Any:
    """pydantic's schema in the words of draft 7: fixed tuples as lists, no key beside those of a pattern.

    Titles go: they only repeat the keys.
    """
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    renamed = {"items" if key == "prefixItems" else key: value for key, value in node.items()}
    found = {k: _draft7(v) for k, v in renamed.items() if not (k == "title" and isinstance(v, str))}
    if "patternProperties" in found:
        found["additionalProperties"] = False
    return found
