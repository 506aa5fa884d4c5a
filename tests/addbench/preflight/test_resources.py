"""Disk, memory and GPU memory are compared with what the table takes; the whole command on the smoke scale."""

from __future__ import annotations

import os
import shutil
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from add.config.load import load_scale
from add.config.resolve import Table
from add.config.scale import Scale
from addbench.__main__ import main
from addbench.cost.shapes import images_sampled, storage
from addbench.preflight import Findings
from addbench.preflight.networks import CheckedNetworks, HashStore, check_networks
from addbench.preflight.resources import Gpu, Shapes, check_resources, heaviest, known_shapes, machine_gpus
from addbench.workflow import ComparedSystems, plan_compared
from tests.support.specs import ROOT, copy_settings, table_of

Found = tuple[Scale, Table, Shapes]


def checked(*arguments: Any, **named: Any) -> Findings:
    findings = Findings()
    check_resources(findings, *arguments, **named)
    return findings


@pytest.fixture
def found(smoke: Path, tmp_path: Path) -> Found:
    """The smoke scale and what is known of its networks."""
    scale, table = load_scale(ROOT / "config/smoke.yaml"), table_of(ROOT, "smoke")
    networks = check_networks(Findings(), scale, table, HashStore(tmp_path / "hashes.json"), 30)
    return scale, table, known_shapes(scale, networks)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 2 MB: counting a real one takes seconds, and has tests of its own."""
    monkeypatch.setattr("addbench.preflight.resources._peak", lambda *_: 2_000_000)


def test_too_little_disk_says_how_much_is_needed_and_free(
    found: Found, counted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=2_000_000)
    monkeypatch.setattr("addbench.preflight.resources.shutil.disk_usage", lambda _: usage)
    results, gpus = tmp_path / "results", [Gpu("card", 10**9)]
    (only,) = checked(*found, results, gpus, needed=3_000_000).problems
    assert "2 MB are free" in only
    assert "3 MB more are needed" in only
    assert checked(*found, results, gpus, needed=1_000_000).problems == []
    done = results / "smoke/baseline"
    done.mkdir(parents=True)
    (done / "student").write_bytes(b"x" * 1_500_000)
    assert checked(*found, results, gpus, needed=3_000_000).problems == [], "what is there fits"


def test_the_heaviest_run_is_held_against_the_smallest_gpu(found: Found) -> None:
    scale, table, shapes = found
    run = heaviest(table, shapes)
    assert run is not None
    assert run.variant.student == "sdxl", "the larger student decides"
    cards = [Gpu("large", 80 * 10**9), Gpu("small", 10**6)]
    (only,) = checked(scale, table, shapes, Path("results"), cards, 0).problems
    assert "small has 1 MB" in only
    assert "4 images at once" in only
    assert "raise training.accumulate" in only


def test_a_row_with_more_images_at_once_is_the_heaviest(found: Found) -> None:
    """Breaks when a row that needs 600 GB passes, since another one has more parameters."""
    _, table, shapes = found
    run = table.runs["baseline"]
    larger = run.model_copy(update={"training": run.training.model_copy(update={"batch": 100_000})})
    assert heaviest(Table(table.cells, {**table.runs, "baseline": larger}), shapes) == larger


def test_a_gpu_that_suffices_is_a_fact_and_none_is_said(found: Found, counted: None) -> None:
    # The miniature is trained without one: its absence is no problem where memory suffices.
    card = checked(*found, Path("results"), [Gpu("card", 10**9)], 0)
    assert card.problems == []
    assert any("GPU memory: teacher_type-sdxl" in line and "card has 1 GB" in line for line in card.facts)
    none = checked(*found, Path("results"), [], 0)
    assert none.problems == []
    assert any("there is no GPU here, and --gpu-memory GB checks" in line for line in none.left)


def test_too_little_memory_without_a_gpu_says_that_there_is_none(
    found: Found, counted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addbench.preflight.resources.os.sysconf", lambda name: 1000)  # 1 MB
    (only,) = checked(*found, Path("results"), [], 0).problems
    assert "this machine has 1 MB" in only
    assert "since there is no GPU" in only
    assert "run where there is a GPU" in only


def test_what_is_not_here_is_modelled_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise the paper's disk and memory are known only when 40 GB have been downloaded.
    monkeypatch.chdir(ROOT)
    scale, table = load_scale(ROOT / "config/paper.yaml"), table_of(ROOT, "paper")
    shapes = known_shapes(scale, CheckedNetworks({}, {}))
    # The published parameter counts: 866 M and 2.57 G.
    assert [round(shapes.parameters[name][0] / 1e6) for name in ("sd21", "sdxl")] == [866, 2567]
    run = heaviest(table, shapes)
    assert run is not None
    assert run.variant.student == "sdxl"


def test_gpus_are_read_as_nvidia_smi_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-80GB, 81920'\necho 'NVIDIA Odd, [N/A]'\n")
    fake.chmod(0o755)
    assert machine_gpus() == [Gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20)]
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert machine_gpus() == []


def test_the_modelled_disk_is_what_a_students_tensors_take(found: Found, tmp_path: Path) -> None:
    """The reference is a student that was written; headers, which count at this size alone, are left out."""
    from add.train import train
    from tests.support.smoke import smoke_run

    scale, table, shapes = found
    train(smoke_run(steps=1), 0, tmp_path)
    written = 0
    for file in (tmp_path / "student").rglob("*.safetensors"):
        with file.open("rb") as stream:
            (header,) = struct.unpack("<Q", stream.read(8))
        written += file.stat().st_size - header - 8
    only = Table(table.cells, {"baseline": table.runs["baseline"]})
    modelled = storage(scale, only, ComparedSystems(), shapes.parameters)
    assert modelled.students == written
    assert images_sampled(scale, only) == 2 * (8 + 4 + 3 * 2)


def test_seeds_and_jobs_are_counted() -> None:
    scale, table = load_scale(ROOT / "config/paper.yaml"), table_of(ROOT, "paper")
    plan, parameters = plan_compared(scale, table, "results"), {"sd21": (10, 20), "sdxl": (30, 60)}
    one = storage(scale, table, plan, parameters)
    assert one.students == 4 * (15 * 20 + 2 * 60)
    assert one.checkpoints * 2 == storage(scale, table, plan, parameters, jobs=2).checkpoints
    # 17 runs, 5000 and 100 prompts, by 1 and by 4 steps; thirteen pipelines by twenty numbers of steps.
    assert one.samples == int((17 * 2 + 20) * 5100 * 512**2 * 2.0)
    training = scale.training.model_copy(update={"seeds": (0, 1, 2)})
    three = storage(scale.model_copy(update={"training": training}), table, plan, parameters)
    assert (three.students, three.checkpoints) == (3 * one.students, one.checkpoints)


def test_the_command_passes_on_smoke_before_and_after_its_data_are_made(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(copy_settings(tmp_path))
    assert main(["check", "--scale", "smoke"]) == 0
    before = capsys.readouterr().out
    assert "will be made by the data stage" in before
    shutil.copytree(smoke / "data", tmp_path / "data")
    (tmp_path / "data/smoke/dataset.json").touch()
    started = time.perf_counter()
    assert main(["check", "--scale", "smoke"]) == 0
    spent = time.perf_counter() - started
    after = capsys.readouterr().out
    assert "scale smoke: no problem found" in after
    assert "recorded at first use" in after
    assert "memory: teacher_type-sdxl" in after
    assert spent < 60
    (tmp_path / "data/smoke/networks/sd21/unet/config.json").unlink()
    assert main(["check", "--scale", "smoke"]) == 1
    assert "1 problem at scale smoke:" in capsys.readouterr().out
