"""result.json as it is read: what no measurement can have given is refused by file and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from add.errors import InputError
from eval.findings.store import read_store
from eval.result import read_result

STORE = Path("replication/mini")


def metric(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        system = next(s for s in content["systems"] if name in s["metrics"])
        system["metrics"][name]["value"] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (metric("fid", -5.0), "fid is -5, which no measurement gives"),
        (metric("fid", "5"), "fid.value: Input should be a valid number"),
        (metric("fid", float("nan")), "fid.value: Input should be a finite number"),
        (metric("alignment", 7.0), "alignment is 7, which no measurement gives"),
        (metric("clip_score", 31.2), "clip_score is 31.2"),  # in per cent
        (lambda content: content.update(seed=-9), "seed: Input should be greater than or equal to 0"),
        (lambda content: content.update(seed="9"), "seed: Input should be a valid integer"),
        (lambda content: content.update(seed=9.0), "seed: Input should be a valid integer"),
    ],
)
def test_what_no_measurement_gives_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
):
    content = json.loads(next(STORE.glob("baseline/seed*.json")).read_text()) | {"protocols": {}}
    change(content)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=reason) as refused:
        read_result(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "not a result of schema 1.*\n  Input should be"),
        ("[" * 100_000, "not JSON"),
        ('{"seed": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path: Path, text: str, reason: str):
    file = tmp_path / "result.json"
    file.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_result(file)


def test_every_shipped_record_is_possible():
    assert len(read_store(STORE).runs) > 100
