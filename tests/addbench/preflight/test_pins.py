"""Weights without a hash are warned of, with the hash to put there and the line where it belongs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from add.config.load import load_scale
from add.config.yaml import Loc, Origin
from addbench.preflight import Findings, Wanted
from addbench.preflight.networks import HashStore, check_networks, check_pins, unpinned
from tests.support.header_networks import write_features
from tests.support.specs import copy_settings, edit, table_of

COMMIT = "a" * 40
KNOWN = "b" * 64
LOC: Loc = ("networks", "features", "some")
LINES = {LOC[: n + 1]: n + 1 for n in range(3)} | {
    (*LOC, "revision"): 4,
    (*LOC, "sha256"): 4,
    (*LOC, "files"): 4,
    (*LOC, "files", "a.safetensors"): 5,
}


def wanted(**values: Any) -> Wanted:
    given: dict[str, Any] = {"kind": "features", "path": "lab/network", "revision": COMMIT, **values}
    return Wanted(LOC, **given, origin=Origin("scale.yaml", LINES))


def pins(network: Wanted, here: bool) -> Findings:
    found = Findings()
    check_pins(found, network, None, here)
    return found


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({"sha256": KNOWN}, []),
        ({"files": {"a.safetensors": KNOWN}}, []),
        ({"files": {"a.safetensors": None, "b.safetensors": KNOWN}}, [("files", "a.safetensors")]),
        ({}, [("sha256",)]),
        ({"kind": "file", "files": {"a.pt": KNOWN}}, []),
        ({"kind": "file", "files": {"a.pt": None}}, [("sha256",)]),
        ({"kind": "file"}, [("sha256",)]),
        ({"kind": "processor", "files": {"preprocessor_config.json": None}}, []),
    ],
)
def test_what_counts_as_pinned(values: dict[str, Any], places: list[Loc]) -> None:
    assert [loc[3:] for loc, _ in unpinned(wanted(**values))] == places


def test_what_is_not_here_is_warned_of_before_it_is_downloaded() -> None:
    (line,) = pins(wanted(files={"a.safetensors": None}), here=False).warnings
    assert str(line) == (
        "scale.yaml:5: networks.features.some: a.safetensors of lab/network is not pinned; "
        "once it is on this machine, this check prints the sha256 to put here"
    )
    (line,) = pins(wanted(), here=True).warnings
    assert line.endswith("; `addbench check --hash` prints the sha256 to put here")


@pytest.mark.parametrize("revision", [None, "main", "a" * 39])
def test_a_revision_that_can_move_is_warned_of(revision: str | None) -> None:
    (line,) = pins(wanted(sha256=KNOWN, revision=revision), here=False).warnings
    assert f"revision {revision or 'null'} of lab/network is no commit" in line
    assert pins(wanted(sha256=KNOWN), here=False) == Findings()


def test_the_hash_that_is_printed_is_the_one_that_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise following the advice ends in a refusal.
    monkeypatch.chdir(copy_settings(tmp_path))
    monkeypatch.setattr("addbench.preflight.cached_directory", lambda *_: None)
    directory = write_features(tmp_path / "dino", "dino-vits16")
    Path("mirrors.yaml").write_text(f"networks: {{facebook/dino-vits16: {{directory: {directory}}}}}\n")
    file = tmp_path / "config/paper.yaml"

    def lines() -> list[str]:
        scale = load_scale(file)
        store = HashStore(tmp_path / "hashes.json")
        found = Findings()
        check_networks(found, scale, table_of(tmp_path, "paper"), store, seconds=30)
        return found.warnings + [p for p in found.problems if "vits16" in p]

    (line,) = lines()
    sha256 = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    assert line.endswith(f"is not pinned; put its sha256 here: {sha256}")
    number = edit(file, "model.safetensors: null", f"model.safetensors: {sha256}")
    assert line.startswith(f"{file}:{number}: networks.features.vit_s_dinov1: model.safetensors of ")
    assert lines() == []
