"""The JSON schemas of the YAML files: current, true of every shipped file, and strict."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from add.config.resolve import override_keys
from addbench.__main__ import main
from addbench.adopt import scale_yaml
from addbench.schema import MODELS, SCHEMAS, schema_text
from tests.support.specs import ROOT

SHIPPED = [
    *sorted((ROOT / "config").glob("*.yaml")),
    *sorted((ROOT / "config/protocols").glob("*.yaml")),
    *sorted((ROOT / "ablations").glob("*.yaml")),
    ROOT / "mirrors.example.yaml",
]


def schema_of(file):
    """The schema that the first line of a YAML file names."""
    first = file.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named, f"{file}: {first}"
    return (file.parent / named[1]).resolve()


def problems(schema, values):
    """What the schema says against `values`."""
    validator = Draft7Validator(json.loads(schema.read_text(encoding="utf-8")))
    return [error.message for error in validator.iter_errors(values)]


def load(file):
    return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_a_committed_schema_is_current_and_is_a_schema(name):
    text = (ROOT / SCHEMAS / f"{name}.json").read_text(encoding="utf-8")
    assert text == schema_text(name), "run `addbench schema`"
    assert text.endswith("}\n")
    Draft7Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_shipped_file_names_a_schema_that_accepts_it(file):
    schema = schema_of(file)
    assert schema.parent == ROOT / SCHEMAS
    assert problems(schema, load(file)) == []


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_mistyped_key_is_refused(file):
    values = load(file)
    key = next(iter(values))
    values[f"{key}x"] = values.pop(key)
    assert any(f"'{key}x' was unexpected" in problem for problem in problems(schema_of(file), values))


def test_a_row_may_set_just_the_keys_that_a_run_has():
    schema = ROOT / SCHEMAS / "ablation.json"
    row = json.loads(schema.read_text(encoding="utf-8"))["$defs"]["RowSpec"]["properties"]["set"]
    assert set(row["properties"]) == set(override_keys())

    def found(**settings):
        ablation = {"part": "g", "question": "q", "rows": [{"label": "l", "set": settings}]}
        return problems(schema, ablation)

    assert found(**{"teacher_steps": 2, "loss.space": "latent", "training.steps": 300}) == []
    assert "was unexpected" in found(**{"loss.spce": "latent"})[0]
    assert "is not one of" in found(**{"loss.space": "pixels"})[0]
    assert found(**{"training.steps": "300"})
    assert found(**{"training.seeds": [0]})  # of the scale, not of a run


def test_a_weight_hash_and_a_colour_are_checked():
    schema, values = ROOT / SCHEMAS / "scale.json", load(ROOT / "config/mini.yaml")
    values["networks"]["diffusion"]["sd21"]["sha256"] = "abc"
    values["evaluation"]["extractor"]["mean"] = [0.5, 0.5]
    assert len(problems(schema, values)) == 2


def test_what_adopt_writes_names_the_schema():
    first = scale_yaml({"name": "coco"}, "scale mini", {}).splitlines()[0]
    assert first == (ROOT / "config/mini.yaml").read_text(encoding="utf-8").splitlines()[0]


def test_schemas_are_written_and_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["schema"]) == 1
    assert "run from the repository's root" in capsys.readouterr().err
    Path("config").mkdir()
    assert main(["schema", "--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(MODELS)
    assert main(["schema"]) == 0
    assert main(["schema", "--check"]) == 0
    assert {file.stem for file in SCHEMAS.iterdir()} == set(MODELS)
    file = SCHEMAS / "scale.json"
    file.write_text(file.read_text().replace("object", "array", 1))
    capsys.readouterr()
    assert main(["schema", "--check"]) == 1
    assert capsys.readouterr().err == f"addbench schema: {file}: is not current; run `addbench schema`\n"


def test_a_protocols_sides_and_formats_are_choices():
    schema, values = ROOT / SCHEMAS / "protocols.json", load(ROOT / "config/protocols/standard.yaml")
    for axis, wrong in (("samples_resolution", "native"), ("samples_format", "webp"), ("images", 0)):
        values["protocols"][0]["set"] = {axis: wrong}
        assert problems(schema, values), axis
