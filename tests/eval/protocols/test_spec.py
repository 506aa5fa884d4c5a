"""Protocol files: what is shipped is valid and applies to every scale; what is wrong is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from add.config.load import load_scale
from add.config.yaml import SpecError
from eval.protocols.plan import NotScoredError, changes, plan, published
from eval.protocols.spec import ProtocolSettings, load_protocols, only
from tests.support.evaluation import ROOT
from tests.support.protocol_sets import protocols

SHIPPED = sorted((ROOT / "config/protocols").glob("*.yaml"))
STANDARD = ROOT / "config/protocols/standard.yaml"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_shipped_files_are_valid(file: Path) -> None:
    document = load_protocols(file)
    for protocol in document.protocols:
        assert len(protocol.why.strip()) > 20
        assert protocol.published is not None or document.settings(protocol) != document.settings(
            document.base
        )


@pytest.mark.parametrize("name", ["mini", "smoke"])
def test_the_standard_protocols_apply_to_every_scale(name: str) -> None:
    """Only those that need samples of their own are left without a plan."""
    document, scale = load_protocols(STANDARD), load_scale(ROOT / f"config/{name}.yaml")
    refused = {}
    for protocol in document.everything():
        try:
            plan(document, protocol, scale, 5000, own_samples=False)
        except NotScoredError as error:
            refused[protocol.name] = str(error)
    assert list(refused) == ["captions_random", "other_seed"]
    assert all(f"--samples-for {protocol}=DIRECTORY" in reason for protocol, reason in refused.items())


def test_every_axis_of_the_issue_has_a_protocol() -> None:
    """Legacy PyTorch and TensorFlow, 256 and other resolutions, JPEG, caption rules, number of images, extractor."""
    document = load_protocols(STANDARD)
    seen = {axis for p in document.protocols for axis in p.set.model_fields_set}
    inception = load_protocols(ROOT / "config/protocols/inception_weights.yaml")
    assert seen == set(ProtocolSettings.model_fields)
    assert [p.name for p in inception.protocols] == ["torchvision", "tensorflow_slim"]
    resizes = {document.settings(p).resize for p in document.protocols}
    assert {"clean", "pytorch", "tensorflow1"} <= resizes


def test_changes_are_taken_from_the_base_and_say_so(tmp_path: Path) -> None:
    scale = load_scale(ROOT / "config/mini.yaml")
    file = tmp_path / "p.yaml"
    file.write_text(
        "base: {name: b, why: w, set: {resize: pytorch}}\n"
        "protocols:\n"
        "  - {name: one, why: w, set: {samples_format: jpeg-75}}\n"
        "  - {name: two, why: w, set: {resize: clean, reference_resolution: half}}\n"
    )
    document = load_protocols(file)
    one, two = document.protocols
    assert document.settings(one).resize == "pytorch", "a protocol starts from the base"
    assert changes(document, one, scale) == ("samples format jpeg-75",)
    assert changes(document, two, scale) == ("reference resolution 16 px", "resize clean")
    assert changes(document, document.base, scale) == ()
    standard = load_protocols(STANDARD)
    said = {p.name: changes(standard, p, scale) for p in standard.protocols}
    assert said["legacy_pytorch"] == ("resize pytorch",), "Inception's normalisation is not this extractor's"
    assert said["crop_none"] == (), "it is what the scale has"
    found = plan(document, two, scale, 100, own_samples=False)
    assert (found.reference.picture.side, found.samples.picture.side) == (16, 32)
    assert found.samples.extractor == scale.evaluation.extractor.model_dump_json()
    assert only(document, ["two"]).protocols == (two,)
    with pytest.raises(SpecError, match=r"p\.yaml:2: no protocol is called 'tw'; did you mean 'two'\?"):
        only(document, ["tw"])


def test_the_papers_protocol_says_what_is_published_and_what_is_ours() -> None:
    document, scale = load_protocols(STANDARD), load_scale(ROOT / "config/mini.yaml")
    lines = published(document, document.protocols[0], scale, 1000)
    assert "images: 1000 (published 5000, NOT MET here)" in lines
    assert "samples resolution: 32 px (published 512 px, NOT MET here)" in lines
    assert "caption rule: first (ours / not published)" in lines
    assert "resize: clean (ours / not published)" in lines
    assert len(lines) == len(ProtocolSettings.model_fields)
    assert "images: 5000 (as published)" in published(document, document.protocols[0], scale, 5000)
    assert published(document, document.base, scale, 1000) == ()


BAD = {
    "{name: a, why: w, set: {resise: clean}}": r"unknown key .*set\.resise'; did you mean 'resize'\?",
    "{name: a, why: w, set: {resize: cleen}}": "'cleen' is not a choice; did you mean 'clean'",
    "{name: a, why: w, set: {samples_format: jpeg-0}}": "quality 1 to 100",
    "{name: a, why: w, set: {samples_format: jpeg-101}}": "quality 1 to 100",
    "{name: a, why: w, set: {samples_format: webp}}": "png or jpeg-<quality>",
    "{name: a, why: w, set: {samples_format: 75}}": "png or jpeg-<quality>",
    "{name: a, why: w, set: {samples_resolution: native}}": "scale, half or a whole number from 1, not 'native'",
    "{name: a, why: w, set: {reference_resolution: 0}}": "whole number from 1, not 0",
    "{name: a, why: w, set: {reference_resolution: 25.5}}": "whole number from 1",
    "{name: a, why: w, set: {images: true}}": "all, half, quarter or a whole number",
    "{name: a, why: w, set: {images: '100'}}": "whole number from 1, not '100'",
    "{name: a, why: w, set: {caption_rule: random}}": "needs a rule_seed",
    "{name: a, why: w, set: {rule_seed: 3}}": "only with caption_rule: random",
    "{name: a, why: w, set: {extractor: inception}}": "extractor",
    "{name: a, why: w, set: {extractor: {kind: feature, network: x}}}": "did you mean 'features'",
    "{name: a, why: w, set: {extractor: {kind: features}}}": "missing key",
    "{name: base, why: w}": "name 'base' is already in line 1",
    "{name: A b, why: w}": "name",
    "{name: a}": "missing key .*why",
    '{name: a, why: "two\\nlines"}': "why: one line",
}


@pytest.mark.parametrize("row", BAD)
def test_what_is_wrong_is_refused_with_file_and_line(row: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=BAD[row]) as caught:
        protocols(tmp_path, f"  - {{name: good, why: w}}\n  - {row}\n")
    assert {problem.line for problem in caught.value.problems} == {4}
    assert caught.value.file.endswith("protocols.yaml")


def test_a_file_without_protocols_and_a_base_of_other_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="protocols"):
        protocols(tmp_path, "  []\n")
    file = tmp_path / "base.yaml"
    file.write_text("base: {name: b, why: w, set: {sampling_seed: 1}}\nprotocols:\n  - {name: a, why: w}\n")
    with pytest.raises(SpecError, match=r"base\.yaml:1: base\.set\.sampling_seed: .* remove it"):
        load_protocols(file)
    with pytest.raises(SpecError, match="cannot be read"):
        load_protocols(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{name: a, why: w, set: {images: 101}}", "101 images are asked for, 100 are there"),
        ("{name: a, why: w, set: {images: 2}}", "too few"),
        (
            "{name: a, why: w, set: {extractor: {kind: features, network: vit_h}}}",
            "no feature network called",
        ),
        ("{name: a, why: w, set: {caption_rule: random, rule_seed: 2}}", "caption_rule and rule_seed is a"),
    ],
)
def test_what_cannot_be_applied_says_why(row: str, reason: str, tmp_path: Path) -> None:
    document = protocols(tmp_path, f"  - {row}\n")
    with pytest.raises(NotScoredError, match=reason):
        plan(document, document.protocols[0], load_scale(ROOT / "config/mini.yaml"), 100, own_samples=False)
