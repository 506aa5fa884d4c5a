"""Several processes: the union of their shares is one process's batch, and they train the same student."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import torch
from safetensors.torch import load_file

from add.augment import augment, random_crop
from add.batch import draw_batch
from add.config.run import Run
from add.data.training_set import open_training_set
from add.distributed import Rank, average_gradients, check_ranks, join_processes
from add.models.diffusion import trainable_unet
from add.models.frozen import load_frozen_networks, make_heads
from add.step import losses
from add.train import train
from tests.support.smoke import REPOSITORY, smoke_run

HALVES = (Rank(0, 2), Rank(1, 2))
STUDENT = "student/unet/diffusion_pytorch_model.safetensors"


def test_the_shares_of_a_batch_are_one_processs_batch(smoke: Path) -> None:
    # A process that drew for its own images alone would train on other noise, timesteps and captions.
    run = smoke_run(batch=8, accumulate=2)
    data = open_training_set(run.data.train)
    whole = draw_batch(run, data, 32, (4, 8, 8), 1, 2, 1)
    parts = [draw_batch(run, data, 32, (4, 8, 8), 1, 2, 1, share) for share in HALVES]
    for name in ("real", "s", "t", "noise", "noise_t"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    assert parts[0].prompts + parts[1].prompts == whole.prompts


def test_the_shares_of_an_augmented_batch_are_one_processs(smoke: Path) -> None:
    # Twice, as a step does with generated and real images: the second draws must stay in step with the first.
    images = torch.rand(6, 3, 32, 32)
    draws = [torch.Generator().manual_seed(5) for _ in range(3)]
    for _ in range(2):
        whole = random_crop(augment(images, 1.0, draws[0]), 16, 0.5, draws[0])
        parts = [
            random_crop(augment(share.of(images), 1.0, own, share), 16, 0.5, own)
            for share, own in zip(HALVES, draws[1:], strict=True)
        ]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("processes", "part", "virtual_batch", "message"),
    [
        (3, 8, 8, "do not split into equal slices for 3 processes"),
        (2, 8, 8, r"other groups of images.*multiple of training.virtual_batch \(8\)"),
        (2, 32, 12, "other groups of images"),
    ],
)
def test_shares_that_one_process_could_not_have_computed_are_refused(
    processes: int, part: int, virtual_batch: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_ranks(Rank(0, processes), part, virtual_batch)


@pytest.mark.parametrize(
    ("processes", "part", "virtual_batch"), [(2, 16, 8), (1, 5, 3), (2, 12, 8), (4, 8, None)]
)
def test_shares_with_one_processs_groups_pass(processes: int, part: int, virtual_batch: int | None) -> None:
    # 12 by 8 is 6 + 6 in one process, and 6 and 6 in two: the same groups, though 6 is no multiple of 8.
    check_ranks(Rank(0, processes), part, virtual_batch)


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="gives each process its own"):
        join_processes("cuda:0")


def test_one_process_leaves_its_gradients_alone() -> None:
    module = torch.nn.Linear(2, 1)
    module(torch.ones(1, 2)).sum().backward()
    before = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    average_gradients(Rank(), module)
    assert len(before) == 2
    assert all(torch.equal(p.grad, b) for p, b in zip(module.parameters(), before, strict=True))  # type: ignore[arg-type]


def launched(processes: int, run: Run, out: Path, *options: str) -> list[str]:
    """The command that trains `run` in several processes on the CPU."""
    spec = out.parent / f"{out.name}.json"
    spec.write_text(run.model_dump_json())
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", *options]
    launch += ["--main_process_port", "0", "-m", "add.train", "--spec", str(spec), "--out", str(out)]
    return [*launch, "--device", "cpu"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def launch(command: list[str]) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def all_draws(**training: Any) -> Run:
    """A run whose steps make every draw there is; ema 0, so that what is saved are the very weights trained."""
    settings = {"virtual_batch": 2, "augmentation": 0.7, "teacher_guidance": 2.0, "ema": 0.0, **training}
    return smoke_run("teacher_type-sd2-1-sdxl", log_every=1, **settings)


def gradients(run: Run, share: Rank) -> dict[str, torch.Tensor]:
    """Both networks' gradients of the first step's first part, of a share of it."""
    networks = load_frozen_networks(run, "cpu")
    data = open_training_set(run.data.train)
    unet = trainable_unet(networks.student, run.variant.student_init, 0)
    heads = make_heads(run, networks, 32, 0)
    assert heads is not None
    batch = draw_batch(run, data, 32, networks.student.latent_shape, 0, 0, 0, share)
    student_loss, head_loss, _ = losses(run, networks, unet, heads, batch)
    assert head_loss is not None
    student_loss.backward()
    head_loss.backward()
    named = [*unet.named_parameters(), *((f"heads.{k}", p) for k, p in heads.named_parameters())]
    return {name: p.grad for name, p in named if p.grad is not None}


def test_the_gradient_of_a_batch_is_the_mean_of_its_shares(smoke: Path) -> None:
    # Would break with a loss that is a sum over images, other virtual batches, or R1 divided by the wrong number.
    run = all_draws(batch=8)
    whole = gradients(run, Rank())
    first, second = (gradients(run, share) for share in HALVES)
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(
            (first[name] + second[name]) / 2, gradient, rtol=1e-3, atol=1e-6 * largest, msg=name
        )


def assert_same_student(found: Path, expected: Path, run: Run) -> None:
    """What training changed to 1%, but for what Adam makes of rounding noise: full steps, in any two computations.

    That is the gradient of parameters that do nothing (a group norm of one channel a group removes a constant), and of
    single elements whose gradient happens to pass through zero: of each parameter, one and a fiftieth may be apart.
    Which they are differs between processors; a wrong gradient moves all of them.
    """
    one, two = load_file(expected / STUDENT), load_file(found / STUDENT)
    assert set(one) == set(two)
    scale = {name: float(g.abs().max()) for name, g in gradients(run, Rank()).items() if name in one}
    noise = {name for name in scale if scale[name] < 1e-6 * max(scale.values())}
    start = load_file(Path(run.student.path) / "unet" / "diffusion_pytorch_model.safetensors")
    changes = {name: float((one[name] - start[name]).norm()) for name in one if name not in noise}
    apart = {name: _most(two[name] - one[name]) / change for name, change in changes.items()}
    assert len(apart) > len(one) / 2
    assert max(changes.values()) > 1e-3, "nothing was trained"
    assert max(apart.values()) <= 0.01, sorted(apart.items(), key=lambda item: -item[1])[:5]


def _most(difference: torch.Tensor) -> float:
    """The norm without the largest elements: one, and a fiftieth of them."""
    sizes = difference.abs().flatten().sort().values
    return float(sizes[: len(sizes) - 1 - len(sizes) // 50].norm())


def test_two_processes_train_the_student_of_one(smoke: Path, tmp_path: Path) -> None:
    run = all_draws(steps=4, batch=8, accumulate=2, checkpoint_every=2)
    launch(launched(2, run, tmp_path / "two", "--multi_gpu"))
    train(run, 0, tmp_path / "one")
    assert_same_student(tmp_path / "two", tmp_path / "one", run)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "train/log.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    ]
    assert len(logs[0]) == len(logs[1]) == 4, "each process logged, or none"
    for two, one in zip(*logs, strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5), "the log is of one process's share"
    facts = json.loads((tmp_path / "two" / "train" / "train.json").read_text())
    assert facts["processes"] == 2
    assert len(list((tmp_path / "two" / "train" / "tensorboard").iterdir())) == 1, "two processes write"


@pytest.mark.slow
def test_two_processes_killed_and_started_again_end_in_the_same_bits(smoke: Path, tmp_path: Path) -> None:
    run = all_draws(steps=12, checkpoint_every=2)
    broken = launched(2, run, tmp_path / "broken", "--multi_gpu")
    process = subprocess.Popen(broken, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "broken" / "train" / "checkpoints").glob("step-*.safetensors")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    # The launcher gives its processes sessions of their own: killed alone, it would leave them training.
    for member in [*psutil.Process(process.pid).children(recursive=True), process]:
        member.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "broken" / "student").exists(), "killed too late to test anything"
    with pytest.raises(ValueError, match="was made with processes 2, now it is 1"):
        train(run, 0, tmp_path / "broken")
    launch(broken)
    launch(launched(2, run, tmp_path / "whole", "--multi_gpu"))
    assert (tmp_path / "broken" / STUDENT).read_bytes() == (tmp_path / "whole" / STUDENT).read_bytes()
    logs = [(tmp_path / name / "train" / "log.jsonl").read_text() for name in ("broken", "whole")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_sharded_student_is_the_same_student(smoke: Path, tmp_path: Path) -> None:
    # Would break where slices were averaged twice, checkpointed as if whole, or clipped by a slice's norm.
    run = all_draws(steps=4, checkpoint_every=2)
    launch(launched(2, run, tmp_path / "two", "--use_fsdp", "--fsdp_version", "2"))
    train(run, 0, tmp_path / "one")
    assert_same_student(tmp_path / "two", tmp_path / "one", run)
