"""What a result says of the machine that made it, where machines of one name must be told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eval.result
from eval.findings.measured import processor_name
from eval.result import hardware

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor: a name
stepping\t: 8

processor\t: 1
model name\t: Another
model\t\t: 9
"""


def test_the_first_processor_is_described_by_name_and_numbers(tmp_path: Path):
    file = tmp_path / "cpuinfo"
    file.write_text(XEON)
    found = eval.result._processor(file)
    assert found == {
        "processor": "Intel(R) Xeon(R) Processor: a name",
        "family": 6,
        "model": 143,
        "stepping": 8,
    }
    assert set(eval.result._processor(tmp_path / "none")) == {"processor"}


def test_the_instructions_that_pytorch_uses_tell_machines_apart(monkeypatch: pytest.MonkeyPatch):
    here = hardware()
    assert here["simd"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert processor_name(hardware()) != processor_name(here)


def test_an_accelerator_stands_for_the_machine_and_an_old_record_for_its_name():
    numbers = {"processor": "CPU", "family": 6, "model": 143, "stepping": 8, "simd": "AVX512"}
    assert processor_name({**numbers, "accelerator": "GPU"}) == "GPU"
    assert processor_name(numbers) == "CPU (family/model/stepping 6/143/8, AVX512)"
    assert processor_name({"processor": "CPU"}) == "CPU"
    assert processor_name({}) == "unknown"
