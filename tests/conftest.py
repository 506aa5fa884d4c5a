"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings


def pytest_configure() -> None:
    # Before torch is imported: the bits of a result depend on the number of threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A machine that does other work beside the tests may take half a second for an example.
    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")


@pytest.fixture(scope="session")
def smoke_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data/smoke: the smoke scale's data and tiny untrained networks."""
    import torch

    from mini.dataset import write_dataset
    from mini.smoke import write_networks

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("smoke")
    root = directory / "data" / "smoke"
    write_networks(root / "networks")
    write_dataset(root, train=24, val=8, reference=8, prompts=12)
    return directory


@pytest.fixture
def smoke(smoke_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current directory of the test."""
    monkeypatch.chdir(smoke_directory)
    return smoke_directory
