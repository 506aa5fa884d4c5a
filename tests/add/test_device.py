"""Where a program computes: as asked, as stated, else on a GPU of its own; and the same bits there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from add.device import machine_gpus, open_device
from add.errors import InputError
from add.models.features import resize, resize_by_products
from add.train import train
from tests.support.smoke import REPOSITORY, smoke_run

HOLD = """\
import os, sys, time
from add.device import _hold_one
_hold_one(sys.argv[1].split(","))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(600)
"""


def holding(folder: Path, gpus: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", HOLD, gpus]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_jobs_take_different_gpus_and_one_too_many_waits_until_a_job_dies(tmp_path: Path):
    jobs = [holding(tmp_path, "0,MIG-a/1") for _ in range(2)]
    assert {str(job.stdout and job.stdout.readline()).strip() for job in jobs} == {"0", "MIG-a/1"}
    third = holding(tmp_path, "0,MIG-a/1")
    assert third.stderr is not None
    assert third.stdout is not None
    said = third.stderr.readline()
    assert all(str(job.pid) in said for job in jobs)
    jobs[0].kill()
    assert third.stdout.readline().strip() in ("0", "MIG-a/1")
    for job in (*jobs, third):
        job.kill()
        job.wait()


@pytest.mark.parametrize(
    ("visible", "found"), [("", ()), ("-1", ()), ("2", ("2",)), ("0, GPU-b", ("0", "GPU-b"))]
)
def test_the_caller_says_which_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, visible: str, found: tuple[str, ...]
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine_gpus() == found


def test_what_is_asked_goes_before_what_is_stated_and_a_gpu_that_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_device(None, None, 1) == "cpu"
    assert open_device(None, "cpu", 1) == "cpu"
    assert open_device("cpu", "cuda", 1) == "cpu"
    with pytest.raises(InputError, match=r"training\.device: cuda: torch finds no GPU"):
        open_device(None, "cuda", 1)
    with pytest.raises(InputError, match="--device: cuda:1"):
        open_device("cuda:1", "cpu", 1)


@pytest.mark.parametrize("device", ["gpu", "Cpu", "cuda:x", "cuda0"])
def test_a_device_that_there_is_not_is_refused(device: str):
    with pytest.raises(InputError, match=f"--device: {device}: should be cpu, cuda"):
        open_device(device, None, 1)


def test_settings_that_state_the_cpu_use_it_beside_a_gpu_and_hold_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("add.device._hold_one", lambda gpus: pytest.fail("holds a GPU"))
    assert open_device(None, "cpu", 1) == "cpu"


@pytest.mark.parametrize(("sides", "size"), [((64, 64), 28), ((32, 48), 64), ((20, 80), 40)])
def test_resizing_by_products_is_resizing(sides: tuple[int, int], size: int):
    images = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    by_products = resize_by_products(images, size, max(sides) > size)
    torch.testing.assert_close(by_products, resize(images, size), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_training_on_a_gpu_ends_in_the_same_bits_twice(smoke: Path, tmp_path: Path, precision: str):
    # Breaks where an operation of the step has no deterministic kernel on a GPU: it is named in the error.
    run = smoke_run(steps=6, log_every=1, precision=precision, augmentation=1.0)
    students = []
    for name in ("one", "two"):
        train(run, 0, tmp_path / name, "cuda")
        students.append((tmp_path / name / "student/unet/diffusion_pytorch_model.safetensors").read_bytes())
    assert students[0] == students[1]
