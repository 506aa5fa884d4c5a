"""A protocol's identity: whatever changes a figure changes the id, and two ids never share a column."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from eval.metrics.protocol import (
    ImageRule,
    NetworkIdentity,
    PromptRule,
    Protocol,
    ProtocolMismatchError,
    SourceIdentity,
    one_protocol,
    protocol_id,
)


def protocol(**changes: Any) -> Protocol:
    values: dict[str, Any] = {
        "schema": 1,
        "metric": "fid",
        "definition": "a distance",
        "images": 1000,
        "sampling_seed": 0,
        "prompts": PromptRule(
            name="coco",
            kind="coco",
            file="data/captions.json",
            sha256="a" * 64,
            count=1000,
            caption_rule="first",
        ),
        "image_rule": ImageRule(resolution=32, crop="none", resize_filter="bicubic"),
        "network": NetworkIdentity(
            kind="transformers", id="weights/extractor", sha256="b" * 64, image_size=64
        ),
        "reference": SourceIdentity(file="data/reference", sha256="c" * 64, count=4000),
    }
    return Protocol(**(values | changes))


def altered(part: str, **changes: Any) -> Protocol:
    base = protocol()
    return protocol(**{part: getattr(base, part).model_copy(update=changes)})


@pytest.mark.parametrize(
    "other",
    [
        protocol(metric="kid"),
        protocol(images=999),
        protocol(sampling_seed=1),
        protocol(definition="another distance"),
        protocol(reference=None),
        altered("prompts", caption_rule="random"),
        altered("prompts", sha256="d" * 64),
        altered("prompts", exclude_challenges=("Basic",)),
        altered("image_rule", resolution=64),
        altered("image_rule", crop="center"),
        altered("image_rule", resize_filter="bilinear"),
        altered("image_rule", file_format="JPEG"),
        altered("network", sha256="d" * 64),
        altered("network", image_size=32),
        altered("network", configuration="d" * 64),
        altered("network", architecture="d" * 64),
        altered("network", preprocessing={"resize_mode": "squash"}),
        altered("network", tokenizer="d" * 64),
        altered("reference", sha256="d" * 64),
        altered("reference", count=5000),
    ],
)
def test_what_changes_a_figure_changes_the_id(other: Protocol) -> None:
    assert other.id() != protocol().id()
    protocols = {p.id(): p.values() for p in (protocol(), other)}
    with pytest.raises(ProtocolMismatchError, match="cannot share a column"):
        one_protocol([protocol().id(), other.id()], protocols)


@pytest.mark.parametrize(
    "other",
    [
        altered("network", id="/elsewhere/extractor", revision="main"),
        altered("reference", file="/elsewhere/reference"),
        altered("prompts", file="/elsewhere/captions.json"),
        altered("prompts", name="captions"),
    ],
)
def test_an_address_is_not_an_identity(other: Protocol) -> None:
    assert other.id() == protocol().id()
    assert other.values() != protocol().values()


def test_the_id_survives_json_and_key_order() -> None:
    values = json.loads(json.dumps(protocol().values()))
    backwards = dict(reversed(values.items()))
    assert protocol_id(backwards) == protocol().id()
    assert len(protocol().id()) == 12
    assert int(protocol().id(), 16) >= 0
    assert Protocol(**values).id() == protocol().id()


def test_one_protocol_passes_equals_and_names_the_field_that_differs() -> None:
    one, other = protocol(), altered("image_rule", resolution=64)
    protocols = {p.id(): p.values() for p in (one, other)}
    assert one_protocol([one.id(), one.id()], protocols) == one.id()
    with pytest.raises(ProtocolMismatchError, match=r"differ in image_rule\.resolution \((32|64) against"):
        one_protocol([one.id(), other.id()], protocols)
    with pytest.raises(ProtocolMismatchError, match="not among the protocols"):
        one_protocol(["0" * 12], protocols)
    with pytest.raises(ProtocolMismatchError, match="without numbers"):
        one_protocol([], protocols)


def test_a_protocol_is_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        protocol(caption_rule="first")
    with pytest.raises(ValidationError):
        protocol().images = 5
