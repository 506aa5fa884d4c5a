"""Checking training data: everything that is wrong at once, counts, and quickly, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from add.config.training import ShardsSpec
from add.data.shards import shard_index
from add.data.training_set import sample_indices, windowed_indices
from addbench.preflight.inputs import check_training_data
from tests.support.smoke import REPOSITORY
from tests.support.training_data import FORMS, png, write, write_tar


@pytest.mark.parametrize("form", FORMS)
def test_a_right_set_is_counted(tmp_path: Path, form: str):
    images = [png(), png(128, "L", (40, 40)), png()]
    report = check_training_data(write(form, tmp_path / "set", images, ["a", "b", "c"]), 32)
    assert report.problems == ()
    assert (report.samples, report.opened, report.captions, report.smaller) == (3, 3, 3, 2)
    assert report.modes == {"RGB": 2, "L": 1}


def test_all_problems_come_at_once(tmp_path: Path):
    write_tar(
        tmp_path / "s-0.tar", [("a.png", png()), ("a.txt", b"a"), ("b.png", b"no image"), ("b.txt", b"b")]
    )
    write_tar(tmp_path / "s-1.tar", [("c.png", png()), ("d.png", png()), ("d.txt", b"\xff")])
    report = check_training_data(ShardsSpec(kind="webdataset", shards=f"{tmp_path}/s-{{0..2}}.tar"), 32)
    assert report.samples == 3
    assert [problem.removeprefix(str(tmp_path)) for problem in report.problems] == [
        "/s-1.tar: c.png: an image without a caption (no .txt member)",
        "/s-2.tar: no such shard",
        "/s-0.tar: b.png: cannot be read as an image: not an image",
        "/s-1.tar: d.txt: the caption is not UTF-8 (byte 0); save it as UTF-8",
    ]


def test_a_sample_of_a_large_set_is_spread_over_all_of_it(tmp_path: Path):
    images = [png() for _ in range(9)]
    images[8] = b"broken"
    train = write("shards", tmp_path, images, list("abcdefghi"))
    assert check_training_data(train, 8, opened=2).problems == ()
    assert len(check_training_data(train, 8, opened=None).problems) == 1


def test_checking_imports_no_torch(tmp_path: Path):
    # `addbench` starts in half a second; torch alone takes several.
    trains = [
        write(form, tmp_path / form.replace(" ", "-"), [png()], ["a"]).model_dump()
        for form in FORMS
        if form != "coco"
    ]
    code = (
        "import sys\nfrom addbench.preflight.inputs import check_training_data\n"
        "from add.config.training import RunDataSpec\n"
        f"for train in {trains!r}:\n"
        "    found = check_training_data(RunDataSpec.model_validate({'train': train}).train, 8).problems\n"
        "    assert not found or 'set-001.tar' in found[0], found\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_an_index_of_ten_million_samples_fits_in_memory(tmp_path: Path):
    write_tar(tmp_path / "s.tar", [("a.png", png()), ("a.txt", b"a")])
    index, problems = shard_index(tmp_path / "s.tar", ".txt")
    assert not problems
    assert index.places.nbytes * 10_000_000 <= 320 << 20


BLOCKS = [3, 1, 4, 1, 5, 9, 2]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50])
def test_windows_show_every_sample_once_an_epoch_and_touch_few_blocks_at_a_time(window: int):
    n = sum(BLOCKS)
    order = windowed_indices(BLOCKS, window, 0, 3 * n, 5)
    owner = np.repeat(np.arange(len(BLOCKS)), BLOCKS)
    for epoch in range(3):
        seen = order[epoch * n : (epoch + 1) * n]
        assert sorted(seen) == list(range(n))
        visits = [set(np.flatnonzero(owner[seen] == b).tolist()) for b in range(len(BLOCKS))]
        for at in range(n):  # blocks that were begun and not ended
            assert sum(min(v) <= at <= max(v) for v in visits) <= window
    assert order[:n] != order[n : 2 * n]
    assert order != windowed_indices(BLOCKS, window, 0, 3 * n, 6)


def test_windowed_order_does_not_depend_on_where_it_is_cut():
    whole = windowed_indices(BLOCKS, 2, 0, 60, 1)
    assert [windowed_indices(BLOCKS, 2, k, 1, 1)[0] for k in range(60)] == whole
    assert windowed_indices(BLOCKS, 2, 7, 30, 1) == whole[7:37]


def test_the_full_order_is_the_permutations_of_its_epochs():
    # The reference: what runs were trained with before permutations were kept from step to step.
    expected = [i for epoch in range(3) for i in np.random.default_rng([4, epoch]).permutation(11).tolist()]
    assert sample_indices(11, 0, 33, 4) == expected
    assert sample_indices(11, 9, 20, 4) == expected[9:29]
